package local

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"headway/internal/disk"
)

// Options describe the service to announce.
type Options struct {
	DataDir   string   // required
	AuditFile string   // required
	Addr      net.Addr // that it listens on; required
	QueueAddr string   // of the embedded message queue; "": it has no port

	// Certificate is what clients without SNI get; nil without TLS.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Announcer keeps the file of a service up to date. It is safe for concurrent
// use.
type Announcer struct {
	file        string
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	mu      sync.Mutex
	service Service
	written bool // the file is as service
	ended   bool
}

// Announce writes the file of a service.
func Announce(o Options) (*Announcer, error) {
	for name, missing := range map[string]bool{"DataDir": o.DataDir == "", "AuditFile": o.AuditFile == "", "Addr": o.Addr == nil} {
		if missing {
			return nil, fmt.Errorf("local.Announce: Options.%s is missing", name)
		}
	}
	token, err := filepath.Abs(filepath.Join(o.DataDir, TokenFile))
	trail, err2 := filepath.Abs(o.AuditFile)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	s := Service{URL: "http://" + reachable(o.Addr), TokenFile: token, AuditFile: trail, PID: os.Getpid()}
	if o.Certificate != nil {
		s.URL = "https://" + reachable(o.Addr)
	}
	if o.QueueAddr != "" {
		s.QueueURL = "nats://" + o.QueueAddr
	}
	a := &Announcer{file: filepath.Join(o.DataDir, File), certificate: o.Certificate, service: s}
	return a, a.Refresh()
}

// Refresh rewrites the file if the certificate has changed.
func (a *Announcer) Refresh() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	served := a.served()
	if a.ended || a.written && a.service.CertSHA256 == served {
		return nil
	}
	a.service.CertSHA256, a.written = served, false
	content, err := json.Marshal(a.service)
	if err != nil {
		return err
	}
	if err := disk.Replace(a.file, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the file by which the command line finds the service: %w", err)
	}
	a.written = true
	return nil
}

// End removes the file. A file that remains is harmless, since its process is
// gone.
func (a *Announcer) End() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if err := os.Remove(a.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// served is the hash of the certificate; "" without one, or if it depends on
// the server name, as with ACME.
func (a *Announcer) served() string {
	if a.certificate == nil {
		return ""
	}
	cert, err := a.certificate(new(tls.ClientHelloInfo))
	if err != nil || cert == nil {
		return ""
	}
	return fingerprint(cert.Certificate[0])
}

func fingerprint(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return hex.EncodeToString(sum[:])
}

// reachable is an address by which this machine reaches the listener.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // Go listens on both kinds of addresses then
	}
	return net.JoinHostPort(host, port)
}
