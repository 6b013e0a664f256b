package natsmq

import (
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Own is the service's own connection, which may do all.
func (q *Queue) Own() *nats.Conn { return q.nc }

// Server is our own server.
func (q *Queue) Server() *server.Server { return q.server }
