package app

import (
	"context"
	"errors"
	"syscall"
	"time"

	"headway/internal/outbound"
	"headway/internal/redisaudit"
)

// cursorFile holds the position of the trail on Redis, in the data directory.
const cursorFile = "redis.cursor"

const redisTimeout = 2 * time.Second

// readRedis makes the external sink, without connecting, and refuses an
// embedded address that other machines can reach.
func (a *App) readRedis(context.Context) error {
	c := a.config.Redis
	switch c.Mode {
	case "off":
		return nil
	case "embedded":
		return redisaudit.CheckListen(c.Listen)
	}
	if err := mayCall("redis.url", c.URL); err != nil {
		return err
	}
	sink, err := redisaudit.Open(redisaudit.Options{
		URL: c.URL, PasswordFile: c.PasswordFile, Channel: c.Channel, Stream: c.Stream, Count: a.calls.Redis,
		Dial: outbound.NewDialer(outbound.Options{Timeout: redisTimeout}).DialContext,
	})
	if err != nil {
		return err
	}
	a.onStop("external Redis", sink.Close)
	a.sink = sink
	return nil
}

// openRedis publishes the audit trail on the external sink, or on the embedded
// server.
func (a *App) openRedis(ctx context.Context) error {
	c := a.config.Redis
	if c.Mode == "embedded" {
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
		a.onStop("embedded Redis", embedded.Close)
		a.redis, a.sink = embedded, embedded
	}
	if a.sink == nil {
		return nil
	}
	return a.publish("redis", cursorFile, a.sink, 0)
}
