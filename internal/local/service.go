// Package local finds the service of this machine: its file, credential,
// certificate, and the transport that reaches it.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Names in a data directory.
const (
	File           = "server.json" // says where the service is
	TokenFile      = "local.token" // credential of the service's own user
	StateFile      = "headway.db"
	DecisionLogDir = "decision-log"
	trailFile      = "routing_audit.log"
)

// SystemTrail is the audit file of a service that may write there.
const SystemTrail = "/var/log/routing_audit.log"

// Trails are the candidates for the audit file: the configured one or, without
// one, the first that is writable and unused. A data directory in which a trail
// was begun goes on with that, so that it does not change its file while another
// service is stopped.
func Trails(configured string, dataDirs ...string) []string {
	if configured != "" {
		return []string{configured}
	}
	var begun, others []string
	for _, dir := range dataDirs {
		file := filepath.Join(dir, trailFile)
		if info, err := os.Stat(file); err == nil && info.Size() > 0 {
			begun = append(begun, file)
		} else {
			others = append(others, file)
		}
	}
	return append(append(begun, SystemTrail), others...)
}

// Service is the content of a service's file, readable by its user and root
// only.
type Service struct {
	URL        string `json:"url"`
	CertSHA256 string `json:"cert_sha256,omitempty"` // of the certificate that is served
	TokenFile  string `json:"token_file,omitempty"`
	AuditFile  string `json:"audit_file"`
	QueueURL   string `json:"queue_url,omitempty"` // of the embedded message queue, if it has a port
	PID        int    `json:"pid"`

	DataDir string `json:"-"` // that the file was read from
}

// Dirs are the possible data directories: the named one or, without a name, the
// usual ones.
func Dirs(named string) []string {
	if named != "" {
		return []string{named}
	}
	return []string{"./data", "/var/lib/headway"}
}

// Running finds the service that runs on the data directory or, without a name,
// on a usual one.
func Running(dataDir string) (s Service, running bool, err error) {
	for _, dir := range Dirs(dataDir) {
		s, found, err := Read(dir)
		if _, unread := errors.AsType[*fs.PathError](err); unread && dataDir == "" {
			continue // of another user
		}
		if err != nil {
			return Service{}, false, err
		}
		if found && alive(s.PID) {
			return s, true, nil
		}
	}
	return Service{}, false, nil
}

// Read reads the file of a data directory. That of a killed service remains.
// found is false without a file.
func Read(dir string) (s Service, found bool, err error) {
	file := filepath.Join(dir, File)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return Service{}, false, fmt.Errorf("%s cannot be read: %w", file, err)
	}
	s.DataDir = dir
	return s, true, nil
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// token is the credential of the service's user, "" for other users.
func (s Service) token() string {
	raw, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
