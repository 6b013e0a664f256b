package redisaudit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"headway/internal/address"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// EmbeddedOptions are what an Embedded server is made of.
type EmbeddedOptions struct {
	Listen  string                // required: a loopback address
	Channel string                // required
	Log     *slog.Logger          // required
	Metrics prometheus.Registerer // required
}

// Bounds of the embedded server.
const (
	maxClients      = 100
	maxOfAddress    = 80       // clients of one address
	maxChannels     = 16       // that one client subscribes
	maxWaiting      = 4096     // lines that wait for one client; a client that falls further behind is dropped
	maxPerMinute    = 64 << 10 // bytes that one client sends: it has nothing to say but PING
	writeDeadline   = 5 * time.Second
	commandDeadline = 10 * time.Second // from the first byte of a command to its last
	idleDeadline    = 5 * time.Minute  // of clients that subscribe nothing
	silentFor       = time.Minute      // after which a subscriber gives way to a new client, where there is no room
)

// reasons are why the embedded server refuses or ends a client.
var reasons = []string{reasonFull, reasonDisplaced, reasonSilent, reasonProtocol, reasonHTTP, reasonTalkative, reasonSlow, reasonIdle, reasonUnfinished, reasonPanic}

const (
	reasonFull       = "full"      // maxClients or maxOfAddress subscribe already, and have all sent something within silentFor
	reasonDisplaced  = "displaced" // it subscribed nothing, and a new client needed the place
	reasonSilent     = "silent"    // it subscribed and sent nothing for silentFor, and a new client needed the place
	reasonProtocol   = "protocol"
	reasonHTTP       = "http"
	reasonTalkative  = "talkative"  // more than maxPerMinute
	reasonSlow       = "slow"       // more than maxWaiting, or writeDeadline
	reasonIdle       = "idle"       // idleDeadline
	reasonUnfinished = "unfinished" // commandDeadline
	reasonPanic      = "panic"
)

// Embedded is a minimal Redis server: clients can subscribe, only this process
// publishes. It implements trail.Sink.
type Embedded struct {
	o        EmbeddedOptions
	verbs    map[string]verb
	listener net.Listener
	began    time.Time
	running  sync.WaitGroup
	count    *prometheus.CounterVec // of clients that were ended, by reason

	mu      sync.Mutex
	closed  bool
	clients map[*client]bool
	lastID  int
}

// Listen starts to serve. The error wraps syscall.EADDRINUSE if the address is
// in use.
func Listen(ctx context.Context, o EmbeddedOptions) (*Embedded, error) {
	if o.Listen == "" || o.Channel == "" || o.Log == nil || o.Metrics == nil {
		return nil, errors.New("redisaudit: Listen, Channel, Log and Metrics are required")
	}
	if err := CheckListen(o.Listen); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("serve the embedded Redis (redis.listen): %w", err)
	}
	e := newEmbedded(o)
	e.listener = listener
	e.running.Go(e.accept)
	return e, nil
}

// CheckListen refuses an address that other machines can reach.
func CheckListen(listen string) error {
	if !address.Loopback(listen) {
		return fmt.Errorf("redis.listen %q: want a loopback address, such as 127.0.0.1:6380: the embedded Redis asks for no password; for others use redis.mode: external", listen)
	}
	return nil
}

func newEmbedded(o EmbeddedOptions) *Embedded {
	e := &Embedded{o: o, verbs: verbs(), began: time.Now(), clients: map[*client]bool{}}
	e.count = promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "headway_redis_clients_ended_total",
		Help: "Clients that the embedded Redis refused or ended: full (subscribers have all places), displaced (it subscribed nothing, and its place was needed), silent (it subscribed, sent nothing for a minute, and its place was needed), protocol, http, talkative, slow, idle (it subscribed nothing for five minutes), unfinished (the rest of a command did not come), panic.",
	}, []string{"reason"})
	for _, reason := range reasons {
		e.count.WithLabelValues(reason)
	}
	return e
}

// Addr is the address that is served.
func (e *Embedded) Addr() net.Addr { return e.listener.Addr() }

