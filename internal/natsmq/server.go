package natsmq

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"headway/internal/address"
	"headway/internal/pki"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Bounds of the embedded server.
const (
	maxConnections   = 8192
	maxSubscriptions = 1000 // of one connection
	maxOutgoing      = 16 << 20
	startTime        = 20 * time.Second
	authenticateTime = 2 * time.Second
	leastFree        = 1 << 20  // of the disk, without which the streams are not written
	maxMemory        = 64 << 20 // of streams in memory, which administrators may make
)

// startServer starts the embedded server. secret authenticates our connection,
// voice the one that answers callers.
func (q *Queue) startServer(secret, voice string) error {
	if q.o.Dir == "" {
		return errors.New("the directory of the streams is required")
	}
	if err := os.MkdirAll(q.o.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the streams: %w", err)
	}
	q.auth = &authenticator{
		guard: q.o.Guard, note: q.o.Note, log: q.quiet, secret: sha256.Sum256([]byte(secret)), voice: sha256.Sum256([]byte(voice)),
		grace: 20 * q.o.Timing.Watch, here: map[uint64]*credential{}, known: map[string]*credential{}, shares: newShares(maxConnections),
	}
	o := &server.Options{
		ServerName: "headway", DontListen: q.o.Listen == "", NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
		MaxPayload: maxPayload + headroom, MaxConn: maxConnections, MaxSubs: maxSubscriptions, MaxPending: maxOutgoing,
		WriteDeadline: 5 * time.Second, AuthTimeout: authenticateTime.Seconds() + 1, PingInterval: 20 * time.Second, MaxPingsOut: 2,
		JetStream: true, StoreDir: q.o.Dir, JetStreamMaxStore: q.jetStream().MaxStore, JetStreamMaxMemory: q.jetStream().MaxMemory, SyncAlways: q.jetStream().SyncAlways,
		CustomClientAuthentication: q.auth,
	}
	if q.o.Listen != "" {
		if err := CheckListen(q.o.Listen, q.o.TLS != nil && q.o.Guard.Anonymous() == nil); err != nil {
			return err
		}
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
		o.Host, o.TLSConfig = host, q.o.TLS
		if o.TLSConfig != nil {
			o.TLSTimeout = 5
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.SetLoggerV2(&logger{clients: q.quiet, rest: q.serverLog, failed: func() { q.health.failed.Store(true) }}, false, false, false)
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

// CheckListen refuses an embedded address that other machines can reach, unless
// credentials are required there over TLS.
func CheckListen(listen string, secured bool) error {
	if !secured && !address.Loopback(listen) {
		return fmt.Errorf("queue.listen is %s, which others can reach: that needs a key (headway keys create) and TLS (tls.cert_file)", listen)
	}
	return nil
}

// Check reads the credential files and returns their faults.
func (e *External) Check() error {
	_, err := e.options()
	return err
}

func (e *External) options() ([]nats.Option, error) {
	var list []nats.Option
	if e.Dialer != nil {
		list = append(list, nats.SetCustomDialer(e.Dialer))
	}
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
	authorities, err := pki.ReadAuthorities(e.CAFile)
	if err != nil {
		return nil, fmt.Errorf("queue.ca_file: %w", err)
	}
	own, err := pki.ReadPair(e.CertFile, e.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("queue.cert_file: %w", err)
	}
	return append(list, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities, Certificates: own})), nil
}
