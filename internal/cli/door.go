package cli

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"headway/client"
)

// door is the way to a service. Each request goes to where the service is then,
// with the credential that is good then: a service of this machine may start
// again at another address, and makes itself a new credential each time.
type door struct {
	remote remote
	secure *tls.Config

	mu   sync.Mutex
	dir  string          // of the service of this machine, once it was met
	cert string          // that past believes
	past *http.Transport // in use
}

// Bounds of a connection.
const (
	dialTimeout   = 3 * time.Second
	idleTimeout   = 30 * time.Second
	idleConns     = 64
	maxRereads    = 3 // of a credential that is refused and changes meanwhile
	maxNoTLS      = 1024
	maxAnswerHead = 64 << 10
)

// noTLS is what Go's server says to whoever does not begin with a handshake.
var noTLS = []byte("Client sent an HTTP request to an HTTPS server")

// ourNoTLS is part of the problem that the service answers with then.
var ourNoTLS = []byte("this port speaks HTTPS")

// open makes the way to the service, and says where it leads now.
func (r *remote) open() (*door, reached, error) {
	secure, err := r.secure()
	if err != nil {
		return nil, reached{}, err
	}
	d := &door{remote: *r, secure: secure}
	now, err := d.find()
	return d, now, err
}

// find says where the service is now. A service of this machine that was met is
// not taken for another one.
func (d *door) find() (reached, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.remote
	if d.dir != "" {
		r.dataDir = d.dir
	}
	now, err := r.reach()
	if err == nil && now.dir != "" {
		d.dir = now.dir
	}
	return now, err
}

// through is the transport that believes the certificate, if one is announced.
func (d *door) through(cert string) *http.Transport {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.past != nil && d.cert == cert {
		return d.past
	}
	if d.past != nil {
		d.past.CloseIdleConnections()
	}
	secure := d.secure.Clone()
	if cert != "" && secure.RootCAs == nil {
		pin(secure, cert)
	}
	d.cert, d.past = cert, &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        secure,
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConns:           idleConns,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHead,
		ForceAttemptHTTP2:      true,
	}
	return d.past
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections].
func (d *door) CloseIdleConnections() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.past != nil {
		d.past.CloseIdleConnections()
	}
}

// RoundTrip sends a request. A credential that is refused is read again: only
// when it is still the same is the refusal the answer.
func (d *door) RoundTrip(req *http.Request) (*http.Response, error) {
	now, err := d.find()
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err} // nothing was sent
	}
	body := req.Body
	for try := 0; ; try++ {
		sent := req.Clone(req.Context())
		sent.Body = body
		now.address(sent)
		resp, err := d.through(now.cert).RoundTrip(sent)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusBadRequest && sent.URL.Scheme == "http" {
			return unencrypted(resp, sent.URL.Host)
		}
		if resp.StatusCode != http.StatusUnauthorized || try == maxRereads || !d.changed(&now) {
			return resp, nil
		}
		if body = nil; req.GetBody != nil {
			body, err = req.GetBody()
		}
		if err != nil || body == nil && req.Body != nil && req.Body != http.NoBody {
			return resp, err
		}
		_ = resp.Body.Close()
	}
}

// changed reports whether the service or its credential is another one by now,
// and notes it.
func (d *door) changed(now *reached) bool {
	again, err := d.find()
	if err != nil || again == *now {
		return false
	}
	*now = again
	return true
}

// address has a request go to the service as whom it is asked.
func (now *reached) address(req *http.Request) {
	if now.local {
		scheme, host, _ := strings.Cut(now.url, "://")
		req.URL.Scheme, req.URL.Host, req.Host = scheme, host, ""
	}
	if now.token != "" {
		req.Header.Set("Authorization", "Bearer "+now.token)
	}
}

// unencrypted is the answer to a request without TLS, or says that TLS is needed.
func unencrypted(resp *http.Response, host string) (*http.Response, error) {
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxNoTLS))
	if err == nil && bytes.HasPrefix(head, noTLS) || bytes.Contains(head, ourNoTLS) {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: the service speaks TLS; use https://%s", client.ErrInvalid, host)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	return resp, nil
}
