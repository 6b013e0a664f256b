package redisaudit

import (
	"net"

	"headway/internal/strict"
)

// Channel is the channel of the tests, the one of the default.
const Channel = "audit:routing:logs"

// The bounds, for tests of them.
const (
	MaxClients      = maxClients
	MaxOfAddress    = maxOfAddress
	MaxChannels     = maxChannels
	MaxWaiting      = maxWaiting
	MaxPerMinute    = maxPerMinute
	WriteDeadline   = writeDeadline
	CommandDeadline = commandDeadline
	IdleDeadline    = idleDeadline
	SilentFor       = silentFor
)

// NewEmbedded is an Embedded without a listener, for connections in memory.
func NewEmbedded(o EmbeddedOptions) *Embedded { return newEmbedded(o) }

// Admit serves a connection as the listener does.
func (e *Embedded) Admit(conn net.Conn) { e.admit(conn) }

// EndAll ends all connections and waits for them.
func (e *Embedded) EndAll() { e.endAll() }

// AddVerb adds a command.
func (e *Embedded) AddVerb(name string, do func()) {
	e.verbs[name] = verb{-1, true, func(*client, []string) any { do(); return nil }}
}

// Matches is the matching of patterns.
func Matches(pattern, name string) bool { return strict.Match(pattern, name, element) }

// AcceptFrom serves the connections of a listener until it is closed.
func (e *Embedded) AcceptFrom(l net.Listener) {
	e.listener = l
	e.accept()
}
