package app

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// AnnounceFile is the name of the file in the data directory that tells the
// command line where the service is.
const AnnounceFile = "server.json"

// Announcement is what the file has. Whoever can read it is the user of the
// service, or root.
type Announcement struct {
	URL        string `json:"url"`
	CertSHA256 string `json:"cert_sha256,omitempty"` // of the certificate that is served
	TokenFile  string `json:"token_file,omitempty"`  // with the local credential
	AuditFile  string `json:"audit_file"`
	QueueURL   string `json:"queue_url,omitempty"` // of the embedded message queue, if it has a port
	PID        int    `json:"pid"`
}

// announcer keeps the file true while certificates change.
type announcer struct {
	file string
	log  *slog.Logger

	mu      sync.Mutex
	said    Announcement
	written bool // the file is as said
	over    bool // it was removed for good
}

// announce writes the file, and has it removed at the end.
func (a *App) announce() error {
	tokenFile, err := filepath.Abs(filepath.Join(a.config.DataDir, LocalTokenFile))
	if err != nil {
		return err
	}
	trail, err := filepath.Abs(a.trail)
	if err != nil {
		return err
	}
	said := Announcement{URL: "http://" + reachable(a.listener.Addr()), TokenFile: tokenFile, AuditFile: trail, PID: os.Getpid()}
	if a.certs != nil {
		said.URL = "https://" + reachable(a.listener.Addr())
	}
	if a.queue != nil && a.queue.Addr() != "" {
		said.QueueURL = "nats://" + a.queue.Addr()
	}
	a.announcer = &announcer{file: filepath.Join(a.config.DataDir, AnnounceFile), log: a.log, said: said}
	a.stops = append(a.stops, a.announcer.end)
	return a.announcer.say(a.served)
}

// served is the hash of the certificate that is served, in hexadecimal; "" if
// there is none, or if it depends on the name that a client asks for, as with
// ACME.
func (a *App) served() string {
	if a.certs == nil {
		return ""
	}
	cert, err := a.certs.Config().GetCertificate(&tls.ClientHelloInfo{})
	if err != nil || cert == nil {
		return ""
	}
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// say has the file name the certificate that is served. Nothing is written if it
// does already.
func (n *announcer) say(served func() string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	cert := served()
	if n.over || n.written && n.said.CertSHA256 == cert {
		return nil
	}
	n.said.CertSHA256, n.written = cert, false
	content, err := json.Marshal(n.said)
	if err != nil {
		return err
	}
	fresh := n.file + ".new"
	if err := os.WriteFile(fresh, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("tell the command line where the service is: %w", err)
	}
	if err := os.Rename(fresh, n.file); err != nil {
		return fmt.Errorf("tell the command line where the service is: %w", err)
	}
	n.written = true
	return nil
}

// end removes the file; nothing is said any more. One that stays is as after a
// kill: the process that it names is gone.
func (n *announcer) end() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	if err := os.Remove(n.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("the file that leads the command line here cannot be removed", "file", n.file, "error", err)
	}
	return nil
}

// reachable is an address that this machine reaches the listener by.
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
