package app

import (
	"context"
	"errors"
	"syscall"
	"time"

	"headway/internal/outbound"
	"headway/internal/redisaudit"
	"headway/internal/trail"
)

// cursorFile holds the position of the trail on Redis, in the data directory.
const cursorFile = "redis.cursor"

const redisTimeout = 2 * time.Second

// readRedis makes the external sink, without connecting, and refuses an
// embedded address that other machines can reach.
func (a *App) readRedis() (external trail.Sink, err error) {
	c := a.config.Redis
	switch c.Mode {
	case "off":
		return nil, nil
	case "external":
	default:
		return nil, redisaudit.CheckListen(c.Listen)
	}
	if c.URL == "" {
		return nil, errors.New("redis.mode is external, but redis.url names no server")
	}
	if err := mayCall("redis.url", c.URL); err != nil {
		return nil, err
	}
	sink, err := redisaudit.Open(redisaudit.Options{
		URL: c.URL, PasswordFile: c.PasswordFile, Channel: c.Channel, Stream: c.Stream, Count: a.calls.Redis,
		Dial: outbound.NewDialer(outbound.Options{Timeout: redisTimeout}).DialContext,
	})
	if err != nil {
		return nil, err
	}
	a.stops = append(a.stops, sink.Close)
	return sink, nil
}

// openRedis publishes the audit trail on the external sink, or on the embedded
// server.
func (a *App) openRedis(ctx context.Context, sink trail.Sink) error {
	c := a.config.Redis
	switch c.Mode {
	case "off":
		return nil
	case "external":
	default:
		embedded, err := redisaudit.Listen(ctx, redisaudit.EmbeddedOptions{
			Listen: c.Listen, Channel: c.Channel, Log: a.log, Metrics: a.metrics,
		})
		if errors.Is(err, syscall.EADDRINUSE) {
			// A second service on this machine must start all the same.
			a.log.Warn("the audit trail is not published: another process has the address of the embedded Redis; choose another with redis.listen, or say redis.mode: external or off", "addr", c.Listen)
			return nil
		}
		if err != nil {
			return err
		}
		a.stops = append(a.stops, embedded.Close)
		a.redis, sink = embedded, embedded
	}
	return a.publish("redis", cursorFile, sink, 0)
}
