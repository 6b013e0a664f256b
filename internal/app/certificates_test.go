package app_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/internal/app"
	"headway/internal/config"
	"headway/internal/local"
	"headway/internal/pki"
)

// secured is a service with TLS whose clients may show certificates.
type secured struct {
	testing.TB
	config    config.Config
	authority *pki.Authority
	app       *app.App
}

func newSecured(t *testing.T, change ...func(*config.Config)) *secured {
	t.Helper()
	s := &secured{TB: t, config: private(t)}
	c, dir := &s.config, t.TempDir()
	s.authority = s.newAuthority(dir)
	c.TLS.CertFile, c.TLS.KeyFile = filepath.Join(dir, pki.ServerCertFile), filepath.Join(dir, pki.ServerKeyFile)
	c.TLS.ClientCAFile = filepath.Join(dir, pki.CACertFile)
	c.Access.Certificates = []string{"ops-*=operator"}
	for _, more := range change {
		more(c)
	}
	s.issue()
	s.app = serve(t, s.config)
	return s
}

func (s *secured) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *secured) newAuthority(dir string) *pki.Authority {
	s.Helper()
	a, _, err := pki.OpenAuthority(dir, time.Now())
	s.check(err)
	return a
}

// issue puts a new certificate of the service in the place of the one before.
func (s *secured) issue() {
	s.Helper()
	dir := s.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	s.check(s.authority.Server([]string{"localhost", "127.0.0.1"}, cert, key))
	s.check(os.Rename(key, s.config.TLS.KeyFile))
	s.check(os.Rename(cert, s.config.TLS.CertFile))
}

// pinned is a client that trusts the announced certificate only, as the
// command line does, and the last answer.
func (s *secured) pinned(t *testing.T) (said local.Service, err error) {
	t.Helper()
	said, token := announced(t, s.config)
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if sum := sha256.Sum256(state.PeerCertificates[0].Raw); hex.EncodeToString(sum[:]) != said.CertSHA256 {
				return x509.UnknownAuthorityError{}
			}
			return nil
		},
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, said.URL+"/api/v1/keys", http.NoBody)
	s.check(err)
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := transport.RoundTrip(r)
	if err == nil {
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%d", answer.StatusCode)
		}
	}
	return said, err
}

// The command line of the machine still gets in after the certificate of the
// service was replaced, with or without a reload.
func TestTheNewCertificateIsAnnounced(t *testing.T) {
	s := newSecured(t)
	before, err := s.pinned(t)
	s.check(err)
	s.issue()
	s.check(s.app.Reload(t.Context()))
	after, err := s.pinned(t)
	s.check(err)
	if before.CertSHA256 == after.CertSHA256 || before.URL != after.URL || before.PID != after.PID {
		t.Errorf("announced is %+v, and was %+v", after, before)
	}
	// A fault of another file does not keep the certificate from being announced.
	s.issue()
	s.check(os.Remove(s.config.TLS.ClientCAFile))
	if err := s.app.Reload(t.Context()); err == nil {
		t.Error("the authorities are gone, and nobody says so")
	}
	again, err := s.pinned(t)
	s.check(err)
	if again.CertSHA256 == after.CertSHA256 {
		t.Error("the certificate is announced as before")
	}
	s.issue() // without a reload
	for end := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if said, _ := announced(t, s.config); said.CertSHA256 != again.CertSHA256 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the certificate was replaced, and is announced as before")
		}
	}
	_, err = s.pinned(t)
	s.check(err)
}

