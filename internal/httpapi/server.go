// Package httpapi is the whole HTTP surface. Every route stands in one table. What
// a route does is in apiv1 where other carriers offer it too.
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
	"headway/internal/decisionlog"
	"headway/internal/effectiveness"
	"headway/internal/fleet"
	"headway/internal/live"
	"headway/internal/proxy"
	"headway/internal/registry"
	"headway/internal/routing"
)

// Options are what a Server is made of.
type Options struct {
	Fleet     *registry.Registry   // required
	Router    *routing.Router      // required
	Verbs     *apiv1.Verbs         // required
	Effect    *effectiveness.Watch // required; of Router
	Speeds    Speeds               // required
	Live      *live.Hub            // required; ended by Drain
	Metrics   *prometheus.Registry // required; what /metrics shows
	Log       *slog.Logger         // required
	Guard     *access.Guard        // required
	Keys      *access.Keys         // required
	AuditFile string               // required; path of the audit trail
	Audit     audit.Recorder       // required
	TLS       *tls.Config          // nil: no TLS; NextProtos say which of h2 and http/1.1 are served
	Letters   DeadLetters          // of the message queue; nil: there is none
	State     State                // what the service keeps; nil: there is no file of it
	Queue     func() string        // the state of the message queue; nil: there is none
	// DecisionLog is nil where there is none.
	DecisionLog *decisionlog.Log
	Monitor     http.Handler // of what is below /prometheus/; nil: nothing
	Console     http.Handler // of what is below /console/; nil: nothing
	Proxy       *proxy.Proxy // of what is below /v1/; nil: nothing
	// DataPlaneApart says that the data plane has a listener of its own, so that
	// Serve does not have its routes.
	DataPlaneApart bool
	Names          func(string) bool // reports whether a name is ours, besides Limits.AllowedHosts; nil: none is
	External       *url.URL          // that people reach the service by; nil: the one of the listener
	Limits         Limits
	Version        string
}

// Speeds knows how fast heads are. It may be asked by many at once.
type Speeds interface {
	// Speed is how fast the head computes prompts of the model type, 1 as fast as the
	// others in the mean, and whether that is known.
	Speed(h *fleet.Head, modelType string) (speed float64, known bool)
}

// Limits bound what clients may take. All but MaxPerAddress and AllowedHosts are
// required.
type Limits struct {
	HeaderTimeout   time.Duration // to send the header of a request
	ReadTimeout     time.Duration // to send a request whole
	WriteTimeout    time.Duration // to take an answer
	IdleTimeout     time.Duration // between requests
	MaxHeaderBytes  int64         // less than 4 KiB counts as 4 KiB. Over HTTP/2 the limit is about 4 KiB lower
	MaxBodyBytes    int64
	MaxConnections  int           // at once
	MaxPerAddress   int           // connections at once of one address, loopback ones aside; 0: no limit
	LameDuck        time.Duration // from the failing of readiness to the closing of the listener
	ShutdownTimeout time.Duration // for work in flight after that
	AllowedHosts    []string      // names besides loopback ones that a Host header may have
}

func (l *Limits) complete() bool {
	return min(l.HeaderTimeout, l.ReadTimeout, l.WriteTimeout, l.IdleTimeout, l.LameDuck, l.ShutdownTimeout) > 0 &&
		min(l.MaxHeaderBytes, l.MaxBodyBytes, int64(l.MaxConnections)) > 0
}

// Server answers HTTP. All methods are safe for concurrent use.
type Server struct {
	o           Options
	external    external
	metrics     *metrics
	mux         *http.ServeMux
	direct      map[string]*route // by path, what is found without the mux: that takes 0.6 µs, half as long as a decision
	nowhere     *route            // what matches no route
	unknown     *route            // and does not in the data plane
	passThrough *route            // of what is below /heads/; nil: there is no data plane
	http        *http.Server
	data        *http.Server // of the data plane's own listener
	openAPI     []byte
	draining    atomic.Bool
	base        context.Context // of all requests
	cut         context.CancelCauseFunc
	noLameDuck  chan struct{}          // closed when a lame duck is not waited for
	reading     sync.Mutex             // held by the one export or check of the state at a time
	rehearsals  time.Duration          // that one may take
	readingLog  sync.Mutex             // held by the one reading or rehearsal of the decision log at a time
	lastHost    atomic.Pointer[string] // the Host that was admitted last
}

// New makes a server. It fails if a route declares no permission.
func New(o Options) (*Server, error) {
	if o.Fleet == nil || o.Router == nil || o.Verbs == nil || o.Effect == nil || o.Speeds == nil || o.Live == nil || o.Metrics == nil || o.Log == nil || o.Guard == nil || o.Keys == nil || o.AuditFile == "" || o.Audit == nil {
		return nil, errors.New("httpapi: Fleet, Router, Verbs, Effect, Speeds, Live, Metrics, Log, Guard, Keys, AuditFile and Audit are required")
	}
	if !o.Limits.complete() {
		return nil, errors.New("httpapi: each of Limits but MaxPerAddress and AllowedHosts is required")
	}
	s := &Server{o: o, external: newExternal(o.External), metrics: newMetrics(o.Metrics), noLameDuck: make(chan struct{}), rehearsals: rehearsalTime}
	s.base, s.cut = context.WithCancelCause(context.Background())
	var err error
	if s.openAPI, err = openAPIJSON(s.external.url); err != nil {
		return nil, fmt.Errorf("httpapi: the description of the interface: %w", err)
	}
	if err := s.mount(s.routes()); err != nil {
		return nil, err
	}
	s.http, s.data = s.newHTTP(s), s.newHTTP(http.HandlerFunc(s.serveDataPlane))
	return s, nil
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:                      s.external.handler(h),
		BaseContext:                  func(net.Listener) context.Context { return s.base },
		ConnContext:                  withConn,
		DisableGeneralOptionsHandler: true, // OPTIONS * is for ServeHTTP as well
		ReadHeaderTimeout:            s.o.Limits.HeaderTimeout,
		ReadTimeout:                  s.o.Limits.ReadTimeout,
		WriteTimeout:                 s.o.Limits.WriteTimeout,
		IdleTimeout:                  s.o.Limits.IdleTimeout,
		MaxHeaderBytes:               int(max(1, s.o.Limits.MaxHeaderBytes-readAhead)),
		HTTP2:                        &http.HTTP2Config{MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connectionWindow},
		ErrorLog:                     slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
}

// What clients may send by HTTP/2 of bodies that are not read yet, of one request and of
// all of a connection. By default both are 1 MiB: one body that waits for room would hold
// up all other bodies of its connection.
const (
	streamWindow     = 256 << 10
	connectionWindow = 2 << 20
)

// readAhead is what net/http reads of a header beyond the limit that it is given.
const readAhead = 4096

// Serve answers on the listener, by TLS if Options.TLS is set, until Drain; then
// it returns nil.
func (s *Server) Serve(l net.Listener) error { return s.serveOn(s.http, l) }

// ServeDataPlane is Serve for the routes of the data plane alone.
func (s *Server) ServeDataPlane(l net.Listener) error { return s.serveOn(s.data, l) }

func (s *Server) serveOn(h *http.Server, l net.Listener) error {
	clients := h == s.data
	l = newBoundedListener(l, s.o.Limits, clients, s.metrics, s.o.Log)
	if s.o.TLS != nil {
		l = newShakingListener(l, s.o.TLS, s.o.Limits.HeaderTimeout, clients, s.metrics, s.o.Log)
	}
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
