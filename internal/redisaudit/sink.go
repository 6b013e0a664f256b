// Package redisaudit publishes the audit trail on a Redis channel, of an
// external server or the embedded one.
package redisaudit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"headway/internal/outbound"
)

// Options are what a Sink is made of.
type Options struct {
	URL          string            // required: redis://, rediss:// with TLS, or unix://
	PasswordFile string            // "": none, or that of the URL
	Channel      string            // required
	Stream       string            // "": none
	Count        *outbound.Counter // of each call of the server; nil: they are not counted
	Dial         Dial              // required
}

// Dial connects to a server.
type Dial func(ctx context.Context, network, to string) (net.Conn, error)

// streamLength is about how many entries the stream keeps.
const streamLength = 1_000_000

// Time limits of a call.
const (
	dialTimeout = 2 * time.Second
	callTimeout = 3 * time.Second
)

// Sink publishes on a Redis server. It implements trail.Sink.
type Sink struct {
	o      Options
	client *redis.Client
}

// Open validates the options. It does not connect yet, since Redis may start
// later.
func Open(o Options) (*Sink, error) {
	if o.URL == "" || o.Channel == "" || o.Dial == nil {
		return nil, errors.New("redisaudit: URL, Channel and Dial are required")
	}
	options, err := redis.ParseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", err)
	}
	if o.PasswordFile != "" {
		raw, err := os.ReadFile(o.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read redis.password_file: %w", err)
		}
		options.Password = strings.TrimSpace(string(raw))
	}
	quiet.Do(func() { redis.SetLogger(silence{}) })
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout = dialTimeout, callTimeout, callTimeout
	options.MaxRetries = -1 // the shipper repeats, and counts each attempt
	options.DialerRetries = 1
	options.PoolSize, options.MaxActiveConns = 1, 2
	options.DisableIdentity = true
	options.Dialer = dialer(o.Dial, options.TLSConfig)
	return &Sink{o: o, client: redis.NewClient(options)}, nil
}

// dialer connects through another dialer, with TLS if the URL says so.
func dialer(dial Dial, config *tls.Config) Dial {
	if config == nil {
		return dial
	}
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		plain, err := dial(ctx, network, to)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(plain, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, plain.Close())
		}
		return conn, nil
	}
}

// quiet silences the global log of go-redis. Failures are returned and logged
// once by the shipper.
var quiet sync.Once

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Close closes the connection.
func (s *Sink) Close() error { return s.client.Close() }

// Publish implements trail.Sink with one round trip.
func (s *Sink) Publish(ctx context.Context, lines [][]byte) (arrived, receivers int, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout+2*callTimeout)
	defer cancel()
	each := 1 // command of a line
	if s.o.Stream != "" {
		each = 2
	}
	cmds, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, line := range lines {
			p.Publish(ctx, s.o.Channel, line)
			if each == 2 {
				p.XAdd(ctx, &redis.XAddArgs{Stream: s.o.Stream, MaxLen: streamLength, Approx: true, Values: []any{"record", line}})
			}
		}
		return nil
	})
	s.o.Count.Add(err == nil)
	failed := func(c redis.Cmder) bool { return c.Err() != nil }
	receivers = -1
	if err != nil && !slices.ContainsFunc(cmds, failed) {
		// go-redis reports this for the whole pipeline: nothing was sent.
		return 0, receivers, fmt.Errorf("publish on the Redis channel %s: %w", s.o.Channel, err)
	}
	for ofLine := range slices.Chunk(cmds, each) {
		if i := slices.IndexFunc(ofLine, failed); i >= 0 {
			return arrived, receivers, fmt.Errorf("publish on the Redis channel %s: %w", s.o.Channel, ofLine[i].Err())
		}
		if p, ok := ofLine[0].(*redis.IntCmd); ok && (arrived == 0 || int(p.Val()) < receivers) {
			receivers = int(p.Val())
		}
		arrived++
	}
	return arrived, receivers, nil
}
