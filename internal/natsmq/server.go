package natsmq

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"headway/internal/access"
)

// Bounds of our own server.
const (
	maxConnections   = 4096
	maxSubscriptions = 1000 // of one connection
	maxOutgoing      = 16 << 20
	startTime        = 20 * time.Second
	authenticateTime = 2 * time.Second
)

// startServer starts our own server. Whoever has the secret is ourselves.
func (q *Queue) startServer(secret string) error {
	if q.o.Dir == "" {
		return errors.New("the directory of the streams is required")
	}
	if err := os.MkdirAll(q.o.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the streams: %w", err)
	}
	q.guests = &guests{o: q.o.Access, log: q.o.Log, secret: sha256.Sum256([]byte(secret)), here: map[uint64]*access.Principal{}}
	o := &server.Options{
		ServerName: "headway", DontListen: q.o.Listen == "", NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
		MaxPayload: maxPayload + headroom, MaxConn: maxConnections, MaxSubs: maxSubscriptions, MaxPending: maxOutgoing,
		WriteDeadline: 5 * time.Second, AuthTimeout: authenticateTime.Seconds() + 1, PingInterval: 20 * time.Second, MaxPingsOut: 2,
		JetStream: true, StoreDir: q.o.Dir, JetStreamMaxStore: 3*q.o.MaxBytes + 64<<20, JetStreamMaxMemory: 64 << 20,
		// Without it a power cut loses what was acknowledged in the last two minutes.
		SyncAlways:                 true,
		CustomClientAuthentication: q.guests,
	}
	if q.o.Listen != "" {
		host, port, err := net.SplitHostPort(q.o.Listen)
		if err != nil {
			return fmt.Errorf("queue.listen: %w", err)
		}
		if o.Port, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("queue.listen: %w", err)
		}
		if o.Port == 0 {
			o.Port = server.RANDOM_PORT
		}
		ip, err := netip.ParseAddr(host)
		if loopback := host == "localhost" || err == nil && ip.IsLoopback(); !loopback && (q.o.TLS == nil || q.o.Access.Anonymous() != nil) {
			return fmt.Errorf("queue.listen is %s, which others can reach: that needs a key (headway keys create) and TLS (tls.cert_file)", q.o.Listen)
		}
		o.Host, o.TLSConfig = host, q.o.TLS
		if o.TLSConfig != nil {
			o.TLSTimeout = 5
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.SetLoggerV2(&logger{q.o.Log}, false, false, false)
	q.server = s
	s.Start()
	if !s.ReadyForConnections(startTime) {
		if q.o.Listen != "" {
			return fmt.Errorf("the embedded NATS server did not start; is %s free? Choose another address with queue.listen", q.o.Listen)
		}
		return errors.New("the embedded NATS server did not start")
	}
	return nil
}

// options of a connection to somebody else's server.
func (e *External) options() ([]nats.Option, error) {
	var list []nats.Option
	if e.CredsFile != "" && e.TokenFile != "" {
		return nil, errors.New("queue.creds_file and queue.token_file are both set; one credential is enough")
	}
	if e.CredsFile != "" {
		if _, err := os.Stat(e.CredsFile); err != nil {
			return nil, fmt.Errorf("queue.creds_file: %w", err)
		}
		list = append(list, nats.UserCredentials(e.CredsFile))
	}
	if e.TokenFile != "" {
		token, err := os.ReadFile(e.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("queue.token_file: %w", err)
		}
		list = append(list, nats.Token(strings.TrimSpace(string(token))))
	}
	if e.CAFile == "" && e.CertFile == "" {
		return list, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		pem, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("queue.ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("queue.ca_file: %s has no certificate in PEM", e.CAFile)
		}
	}
	if e.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("queue.cert_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return append(list, nats.Secure(config)), nil
}

// guests lets connections to our own server in, and says which subjects they may
// use. It implements server.Authentication.
type guests struct {
	o      Access
	log    *slog.Logger
	secret [sha256.Size]byte // of our own connection

	mu   sync.Mutex
	here map[uint64]*access.Principal // by the number of the connection
}

// Check implements server.Authentication. The credential is the token or the
// password of the connection; the name of the user does not matter.
func (g *guests) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	token := opts.Token
	if token == "" {
		token = opts.Password
	}
	if sum := sha256.Sum256([]byte(token)); subtle.ConstantTimeCompare(sum[:], g.secret[:]) == 1 {
		c.RegisterUser(&server.User{Username: "headway"})
		return true
	}
	p, from := g.o.Anonymous(), netip.Addr{}
	if a, ok := c.RemoteAddress().(*net.TCPAddr); ok {
		from = a.AddrPort().Addr().Unmap()
	}
	if token != "" {
		ctx, cancel := context.WithTimeout(context.Background(), authenticateTime)
		defer cancel()
		var err error
		if p, err = g.o.Authenticate(ctx, token, from); err != nil {
			g.log.Warn("a connection to the message queue was refused", "from", from.String(), "reason", err)
			return false
		}
	}
	if p == nil || token == "" && !from.IsLoopback() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.o.Ended(p) { // since it was authenticated: the look that ends others has passed
		return false
	}
	g.here[c.GetID()] = p
	c.RegisterUser(&server.User{Username: subjectID(p), Permissions: permissions(p), ConnectionDeadline: p.Expires})
	return true
}

// known is who is connected under the id that subjects name.
func (g *guests) known(id string) *access.Principal {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.here {
		if subjectID(p) == id {
			return p
		}
	}
	return nil
}

// watch ends the connections of those who may not stay as soon as that changes,
// until ctx ends.
func (g *guests) watch(ctx context.Context, s *server.Server) {
	for {
		changed := g.o.Changed() // before the look, so that no change is missed
		g.check(s)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// check ends the connections of those who may not stay and forgets those who
// have left.
func (g *guests) check(s *server.Server) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, p := range g.here {
		switch {
		case s.GetClient(id) == nil:
			delete(g.here, id)
		case g.o.Ended(p):
			delete(g.here, id)
			_ = s.DisconnectClientByID(id)
		}
	}
}

// subjectID is how a subject names somebody: by the id, or by a hash of one that
// would not be one word of a subject.
func subjectID(p *access.Principal) string {
	odd := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
	}
	switch {
	case p.ID == "":
		return p.Type
	case !strings.ContainsFunc(p.ID, odd):
		return p.ID
	}
	sum := sha256.Sum256([]byte(p.Type + ":" + p.ID))
	return hex.EncodeToString(sum[:8])
}

// permissions are the subjects that somebody may use. Answers go to an inbox of
// one's own, or others could read them. What concerns heads has the sender's id
// at the end of the subject, which the server enforces: so the service knows who
// speaks.
func permissions(p *access.Principal) *server.Permissions {
	id := subjectID(p)
	var publish []string
	subscribe := []string{"_INBOX." + id + ".>", "_INBOX_" + id + ".>"}
	if p.May(access.Decide) {
		publish = append(publish, prefix+queueRequest, prefix+queueOutcome)
	}
	if p.May(access.BeHead) {
		for _, subject := range []string{prefix + queueRegister, prefix + queueStatus, commands + queueRegister} {
			publish = append(publish, subject+"."+id)
			if p.Role != access.RoleHead {
				publish = append(publish, subject)
			}
		}
	}
	if p.May(access.Read) {
		publish = append(publish, "$SRV.>")
		subscribe = append(subscribe, prefix+queueEvents+".>")
	}
	if p.May(access.Admin) {
		publish = append(publish, prefix+">", "$JS.API.>", "$JS.ACK.>")
		subscribe = append(subscribe, prefix+">", "_INBOX.>", "$JS.EVENT.>")
	}
	if publish == nil { // an empty list would allow all
		publish = []string{"_INBOX." + id + ".>"}
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}

// logger hands what the server says to our log. What it calls a notice is of no
// interest to an operator of ours.
type logger struct{ log *slog.Logger }

func (l *logger) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "message queue", "server", fmt.Sprintf(format, v...))
}

// The rest implements server.Logger.

func (l *logger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l *logger) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l *logger) Fatalf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l *logger) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l *logger) Debugf(format string, v ...any)  { l.say(slog.LevelDebug, format, v) }
func (l *logger) Tracef(string, ...any)           {}

func randomUpTo(n int64) int64 { return rand.Int64N(max(n, 1)) }
