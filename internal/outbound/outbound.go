// Package outbound makes the connections of the process to other servers: with
// time limits, checked addresses, and counters.
package outbound

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"headway/internal/address"
)

// Options are what a connection may do.
type Options struct {
	Timeout        time.Duration // of connecting, and of a whole request
	AllowLinkLocal bool          // link-local and cloud metadata addresses
	Setting        string        // that allows them, for the error; "": there is none
	Count          *Counter      // of each request or connection; nil: counted elsewhere
}

// ForbiddenError reports a forbidden address.
type ForbiddenError struct {
	Addr   netip.Addr
	Reason string
}

func (e *ForbiddenError) Error() string { return fmt.Sprintf("%s %s", e.Addr, e.Reason) }

// Dialer makes connections and counts them. Each resolved address is checked
// before it is dialed.
type Dialer struct {
	net   net.Dialer
	count *Counter
}

// NewDialer makes a dialer.
func NewDialer(o Options) *Dialer {
	control := func(_, to string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(to)
		if err != nil {
			return err
		}
		if wrong := address.CheckAddr(at.Addr(), o.AllowLinkLocal, o.Setting); wrong != "" {
			return &ForbiddenError{at.Addr(), wrong}
		}
		return nil
	}
	return &Dialer{net.Dialer{Timeout: o.Timeout, Control: control}, o.Count}
}

// Dial connects.
func (d *Dialer) Dial(network, to string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, to)
}

// DialContext connects.
func (d *Dialer) DialContext(ctx context.Context, network, to string) (net.Conn, error) {
	conn, err := d.net.DialContext(ctx, network, to)
	d.count.Add(err == nil)
	return conn, err
}

// NewTransport makes an HTTP transport without a proxy and without counters.
func NewTransport(o Options) *http.Transport {
	o.Count = nil
	return &http.Transport{
		DialContext:         NewDialer(o).DialContext,
		TLSHandshakeTimeout: o.Timeout, ResponseHeaderTimeout: o.Timeout, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 1, MaxResponseHeaderBytes: 64 << 10,
	}
}

// NewClient makes an HTTP client that uses the environment's proxy. Each
// request is counted, also those of a redirect; a status below 400 is a
// success.
func NewClient(o Options) *http.Client {
	transport := NewTransport(o)
	transport.Proxy = http.ProxyFromEnvironment
	transport.ForceAttemptHTTP2 = true
	return &http.Client{Transport: &counted{transport, o.Count}, Timeout: o.Timeout}
}

type counted struct {
	*http.Transport
	count *Counter
}

// RoundTrip implements http.RoundTripper.
func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.Transport.RoundTrip(r)
	c.count.Add(err == nil && answer.StatusCode < http.StatusBadRequest)
	return answer, err
}