// A certificate is worth as much as who signed it, however old the connection
// is on which it was shown.
func TestACertificateOfAnAuthorityThatIsNoneAnyMore(t *testing.T) {
	s := newSecured(t)
	said, _ := announced(t, s.config)
	mutual := func(a *pki.Authority) *http.Client {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
		s.check(a.Client("ops-laptop", cert, key))
		pair, err := tls.LoadX509KeyPair(cert, key)
		s.check(err)
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	get := func(c *http.Client, path string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, said.URL+path, http.NoBody)
		s.check(err)
		answer, err := c.Do(r)
		s.check(err)
		return answer
	}
	status := func(c *http.Client) (int, string) {
		t.Helper()
		answer := get(c, "/api/v1/heads")
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		s.check(err)
		return answer.StatusCode, string(text)
	}
	old := mutual(s.authority)
	stream := get(mutual(s.authority), "/api/v1/events")
	defer func() { _ = stream.Body.Close() }()
	if code, text := status(old); code != http.StatusOK || stream.StatusCode != http.StatusOK {
		t.Fatalf("%d %s, %d", code, text, stream.StatusCode)
	}

	// An authority more takes nothing away.
	dir := t.TempDir()
	next := s.newAuthority(dir)
	both, err := os.ReadFile(s.config.TLS.ClientCAFile)
	s.check(err)
	fresh, err := os.ReadFile(filepath.Join(dir, pki.CACertFile))
	s.check(err)
	s.check(os.WriteFile(s.config.TLS.ClientCAFile, append(both, fresh...), 0o600))
	s.check(s.app.Reload(context.Background()))
	for range 2 { // the second time it is known
		if code, text := status(old); code != http.StatusOK {
			t.Errorf("beside another authority: %d %s", code, text)
		}
	}

	s.check(os.WriteFile(s.config.TLS.ClientCAFile, fresh, 0o600))
	s.check(s.app.Reload(context.Background()))
	if code, text := status(old); code != http.StatusUnauthorized || !strings.Contains(text, "certificate is not trusted") {
		t.Errorf("on the connection of before: %d %s; want 401", code, text)
	}
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); { // until it ends
	}
	if code, text := status(mutual(next)); code != http.StatusOK {
		t.Errorf("with a certificate of the new authority: %d %s", code, text)
	}
}

// A client's certificate is accepted over the queue as it does over HTTP, with the
// same rights, and loses them at the same time.
func TestACertificateOpensTheQueue(t *testing.T) {
	s := newSecured(t, func(c *config.Config) {
		c.Queue.Listen = "127.0.0.1:0"
		c.Access.Certificates = append(c.Access.Certificates, "gpu-*=head:gpu-*")
	})
	said, _ := announced(t, s.config)
	shown := func(a *pki.Authority, name string) (tls.Certificate, string) {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
		s.check(a.Client(name, cert, key))
		pair, err := tls.LoadX509KeyPair(cert, key)
		s.check(err)
		sum := sha256.Sum256(pair.Certificate[0])
		return pair, "certificate-" + hex.EncodeToString(sum[:16])
	}
	connect := func(id string, pairs ...tls.Certificate) (*nats.Conn, error) {
		return nats.Connect(strings.Replace(said.QueueURL, "nats:", "tls:", 1), nats.Secure(&tls.Config{InsecureSkipVerify: true, Certificates: pairs}), nats.CustomInboxPrefix("_INBOX."+id), nats.NoReconnect())
	}
	pair, id := shown(s.authority, "gpu-rack-1")
	nc, err := connect(id, pair)
	s.check(err)
	defer nc.Close()
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}}
	defer web.CloseIdleConnections()
	for head, want := range map[string]string{"gpu-7": `"lease"`, "cpu-7": `"forbidden"`} {
		body := `{"id":"` + head + `","endpoint":"http://10.0.0.1:8000","model_type":"llama","region":"us-east","status":"active"}`
		m, err := nc.Request("headway.v1.heads.register."+id, []byte(body), time.Minute)
		if err != nil || !strings.Contains(string(m.Data), want) {
			t.Errorf("%s over the queue: %+v, %v; want %s", head, m, err, want)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, said.URL+"/api/v1/heads", strings.NewReader(body))
		s.check(err)
		r.Header.Set("Content-Type", "application/json")
		answer, err := web.Do(r)
		s.check(err)
		text, err := io.ReadAll(answer.Body)
		s.check(errors.Join(err, answer.Body.Close()))
		if !strings.Contains(string(text), want) {
			t.Errorf("%s over HTTP: %s; want %s", head, text, want)
		}
	}
	foreign, foreignID := shown(s.newAuthority(t.TempDir()), "gpu-rack-1")
	unlisted, unlistedID := shown(s.authority, "somebody")
	for what, try := range map[string]func() (*nats.Conn, error){
		"a certificate of another authority": func() (*nats.Conn, error) { return connect(foreignID, foreign) },
		"a certificate of no listed name":    func() (*nats.Conn, error) { return connect(unlistedID, unlisted) },
		"no certificate":                     func() (*nats.Conn, error) { return connect("x") },
	} {
		if other, err := try(); err == nil {
			other.Close()
			t.Errorf("%s opens the queue", what)
		}
	}

	dir := t.TempDir()
	s.newAuthority(dir)
	fresh, err := os.ReadFile(filepath.Join(dir, pki.CACertFile))
	s.check(err)
	gone := nc.StatusChanged(nats.CLOSED)
	s.check(os.WriteFile(s.config.TLS.ClientCAFile, fresh, 0o600))
	s.check(s.app.Reload(context.Background()))
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("it is still connected once the authority is none any more")
	}
}
