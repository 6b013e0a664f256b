package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// locked is a service with a key, so that it asks every client for a credential,
// and a shell beside it.
func locked(t *testing.T) (*process, *shell) {
	t.Helper()
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"))
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me", "--out", "admin.key")
	return p, s
}

// again kills the service and starts it again, at another address.
func (p *process) again() *process {
	p.Helper()
	p.signal(syscall.SIGKILL)
	<-p.exited
	return serve(p, p.dataDir)
}

// lines starts a command and gives what it prints.
func (s *shell) lines(args ...string) <-chan string {
	s.Helper()
	cmd := command(s, args...)
	cmd.Dir = s.dir
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.Fatal(err)
	}
	lines := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			select {
			case lines <- scan.Text():
			default: // the reader has left
			}
		}
		_ = cmd.Wait()
	}()
	s.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); <-ended })
	return lines
}

// await reads until a line has the text.
func await(t *testing.T, lines <-chan string, text string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case line, more := <-lines:
			if !more {
				t.Fatalf("it ended before it said %q", text)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-late:
			t.Fatalf("it did not say %q", text)
		}
	}
}

// The service makes itself a new credential at each start.
func TestAWatcherOutlivesARestart(t *testing.T) {
	p, s := locked(t)
	all, heads := s.lines("watch"), s.lines("heads", "watch")
	await(t, all, "now")
	await(t, heads, "now")
	p.again()
	await(t, all, "now")
	await(t, heads, "now")
	s.cli(exitOK, "heads", "register", "gpu-1", "--endpoint", "http://127.0.0.1:9", "--model-type", "m", "--region", "eu")
	await(t, all, "gpu-1")
	await(t, heads, "gpu-1")
}

func TestAWatcherEndsWhenItsKeyIsRefused(t *testing.T) {
	p, s := locked(t)
	s.write("none.key", "hw_none\n")
	s.cli(exitRefused, "watch", "--server", p.url, "--token-file", "none.key")
	s.cli(exitRefused, "watch", "--server", p.url)
}

func TestWithoutTLSTheNeedForItIsNamed(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	s.cli(exitOK, "tls", "init", "--host", "127.0.0.1", "--dir", "tls")
	p := serve(t, filepath.Join(s.dir, "data"), "--tls-cert-file", filepath.Join(s.dir, "tls", "server.pem"), "--tls-key-file", filepath.Join(s.dir, "tls", "server-key.pem"))
	_, errs := s.cli(exitRefused, "heads", "list", "--server", p.url)
	has(t, errs, "the service speaks TLS; use https://"+strings.TrimPrefix(p.url, "http://"))
}
