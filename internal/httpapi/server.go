// Package httpapi is the whole HTTP surface: heads, decisions, strategies, the
// policy, streams, probes and metrics. Every route stands in one table.
package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/live"
	"headway/internal/registry"
	"headway/internal/routing"
)

// Options are what a Server is made of.
type Options struct {
	Fleet    *registry.Registry   // required
	Router   *routing.Router      // required
	Verbs    *apiv1.Verbs         // required
	Live     *live.Hub            // required; ended by Drain
	Metrics  *prometheus.Registry // required; what /metrics shows
	Log      *slog.Logger         // required
	Guard    *access.Guard        // required; who is let in
	Keys     *access.Keys         // required
	Trail    string               // required; path of the audit trail
	Note     func(audit.Entry)    // required; records attempts that are refused
	TLS      *tls.Config          // nil: no TLS; NextProtos say which of h2 and http/1.1 are served
	Letters  DeadLetters          // of the message queue; nil: there is none
	State    State                // what the service keeps; nil: there is no file of it
	Queue    func() string        // tells how the message queue is; nil: there is none
	Monitor  http.Handler         // of what is below /prometheus/; nil: nothing
	Console  http.Handler         // of what is below /console/; nil: nothing
	Names    func(string) bool    // reports whether a name is ours, besides Limits.AllowedHosts; nil: none is
	External *url.URL             // that people reach the service by; nil: the one of the listener
	Limits   Limits
	Version  string
}

// Limits bound what one client may take. A zero value is the default.
type Limits struct {
	HeaderTimeout   time.Duration // to send the header of a request; 5 s
	ReadTimeout     time.Duration // to send a request whole; 15 s
	WriteTimeout    time.Duration // to take an answer; 30 s
	IdleTimeout     time.Duration // between requests; 120 s
	MaxHeaderBytes  int           // 16 KiB; less than 4 KiB counts as 4 KiB. Over HTTP/2 the limit is about 4 KiB lower
	MaxBodyBytes    int64         // 1 MiB
	MaxConnections  int           // at once; 10,000
	MaxPerAddress   int           // connections at once of one address, loopback ones aside; 0: no limit
	LameDuck        time.Duration // from the failing of readiness to the closing of the listener; 3 s
	ShutdownTimeout time.Duration // for work in flight after that; 30 s
	AllowedHosts    []string      // names besides loopback ones that a Host header may have
}

func (l *Limits) complete() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&l.HeaderTimeout, 5*time.Second)
	def(&l.ReadTimeout, 15*time.Second)
	def(&l.WriteTimeout, 30*time.Second)
	def(&l.IdleTimeout, 120*time.Second)
	def(&l.LameDuck, 3*time.Second)
	def(&l.ShutdownTimeout, 30*time.Second)
	if l.MaxHeaderBytes == 0 {
		l.MaxHeaderBytes = 16 << 10
	}
	if l.MaxBodyBytes == 0 {
		l.MaxBodyBytes = 1 << 20
	}
	if l.MaxConnections == 0 {
		l.MaxConnections = 10_000
	}
}

// Server answers HTTP. All methods are safe for concurrent use.
type Server struct {
	fleet    *registry.Registry
	router   *routing.Router
	verbs    *apiv1.Verbs
	live     *live.Hub
	log      *slog.Logger
	limits   Limits
	version  string
	gatherer prometheus.Gatherer
	metrics  *metrics
	mux      *http.ServeMux
	decide   *route
	nowhere  *route // what matches no route
	http     *http.Server
	tls      *tls.Config // nil: no TLS
	openAPI  []byte
	guard    *access.Guard
	keys     *access.Keys
	trail    string
	note     func(audit.Entry)
	letters  DeadLetters
	state    State
	external external
	queue    func() string
	monitor  http.Handler
	console  http.Handler
	names    func(string) bool
	draining atomic.Bool

	reading sync.Mutex // held by the one export or check of the state at a time

	lastHost atomic.Pointer[string] // the Host that was admitted last
}

// New makes a server. It fails if a route declares no permission.
func New(o Options) (*Server, error) {
	if o.Fleet == nil || o.Router == nil || o.Verbs == nil || o.Live == nil || o.Metrics == nil || o.Log == nil || o.Guard == nil || o.Keys == nil || o.Trail == "" || o.Note == nil {
		return nil, errors.New("httpapi: Fleet, Router, Verbs, Live, Metrics, Log, Guard, Keys, Trail and Note are required")
	}
	o.Limits.complete()
	s := &Server{
		fleet: o.Fleet, router: o.Router, verbs: o.Verbs, live: o.Live, log: o.Log, limits: o.Limits, version: o.Version, gatherer: o.Metrics,
		letters: o.Letters, state: o.State, external: newExternal(o.External), queue: o.Queue, monitor: o.Monitor, console: o.Console, tls: o.TLS, guard: o.Guard, keys: o.Keys, trail: o.Trail, note: o.Note, names: o.Names,
	}
	var err error
	if s.openAPI, err = openAPIJSON(s.external.url); err != nil {
		return nil, fmt.Errorf("httpapi: the description of the interface: %w", err)
	}
	if s.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("httpapi: metrics: %w", err)
	}
	if err := s.mount(s.routes()); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:                      s.external.handler(s),
		DisableGeneralOptionsHandler: true, // OPTIONS * is for ServeHTTP as well
		ReadHeaderTimeout:            s.limits.HeaderTimeout,
		ReadTimeout:                  s.limits.ReadTimeout,
		WriteTimeout:                 s.limits.WriteTimeout,
		IdleTimeout:                  s.limits.IdleTimeout,
		MaxHeaderBytes:               max(1, s.limits.MaxHeaderBytes-readAhead),
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// readAhead is what net/http reads of a header beyond the limit that it is given.
const readAhead = 4096

// Serve answers on the listener, by TLS if Options.TLS is set, until Drain; then
// it returns nil.
func (s *Server) Serve(l net.Listener) error {
	l = newBoundedListener(l, s.limits, s.metrics, s.log)
	if s.tls != nil {
		l = newShakingListener(l, s.tls, s.limits.HeaderTimeout, s.metrics, s.log)
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Drain stops the server without losing a request: readiness fails at once and
// every answer asks its client to come back on another connection; after the
// lame duck, when clients have moved on, the listener closes and work in
// flight finishes.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	timer := time.NewTimer(s.limits.LameDuck)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.ShutdownTimeout)
	defer cancel()
	if err := s.live.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests were still under way after %s: %w", s.limits.ShutdownTimeout, err), s.http.Close())
	}
	return nil
}
