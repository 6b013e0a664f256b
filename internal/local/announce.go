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
)

// Options are what a service says of itself.
type Options struct {
	DataDir   string   // required
	AuditFile string   // required
	Addr      net.Addr // that it listens on; required
	QueueAddr string   // of the embedded message queue; "": it has no port

	// Certificate is what is served to clients that name no server; nil without TLS.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Announcer keeps the file of a service true. Its methods may be called at the
// same time.
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
	if err != nil {
		return nil, err
	}
	trail, err := filepath.Abs(o.AuditFile)
	if err != nil {
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

// Refresh writes the file again if another certificate is served.
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
	fresh := a.file + ".new"
	if err = os.WriteFile(fresh, append(content, '\n'), 0o600); err == nil {
		err = os.Rename(fresh, a.file)
	}
	if err != nil {
		return fmt.Errorf("write the file by which the command line finds the service: %w", err)
	}
	a.written = true
	return nil
}

// End removes the file, and nothing is written any more. A file that stays does
// no harm: its process is gone.
func (a *Announcer) End() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if err := os.Remove(a.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// served is the hash of the certificate that is served; "" if there is none, or
// if it depends on the name that a client asks for, as with ACME.
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

// reachable is an address that this machine reaches a listener by.
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
