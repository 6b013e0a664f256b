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
	StreamLength int64             // entries that the stream keeps, about; 0: 1,000,000
	Count        *outbound.Counter // of each call of the server; nil: they are not counted
	Dial         Dial              // nil: that of the library
}

// Dial connects to a server.
type Dial func(ctx context.Context, network, to string) (net.Conn, error)

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
	if o.URL == "" || o.Channel == "" {
		return nil, errors.New("redisaudit: URL and Channel are required")
	}
	if o.StreamLength == 0 {
		o.StreamLength = 1_000_000
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
	if o.Dial != nil {
		options.Dialer = dialer(o.Dial, options.TLSConfig)
	}
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
	published := make([]*redis.IntCmd, len(lines))
	added := make([]*redis.StringCmd, len(lines))
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, line := range lines {
			published[i] = p.Publish(ctx, s.o.Channel, line)
			if s.o.Stream != "" {
				added[i] = p.XAdd(ctx, &redis.XAddArgs{
					Stream: s.o.Stream, MaxLen: s.o.StreamLength, Approx: true, Values: []any{"record", line},
				})
			}
		}
		return nil
	})
	s.o.Count.Add(err == nil)
	receivers = -1
	refused := slices.ContainsFunc(published, func(p *redis.IntCmd) bool { return p.Err() != nil }) ||
		slices.ContainsFunc(added, func(a *redis.StringCmd) bool { return a != nil && a.Err() != nil })
	if err != nil && !refused {
		// go-redis reports this for the whole pipeline: nothing was sent.
		return 0, -1, fmt.Errorf("publish on the Redis channel %s: %w", s.o.Channel, err)
	}
	for i, p := range published {
		n, failed := p.Result()
		if failed == nil && added[i] != nil {
			failed = added[i].Err()
		}
		if failed != nil {
			return i, receivers, fmt.Errorf("publish on the Redis channel %s: %w", s.o.Channel, failed)
		}
		if i == 0 || int(n) < receivers {
			receivers = int(n)
		}
	}
	return len(lines), receivers, nil
}
