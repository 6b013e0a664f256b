// Package client is Headway's SDK for Go: a head registers and reports with an
// [Agent], a caller asks where to send a request with [Client.Do] or
// [Client.Decide], and everything else of the interface has a typed call.
//
// A Client repeats a call only where that is safe: when it was surely not
// processed, or when a second time changes nothing. Repeats draw on a budget
// that all calls of a Client share, so that a router in trouble does not get
// more work than before.
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
	base    *url.URL
	http    *http.Client
	own     *http.Transport // nil: the caller's
	token   func(context.Context) (string, error)
	agent   string // User-Agent
	log     *slog.Logger
	timeout time.Duration
	repeats int
	budget  *budget
	random  func() float64 // 0 to 1
}

// settings are what the options set.
type settings struct {
	http    *http.Client
	tls     *tls.Config
	token   func(context.Context) (string, error)
	agent   string
	log     *slog.Logger
	timeout time.Duration
	repeats int
	random  func() float64
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

// WithTokenFunc asks token before each try of a call; it must be safe for
// concurrent use, and quick or cached. A call fails with its error.
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

// WithTokenFile sends the token that stands in a file, without the white space
// around it. The file is read again whenever it has changed, so that a token
// can be replaced without a restart; it must be there when the Client is made.
func WithTokenFile(path string) Option {
	return func(s *settings) error {
		f := &tokenFile{path: path}
		if _, err := f.token(context.Background()); err != nil {
			return err
		}
		return WithTokenFunc(f.token)(s)
	}
}

// WithHTTPClient makes the calls with a client of the caller's, of which a copy
// is kept with redirects bounded as [New] says. Its Timeout holds for each try.
func WithHTTPClient(c *http.Client) Option {
	return func(s *settings) error {
		if c == nil {
			return errors.New("the HTTP client is nil")
		}
		s.http = c
		return nil
	}
}

// WithTLSConfig sets whom the Client trusts and its own certificate. It is not
// for use beside WithHTTPClient.
func WithTLSConfig(c *tls.Config) Option {
	return func(s *settings) error {
		s.tls = c.Clone()
		return nil
	}
}

// WithRetries sets how often one call is repeated at most, 0 to 10; 3 unless
// set. It also bounds the alternatives that [Client.Do] tries.
func WithRetries(most int) Option {
	return func(s *settings) error {
		if most < 0 || most > 10 {
			return fmt.Errorf("%d retries, want 0 to 10", most)
		}
		s.repeats = most
		return nil
	}
}

// WithTimeout bounds each try of a call, with its answer; 10 seconds unless
// set. How long all tries may take is the context's to say.
func WithTimeout(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("a timeout of %v, want more than 0", d)
		}
		s.timeout = d
		return nil
	}
}

// WithUserAgent names the program that calls, as it stands in the audit trail.
func WithUserAgent(name string) Option {
	return func(s *settings) error {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			return errors.New("the user agent is empty or not plain ASCII")
		}
		s.agent = name
		return nil
	}
}

// WithLogger logs retries at debug level, and what happens to a lease.
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
// https://headway.example:8443; a path in it stands before every call's. It
// calls nobody yet. Redirects are followed to the same scheme, host and port
// only, so that a token goes nowhere else.
func New(baseURL string, opts ...Option) (*Client, error) {
	s := settings{
		agent: "headway-go", log: slog.New(slog.DiscardHandler), timeout: 10 * time.Second, repeats: 3,
		random: rand.Float64,
	}
	base, err := parseBase(baseURL)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	for _, opt := range opts {
		if err := opt(&s); err != nil {
			return nil, fmt.Errorf("make a client of %s: %w", base.Host, err)
		}
	}
	if s.http != nil && s.tls != nil {
		return nil, fmt.Errorf("make a client of %s: a TLS configuration beside an HTTP client has no effect; set it there", base.Host)
	}
	c := &Client{
		base: base, token: s.token, agent: s.agent, log: s.log, timeout: s.timeout,
		repeats: s.repeats, budget: newBudget(), random: s.random,
	}
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
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// The text is not repeated: it may hold a password.
		return nil, errors.New("the base URL of a router is http or https, a host and perhaps a path, such as http://127.0.0.1:8080")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
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

// errRedirect says that a redirect leads where no call may go.
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

// Close ends the idle connections of a Client that has no HTTP client of the
// caller's. It may be used on.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}
