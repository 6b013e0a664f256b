// Package client is Headway's SDK for Go. A head registers and reports with an
// [Agent], a caller places requests with [Client.Do] or [Client.Decide], and
// each other operation of the API has a typed call.
//
// A Client retries a call only if it was surely not processed or is idempotent.
// Retries share a budget, so that a router in trouble does not get more load.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a connection.
const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 30 * time.Second
	idleConns        = 64
	maxAnswerHeader  = 64 << 10
	maxRedirects     = 3
)

// Client talks to one router. It is safe for concurrent use.
type Client struct {
	settings
	base   *url.URL
	own    *http.Transport // nil: the caller's
	budget *budget
}

// settings are what the options set.
type settings struct {
	http    *http.Client
	tls     *tls.Config
	token   func(context.Context) (string, error)
	agent   string // User-Agent
	log     *slog.Logger
	timeout time.Duration
	repeats int
	random  func() float64 // 0 to 1
}

// An Option changes how a Client works.
type Option func(*settings) error

// WithToken sends the secret of an API key, or a JWT, with each call.
func WithToken(token string) Option {
	return func(s *settings) error {
		if err := checkToken(token); err != nil {
			return err
		}
		return WithTokenFunc(func(context.Context) (string, error) { return token, nil })(s)
	}
}

// WithTokenFunc calls token before each attempt. It must be safe for concurrent
// use, and quick or cached. Its error fails the call.
func WithTokenFunc(token func(context.Context) (string, error)) Option {
	return func(s *settings) error {
		switch {
		case token == nil:
			return errors.New("the function that gives the token is nil")
		case s.token != nil:
			return errors.New("there is more than one token")
		}
		s.token = token
		return nil
	}
}

// WithTokenFile sends the token in a file, without surrounding white space. The
// file must exist, and is read again when it changes.
func WithTokenFile(path string) Option {
	return func(s *settings) error {
		if _, err := readToken(path); err != nil {
			return err
		}
		return WithTokenFunc(func(context.Context) (string, error) { return readToken(path) })(s)
	}
}

// WithHTTPClient uses a copy of c, with redirects bounded as [New] says. Its
// Timeout bounds each attempt.
func WithHTTPClient(c *http.Client) Option {
	return func(s *settings) error {
		if c == nil {
			return errors.New("the HTTP client is nil")
		}
		s.http = c
		return nil
	}
}

// WithTLSConfig sets the trusted authorities and the client certificate. It
// excludes WithHTTPClient.
func WithTLSConfig(c *tls.Config) Option {
	return func(s *settings) error {
		s.tls = c.Clone()
		return nil
	}
}

// WithRetries bounds the retries of a call, 0 to 10, default 3. It also bounds
// the alternatives of [Client.Do].
func WithRetries(most int) Option {
	return func(s *settings) error {
		if most < 0 || most > 10 {
			return fmt.Errorf("%d retries, want 0 to 10", most)
		}
		s.repeats = most
		return nil
	}
}

// WithTimeout bounds each attempt with its answer, default 10 seconds. The
// context bounds all attempts.
func WithTimeout(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("a timeout of %v, want more than 0", d)
		}
		s.timeout = d
		return nil
	}
}

// WithUserAgent names the calling program in the audit trail.
func WithUserAgent(name string) Option {
	return func(s *settings) error {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			return errors.New("the user agent is empty or not plain ASCII")
		}
		s.agent = name
		return nil
	}
}

// WithLogger logs retries at debug level, and changes of a lease.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) error {
		if log == nil {
			return errors.New("the logger is nil")
		}
		s.log = log
		return nil
	}
}

// New makes a client of the router at baseURL, such as
// https://headway.example:8443, whose path prefixes every call's. It does not
// connect yet. Redirects are followed to the same scheme, host and port only,
// so that the token goes nowhere else.
func New(baseURL string, opts ...Option) (*Client, error) {
	base, err := parseBase(baseURL)
	if err != nil {
		return nil, err
	}
	s := settings{agent: "headway-go", log: slog.New(slog.DiscardHandler), timeout: 10 * time.Second, repeats: 3, random: rand.Float64}
	for _, opt := range opts {
		if err := opt(&s); err != nil {
			return nil, fmt.Errorf("the service at %s: %w", base.Host, err)
		}
	}
	if s.http != nil && s.tls != nil {
		return nil, fmt.Errorf("the service at %s: a TLS configuration beside an HTTP client has no effect; set it there", base.Host)
	}
	c := &Client{settings: s, base: base, budget: &budget{tokens: maxBudget, at: time.Now()}}
	if s.http != nil {
		given := *s.http
		c.http = &given
	} else {
		c.own = newTransport(s.tls)
		c.http = &http.Client{Transport: c.own}
	}
	c.http.CheckRedirect = sameOrigin
	if s.token != nil && base.Scheme == "http" && !loopback(base.Hostname()) {
		s.log.Warn("the token goes over an unencrypted connection", "host", base.Host)
	}
	return c, nil
}

func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || !validPort(u.Port()) || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// The text is not repeated, since it may hold a password.
		return nil, errors.New("the URL of a service begins with http:// or https://, and has a host and perhaps a path, as http://127.0.0.1:8080 does")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// validPort reports whether a URL's port can be dialed; "" is the scheme's.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

func newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxIdleConns:           idleConns,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		ForceAttemptHTTP2:      true,
	}
}

var errRedirect = errors.New("a redirect to another host or method is not followed")

func sameOrigin(next *http.Request, before []*http.Request) error {
	first := before[0]
	if len(before) > maxRedirects || next.URL.Scheme != first.URL.Scheme || next.URL.Host != first.URL.Host || next.Method != first.Method {
		return errRedirect
	}
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// Close closes idle connections, unless WithHTTPClient was used. The Client
// stays usable.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}
