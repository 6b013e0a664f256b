package app

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

// announce writes the file, and has it removed at the end.
func (a *App) announce() error {
	file := filepath.Join(a.config.DataDir, AnnounceFile)
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
		if cert, err := a.certs.Config().GetCertificate(&tls.ClientHelloInfo{}); err == nil && cert != nil {
			sum := sha256.Sum256(cert.Certificate[0])
			said.CertSHA256 = hex.EncodeToString(sum[:])
		}
	}
	if a.queue != nil && a.queue.Addr() != "" {
		said.QueueURL = "nats://" + a.queue.Addr()
	}
	content, err := json.Marshal(said)
	if err != nil {
		return err
	}
	fresh := file + ".new"
	if err := os.WriteFile(fresh, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("tell the command line where the service is: %w", err)
	}
	if err := os.Rename(fresh, file); err != nil {
		return fmt.Errorf("tell the command line where the service is: %w", err)
	}
	a.stops = append(a.stops, func() error {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
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
