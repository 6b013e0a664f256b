package local

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"headway/client"
)

// defaultURL is the address of a service without a known data directory.
const defaultURL = "http://127.0.0.1:8080"

// ErrNotRunning reports that no service runs on a data directory.
var ErrNotRunning = errors.New("no service runs")

// Transport sends each request to the service's current address with its
// current credential, since a restart may change both. It is an
// [http.RoundTripper], safe for concurrent use.
type Transport struct {
	target Target
	secure *tls.Config

	mu      sync.Mutex
	dataDir string          // of the service of this machine, once it was found
	cert    string          // that current trusts
	current *http.Transport // nil before the first request
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

// Answers of Go's server and of ours to a client that sends no handshake.
var (
	noTLS    = []byte("Client sent an HTTP request to an HTTPS server")
	ourNoTLS = []byte("this port speaks HTTPS")
)

// Open makes the transport to a service, and returns its current URL.
func (target Target) Open() (*Transport, string, error) {
	secure, err := target.secure()
	if err != nil {
		return nil, "", err
	}
	t := &Transport{target: target, secure: secure, dataDir: target.DataDir}
	now, err := t.find()
	return t, now.url, err
}

// place is an address and the credential to use there.
type place struct {
	url, token string
	local      bool   // it is the service of this machine
	cert       string // that it announced, as a hash
}

// find returns the current place. Once a service was found, no other one
// replaces it.
func (t *Transport) find() (now place, err error) {
	if now.token, err = t.target.key(); err != nil || t.target.Server != "" {
		now.url = t.target.Server
		return now, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s, running, err := Running(t.dataDir)
	if err != nil {
		return now, err
	}
	switch {
	case running:
		t.dataDir = s.DataDir
	case t.dataDir == "":
		s.URL = defaultURL
	default:
		err = fmt.Errorf("%w on the data directory %s; start one with 'headway serve --data-dir %s', or name one with --server", ErrNotRunning, t.dataDir, t.dataDir)
	}
	now.url, now.local, now.cert = s.URL, true, s.CertSHA256
	if now.token == "" {
		now.token = s.token()
	}
	return now, err
}

// trusting is a transport that trusts the certificate with the hash, if one is
// announced.
func (t *Transport) trusting(cert string) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && t.cert == cert {
		return t.current
	}
	if t.current != nil {
		t.current.CloseIdleConnections()
	}
	secure := t.secure.Clone()
	if cert != "" && secure.RootCAs == nil {
		pin(secure, cert)
	}
	t.cert, t.current = cert, &http.Transport{
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
	return t.current
}

// pin trusts exactly the certificate with the hash, for any name.
func pin(c *tls.Config, want string) {
	c.InsecureSkipVerify = true // the certificate itself is compared below
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if fingerprint(s.PeerCertificates[0].Raw) != want {
			return errors.New("the service has another certificate than the one that it announced")
		}
		return nil
	}
}

// CloseIdleConnections implements the interface that [http.Client] uses.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil {
		t.current.CloseIdleConnections()
	}
}

// RoundTrip sends a request. After a refusal it reads the credential again, and
// retries if it has changed.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	now, err := t.find()
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
		resp, err := t.trusting(now.cert).RoundTrip(sent)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusBadRequest && sent.URL.Scheme == "http" {
			return unencrypted(resp, sent.URL.Host)
		}
		if resp.StatusCode != http.StatusUnauthorized || try == maxRereads {
			return resp, nil
		}
		again, err := t.find()
		if err != nil || again == now {
			return resp, nil //nolint:nilerr // the refusal is the answer
		}
		now = again
		if body = nil; req.GetBody != nil {
			body, err = req.GetBody()
		}
		if err != nil || body == nil && req.Body != nil && req.Body != http.NoBody {
			return resp, err
		}
		_ = resp.Body.Close()
	}
}

func (p *place) address(req *http.Request) {
	if p.local {
		scheme, host, _ := strings.Cut(p.url, "://")
		req.URL.Scheme, req.URL.Host, req.Host = scheme, host, ""
	}
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
}

// unencrypted repeats a request without TLS, or reports that TLS is needed.
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
