package natsmq_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"headway/internal/natsmq"
)

// inProcess starts an external NATS server in this process.
func inProcess(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	o.NoLog, o.NoSigs, o.JetStream, o.StoreDir = true, true, true, t.TempDir()
	if o.Host = "127.0.0.1"; o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

// authority makes certificates for a server on loopback and for clients, and
// returns the files' directory: ca.pem, and name.pem with name.key for each.
func authority(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sign := func(template, parent *x509.Certificate, with *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if with == nil {
			with = key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, with)
		if err != nil {
			t.Fatal(err)
		}
		return key, der
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey, der := sign(ca, ca, nil)
	write("ca.pem", "CERTIFICATE", der)
	for i, name := range names {
		key, der := sign(&x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, ca, caKey)
		write(name+".pem", "CERTIFICATE", der)
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".key", "PRIVATE KEY", private)
	}
	return dir
}

// works opens a queue on an external server and demands that it is ready and
// answers clients with other credentials for it.
func works(t *testing.T, e natsmq.External, options ...nats.Option) {
	t.Helper()
	w := newWorld(t, func(o *natsmq.Options) { o.External, o.Listen, o.Dir = e, "", "" })
	w.ready()
	nc, err := nats.Connect(e.URL, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w.ask(nc, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
	w.ask(nc, "headway.v1.decisions.outcome", `{}`, `"HEADWAY_COMMANDS"`)
	w.until("it is buried", func() bool { return w.of("dead_letters", "published") == 1 })
	w.agree()
}

// refused opens a queue with credentials that are not good and demands that it
// is not connected.
func refused(t *testing.T, e natsmq.External) *world {
	t.Helper()
	w := newWorld(t, func(o *natsmq.Options) { o.External, o.Listen, o.Dir = e, "", "" })
	if ok, detail := w.queue.Ready(); ok || !strings.Contains(detail, "cannot be reached") {
		t.Errorf("ready %v: %s", ok, detail)
	}
	return w
}

func TestAnExternalServerOverTLS(t *testing.T) {
	dir := authority(t, "server", "service")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	s := inProcess(t, &server.Options{TLSConfig: config, TLS: true, TLSVerify: true, TLSTimeout: 5})
	e := natsmq.External{
		URL:    "tls://" + s.Addr().String(),
		CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "service.pem"), KeyFile: filepath.Join(dir, "service.key"),
	}
	works(t, e, nats.RootCAs(e.CAFile), nats.ClientCert(e.CertFile, e.KeyFile))
	foreign := e
	foreign.CAFile = filepath.Join(authority(t), "ca.pem")
	refused(t, foreign) // the server is none of this authority's
	anonymous := e
	anonymous.CertFile, anonymous.KeyFile = "", ""
	refused(t, anonymous) // the server wants a certificate
}

func TestAnExternalServerWithAToken(t *testing.T) {
	s := inProcess(t, &server.Options{Authorization: "secret"})
	file := func(token string) string {
		name := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(name, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	url := "nats://" + s.Addr().String()
	works(t, natsmq.External{URL: url, TokenFile: file("secret")}, nats.Token("secret"))
	refused(t, natsmq.External{URL: url, TokenFile: file("guess")})
}

// operated are the options of a server whose users have credentials of an
// account, and a function that makes such credentials.
func operated(t *testing.T) (*server.Options, func(p jwt.Permissions) (file string)) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		t.Helper()
		k, err := create()
		must(err)
		public, err := k.PublicKey()
		must(err)
		return k, public
	}
	operator, operatorID := pair(nkeys.CreateOperator)
	account, accountID := pair(nkeys.CreateAccount)
	_, systemID := pair(nkeys.CreateAccount)
	trusted := jwt.NewOperatorClaims(operatorID)
	trusted.SystemAccount = systemID
	resolver := &server.MemAccResolver{}
	for _, id := range []string{accountID, systemID} {
		claims := jwt.NewAccountClaims(id)
		if id == accountID {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		token, err := claims.Encode(operator)
		must(err)
		must(resolver.Store(id, token))
	}
	return &server.Options{TrustedOperators: []*jwt.OperatorClaims{trusted}, AccountResolver: resolver, SystemAccount: systemID}, func(p jwt.Permissions) string {
		t.Helper()
		user, id := pair(nkeys.CreateUser)
		claims := jwt.NewUserClaims(id)
		claims.Permissions = p
		token, err := claims.Encode(account)
		must(err)
		seed, err := user.Seed()
		must(err)
		text, err := jwt.FormatUserConfig(token, seed)
		must(err)
		name := filepath.Join(t.TempDir(), "user.creds")
		must(os.WriteFile(name, text, 0o600))
		return name
	}
}

// The credentials of a user with no more than docs/queue.md says that the
// service needs are enough, and those that were not good may become so.
func TestAnExternalServerWithCredentials(t *testing.T) {
	o, credentials := operated(t)
	s := inProcess(t, o)
	url := "nats://" + s.Addr().String()
	var needs jwt.Permissions
	needs.Pub.Allow.Add("headway.v1.>", "$SRV.>", "$JS.API.>", "$JS.ACK.>", "_INBOX.>")
	needs.Sub.Allow.Add("headway.v1.>", "$SRV.>", "_INBOX.>")
	works(t, natsmq.External{URL: url, CredsFile: credentials(needs)}, nats.UserCredentials(credentials(jwt.Permissions{})))
	_, others := operated(t)
	file := others(jwt.Permissions{})
	before, err := s.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := refused(t, natsmq.External{URL: url, CredsFile: file})
	good, err := os.ReadFile(credentials(needs))
	if err != nil {
		t.Fatal(err)
	}
	w.until("it was refused often", func() bool {
		v, err := s.Varz(nil)
		return err == nil && v.TotalConnections >= before.TotalConnections+5
	})
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	w.ready()
}