// Close ends the connections and waits for them.
func (e *Embedded) Close() error {
	err := e.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // a second call
	}
	e.endAll()
	return err
}

func (e *Embedded) endAll() {
	e.mu.Lock()
	e.closed = true
	for c := range e.clients {
		c.end("", nil)
	}
	e.mu.Unlock()
	e.running.Wait()
}

// accept serves clients until the listener is closed. It waits while
// descriptors are exhausted.
func (e *Embedded) accept() {
	const longest = time.Second
	pause := 5 * time.Millisecond
	for {
		conn, err := e.listener.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			e.admit(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			e.o.Log.Warn("the embedded Redis accepts no connection", "error", err, "again_in", pause)
			<-time.After(pause)
			pause = min(2*pause, longest)
		}
	}
}

func (e *Embedded) admit(conn net.Conn) {
	if e.enter(newClient(e, conn)) {
		return
	}
	e.count.WithLabelValues(reasonFull).Inc()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte("-ERR max number of clients reached\r\n"))
	_ = conn.Close()
}

func (e *Embedded) enter(c *client) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	of := map[netip.Addr]int{}
	for other := range e.clients {
		of[other.from]++
	}
	if same := of[c.from] >= maxOfAddress; same || len(e.clients) >= maxClients {
		gives, reason := e.givesWay(same, c.from, of)
		if gives == nil {
			return false
		}
		delete(e.clients, gives)
		gives.end(reason, nil)
	}
	e.lastID++
	c.id = e.lastID
	e.clients[c] = true
	e.running.Go(c.serve)
	if e.closed {
		c.end("", nil)
	}
	return true
}

// givesWay returns the client that a new one displaces, of all or of one
// address; the caller holds mu. First goes the longest-silent client without a
// subscription. If all subscribe, it is the longest-silent one of the address
// with most clients, so that one process cannot keep all places. A subscriber
// that sends PING keeps its place.
func (e *Embedded) givesWay(sameAddress bool, from netip.Addr, of map[netip.Addr]int) (*client, string) {
	most := 0
	for _, n := range of {
		most = max(most, n)
	}
	var idle, silent *client
	earlier := func(a, b *client) bool { return b == nil || a.spoke.Load() < b.spoke.Load() }
	for c := range e.clients {
		receives := len(*c.receives.Load()) > 0
		switch {
		case sameAddress && c.from != from:
		case !receives && earlier(c, idle):
			idle = c
		case receives && of[c.from] == most && earlier(c, silent):
			silent = c
		}
	}
	switch {
	case idle != nil:
		return idle, reasonDisplaced
	case silent != nil && time.Since(e.began)-time.Duration(silent.spoke.Load()) >= silentFor:
		return silent, reasonSilent
	}
	return nil, ""
}

// Publish implements trail.Sink. It never waits for a subscriber.
func (e *Embedded) Publish(_ context.Context, lines [][]byte) (arrived, receivers int, err error) {
	texts := make([]string, len(lines))
	for i, line := range lines {
		texts[i] = string(line)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.clients {
		if len(*c.receives.Load()) > 0 && c.offer(texts) {
			receivers++
		}
	}
	return len(lines), receivers, nil
}

// ended counts why a client was ended. Protocol errors are logged for debugging
// only, since any client can repeat them.
func (e *Embedded) ended(c *client, reason string, cause any) {
	e.count.WithLabelValues(reason).Inc()
	switch reason {
	case reasonPanic:
		e.o.Log.Error("a connection of the embedded Redis failed and was ended", "address", c.conn.RemoteAddr(), "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	case reasonSlow:
		e.o.Log.Warn("a subscriber of the audit trail is too slow and was dropped", "address", c.conn.RemoteAddr())
	case reasonSilent:
		e.o.Log.Warn("a subscriber of the audit trail that sent nothing for a while was ended, since a new client needed its place", "address", c.conn.RemoteAddr())
	default:
		e.o.Log.Debug("a client of the embedded Redis was ended", "address", c.conn.RemoteAddr(), "reason", reason, "error", cause)
	}
}
