package natsmq

import (
	"context"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"headway/internal/access"
)

// Own is the service's own connection, which may do all.
func (q *Queue) Own() *nats.Conn { return q.nc }

// Server is our own server.
func (q *Queue) Server() *server.Server { return q.server }

// Sweep looks once for commands that are stuck.
func (q *Queue) Sweep(ctx context.Context) { q.sweep(ctx) }

// Fail has the streams fail as after a write that the disk has refused.
func (q *Queue) Fail() { q.health.failed.Store(true) }

// Credentials is how many credentials of connections are known.
func (q *Queue) Credentials() int {
	q.auth.mu.RLock()
	defer q.auth.mu.RUnlock()
	return len(q.auth.known)
}

// Reply answers a request of the micro service.
func (q *Queue) Reply(r micro.Request, p *access.Principal, answer []byte) {
	q.reply(r, p, answer, nil)
}
