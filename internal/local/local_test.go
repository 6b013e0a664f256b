package local

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// announced is a server that a data directory names.
func announced(t *testing.T) (server *httptest.Server, dir string) {
	t.Helper()
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, TokenFile), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Announce(Options{DataDir: dir, AuditFile: "audit.log", Addr: server.Listener.Addr(), Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &server.TLS.Certificates[0], nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.End(); err != nil {
			t.Error(err)
		}
		if _, found, err := Read(dir); found || err != nil {
			t.Errorf("after the end: %v, %v", found, err)
		}
	})
	return server, dir
}

func TestOnlyTheAnnouncedCertificateIsTrusted(t *testing.T) {
	server, dir := announced(t)
	ask := func() (string, error) {
		transport, url, err := Target{DataDir: dir}.Open()
		if err != nil || url != server.URL {
			t.Fatalf("%s, %v", url, err)
		}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body := make([]byte, 100)
		n, _ := resp.Body.Read(body)
		return string(body[:n]), nil
	}
	if got, err := ask(); err != nil || got != "Bearer secret" {
		t.Errorf("%q, %v", got, err)
	}
	s, _, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"url":%q,"cert_sha256":"%064d","pid":%d}`, s.URL, 1, s.PID)
	if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("of another certificate: %v", err)
	}
}

func TestTheServiceThatRunsIsFound(t *testing.T) {
	_, dir := announced(t)
	if s, running, err := Running(dir); err != nil || !running || s.DataDir != dir || s.PID != os.Getpid() {
		t.Errorf("%+v, %v, %v", s, running, err)
	}
	t.Chdir(t.TempDir())
	if err := os.Mkdir("data", 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("data/"+File, fmt.Appendf(nil, `{"url":"http://127.0.0.1:1","pid":%d}`, 1<<30), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, running, err := Running("data"); err != nil || running {
		t.Errorf("of one that was killed: %+v, %v, %v", s, running, err)
	}
	// What cannot be read is another user's, unless it was named.
	if err := os.Remove("data/" + File); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("data/"+File, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, running, err := Running(""); err != nil || running {
		t.Errorf("%v, %v", running, err)
	}
	if _, _, err := Running("data"); err == nil {
		t.Error("no error of a file that was named")
	}
}

func TestPlacesOfTheTrail(t *testing.T) {
	if got, want := Trails("", "a", "b"), []string{"/var/log/routing_audit.log", "a/routing_audit.log", "b/routing_audit.log"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	if got := Trails("x.log", "a"); !slices.Equal(got, []string{"x.log"}) {
		t.Errorf("%q", got)
	}
	// Where a trail was begun it goes on; an empty file is none.
	begun, empty := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{begun: "{}\n", empty: ""} {
		if err := os.WriteFile(filepath.Join(dir, "routing_audit.log"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{begun + "/routing_audit.log", "/var/log/routing_audit.log", empty + "/routing_audit.log"}
	if got := Trails("", empty, begun); !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestWhatAnAnnouncementNeeds(t *testing.T) {
	if _, err := Announce(Options{DataDir: t.TempDir(), AuditFile: "a"}); err == nil || !strings.Contains(err.Error(), "Addr") {
		t.Errorf("error %v", err)
	}
}

// A service that starts again makes a new credential, and may refuse the old one
// in between.
func TestARefusedCredentialIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, TokenFile)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") == "Bearer new" {
			fmt.Fprintf(w, "%s", body)
			return
		}
		if err := os.WriteFile(token, []byte("new"), 0o600); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	if err := os.WriteFile(token, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Announce(Options{DataDir: dir, AuditFile: "audit.log", Addr: server.Listener.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.End() }()
	transport, url, err := Target{DataDir: dir}.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post(url, "text/plain", strings.NewReader("sent twice"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != "sent twice" {
		t.Errorf("%s, %q, %v", resp.Status, body, err)
	}
}
