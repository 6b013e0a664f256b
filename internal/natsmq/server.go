package natsmq

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"headway/internal/address"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Bounds of the embedded server.
const (
	maxConnections   = 8192
	maxSubscriptions = 1000               // of one connection
	maxCredentials   = 2 * maxConnections // that are known, those of ended connections too
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
		guard: q.o.Guard, audit: q.o.Audit, log: q.clientLog, secret: sha256.Sum256([]byte(secret)), voice: sha256.Sum256([]byte(voice)),
		grace: 20 * q.o.Timing.Watch, forgotten: q.metrics.forgottenCredentials, here: map[uint64]*credential{}, known: map[string]*credential{}, shares: newShares(maxConnections),
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
	s.SetLoggerV2(&serverLog{clients: q.clientLog, rest: q.serverLog, failed: func() { q.health.failed.Store(true) }}, false, false, false)
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

func (e *External) options() (list []nats.Option, err error) {
	add := func(setting string, o nats.Option, errs ...error) {
		errs = append(errs, o(&nats.Options{}))
		if wrong := errors.Join(errs...); wrong != nil && err == nil {
			err = fmt.Errorf("%s: %w", setting, wrong)
		}
		list = append(list, o)
	}
	if e.Dialer != nil {
		add("queue.url", nats.SetCustomDialer(e.Dialer))
	}
	if e.CredsFile != "" && e.TokenFile != "" {
		return nil, errors.New("queue.creds_file and queue.token_file are both set; one credential is enough")
	}
	if e.CredsFile != "" {
		_, wrong := os.Stat(e.CredsFile)
		add("queue.creds_file", nats.UserCredentials(e.CredsFile), wrong)
	}
	if e.TokenFile != "" {
		token, wrong := os.ReadFile(e.TokenFile)
		add("queue.token_file", nats.Token(strings.TrimSpace(string(token))), wrong)
	}
	if e.CAFile != "" {
		add("queue.ca_file", nats.RootCAs(e.CAFile))
	}
	if e.CertFile != "" {
		add("queue.cert_file", nats.ClientCert(e.CertFile, e.KeyFile))
	}
	return list, err
}
