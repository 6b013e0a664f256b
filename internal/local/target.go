package local

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"headway/client"
	"headway/internal/pki"
)

// Target says which service is meant, as whom it is asked, and whose certificate
// it has.
type Target struct {
	Server    string        // URL; "": the service of this machine
	DataDir   string        // of the service of this machine; "": a usual one
	Token     string        // API key to send; without one the credential of the service of this machine
	TokenFile string        // with the API key, instead of Token; read for each request
	CAFile    string        // PEM; without one the certificate that a service of this machine announces is trusted, too
	CertFile  string        // PEM, to show to the service
	KeyFile   string        // of that certificate
	Timeout   time.Duration // of a call of Connect's client, its repetitions included
}

// Connect makes a client of the service.
func (target Target) Connect(more ...client.Option) (*client.Client, error) {
	transport, url, err := target.Open()
	if err != nil {
		return nil, err
	}
	options := []client.Option{client.WithHTTPClient(&http.Client{Transport: transport}), client.WithUserAgent("headway-cli"), client.WithTimeout(target.Timeout)}
	return client.New(url, append(options, more...)...)
}

// URL is where the service is now.
func (target Target) URL() (string, error) {
	_, url, err := target.Open()
	return url, err
}

// secure says whose certificates are trusted, and which one is shown.
func (target Target) secure() (*tls.Config, error) {
	authorities, err := pki.ReadAuthorities(target.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read --ca-file: %w", err)
	}
	own, err := pki.ReadPair(target.CertFile, target.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read --cert-file and --key-file: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities, Certificates: own}, nil
}

// key is the API key to send, "" if none is named.
func (target Target) key() (string, error) {
	token := target.Token
	if target.TokenFile != "" {
		raw, err := os.ReadFile(target.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read the API key: %w", err)
		}
		token = strings.TrimSpace(string(raw))
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) { // no header can have it
		return "", errors.New("the API key has white space or other characters that no key has; name a file with the key alone by --token-file")
	}
	return token, nil
}

// Help says what helps where no connection to a service comes about.
func Help(err error) string {
	if !errors.Is(err, client.ErrUnavailable) {
		return ""
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, otherName := errors.AsType[x509.HostnameError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there: start the service with 'headway serve', or name another with --server."
	case unknown:
		return "The certificate is signed by an authority that this machine does not know: name its certificate with --ca-file."
	case otherName:
		return "The certificate is for other names: use one of them with --server, or make one for this name ('headway tls init --host NAME')."
	case noTLS, strings.Contains(err.Error(), http.ErrSchemeMismatch.Error()):
		return "What listens there does not speak TLS: use http:// if it is the service."
	case errors.Is(err, io.EOF), strings.Contains(err.Error(), "malformed HTTP"),
		strings.Contains(err.Error(), "readLoopPeekFailLocked"): // net/http's, of a server that speaks first
		return "What listens there does not answer as a service does: is it another port that is meant?"
	}
	return ""
}
