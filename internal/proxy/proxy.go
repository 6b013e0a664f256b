// Package proxy is the data plane: it takes a request of the OpenAI or Anthropic
// API, asks the router for a head, passes the request on, and brings the answer
// back as it comes. What becomes of the request goes back to the router, so that
// the decision API and the proxy share one model of load.
package proxy

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/audit"
	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/outbound"
	"headway/internal/routing"
	"headway/internal/tracing"
	"headway/internal/upstream"
)

// Options are what a Proxy is made of.
type Options struct {
	Router    *routing.Router       // required
	Fleet     routing.Fleet         // required
	Heads     *upstream.Heads       // required
	Metrics   prometheus.Registerer // required
	Calls     *outbound.HeadCounter // nil: calls of heads are not counted
	Tracer    *tracing.Tracer       // nil: requests are not traced
	Log       *slog.Logger          // required
	Limits    Limits                // zero values: defaults
	Now       func() time.Time      // nil: time.Now
	ID        string                // of this run of the service, a token; "": random
	Failed    func(*fleet.Head)     // is called with each head at fault, and must not block; nil: none is
	Admission *admission.Admission  // nil: callers have no limits, and no request waits for a place
	Guard     Guard                 // nil: no caller loses its rights while its request is under way
	Audit     audit.Recorder        // of what is done at heads by PassThrough that may change them; nil: it is not recorded

	// ClientPaths are paths of heads that callers without the permission operate may
	// send requests of PassThrough to, besides those that are known of engines.
	ClientPaths []ClientPath

	// DropHeaders are names of fields of requests that no head gets, * for any
	// characters, and PassHeaders of those that heads get though they are of a kind
	// that is dropped.
	DropHeaders, PassHeaders []string

	// AskUsage says which heads are asked to count the tokens of a stream where the
	// caller did not ask: AskAuto, AskAlways or AskNever; "": AskAuto.
	AskUsage string

	// HeadKey is the API key that the head at an endpoint asks of this service, "" if
	// none; nil: no head asks for one. It does not block.
	HeadKey func(endpoint string) string
}

// The values of Options.AskUsage. AskAuto asks heads of an engine that is known to
// answer; others may refuse a field that they do not know.
const (
	AskAuto   = "auto"
	AskAlways = "always"
	AskNever  = "never"
)

// Limits bound what a request may take.
type Limits struct {
	MaxBody      int64         // bytes of one request; 64 MiB
	MaxBodies    int64         // bytes of all requests under way; 1 GiB, at least MaxBody
	BodyWait     time.Duration // for room among all bodies; 10 s
	BodyTime     time.Duration // without a byte of a body; 30 s
	Comment      time.Duration // of a head's silence until a stream gets a comment line; 14 s
	ReaderStalls time.Duration // that a caller takes nothing of its answer; 1 min
	MaxAttempts  int           // heads that one request is sent to; 3
	RetryShare   float64       // of the requests that may be sent again; 0.2
	RetryTime    time.Duration // after the first attempt in which another may begin; 30 min
}

// Caller is who sent a request that was admitted, and by which route it came.
type Caller struct {
	Principal *access.Principal
	RequestID string
	Endpoint  *openai.Endpoint
	Left      func() bool // reports whether it has closed its connection, while its body is unread; nil: it cannot be asked
}

// Errors of Serve that are not answered: no answer can be sent any more.
var (
	// ErrUnread says that the answer was sent, and that the head gave it before the
	// caller had sent all of its body.
	ErrUnread = errors.New("the answer came before the end of the body")
	// ErrClientGone says that the caller left before its answer began.
	ErrClientGone = errors.New("the client closed the connection before the answer")
	// ErrAborted says that an answer that has begun cannot be completed: its
	// connection is to be cut, so that it does not look complete.
	ErrAborted = errors.New("the answer was cut short")
)

// Proxy is the data plane. All methods are safe for concurrent use.
type Proxy struct {
	o         Options
	id        string // in CDN-Loop
	metrics   *metrics
	toHeads   *rule
	bodies    *bodies
	budget    *budget
	hedging   *hedging
	estimates estimates
	samples   atomic.Uint64 // answers
	listed    listed
	stopped   stopped
	underway  underway
}

// New makes a proxy.
func New(o Options) (*Proxy, error) {
	if o.Router == nil || o.Fleet == nil || o.Heads == nil || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("proxy: Router, Fleet, Heads, Metrics and Log are required")
	}
	o.Limits.complete()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.ID == "" {
		o.ID = strings.ToLower(rand.Text()[:10])
	}
	if o.Admission == nil {
		var err error
		if o.Admission, err = admission.New(admission.Options{Metrics: o.Metrics, Now: o.Now}); err != nil {
			return nil, err
		}
	}
	if err := o.Metrics.Register(newWaiting(o.Fleet, o.Admission)); err != nil {
		return nil, err
	}
	p := &Proxy{
		id: "headway-" + o.ID,
		estimates: estimates{fleet: o.Fleet, models: map[string]*ratios{}, refused: promauto.With(o.Metrics).NewCounter(prometheus.CounterOpts{
			Name: "headway_proxy_estimates_refused_total", Help: "Reports of tokens that calibrated no estimate, since too many models have one.",
		})},
		o: o, toHeads: toHeads(o.DropHeaders, o.PassHeaders), metrics: newMetrics(o.Metrics, o.Calls), bodies: newBodies(&o.Limits, o.Metrics), budget: newBudget(o.Limits.RetryShare), hedging: newHedging(o.Metrics, o.Fleet),
	}
	promauto.With(o.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_proxy_bodies_awaited", Help: "Requests whose body has not come whole.",
	}, p.underway.awaited)
	return p, nil
}

// Serve answers one request, and says how much of the time until then was not its
// own but that of heads and of the caller. A *RefusedError and an *openai.Error are
// for the caller of Serve to answer with; nothing was sent then. The other errors are
// ErrClientGone and ErrAborted, and those of Options.Audit.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, c Caller) (elsewhere time.Duration, err error) {
	x, _ := exchanges.Get().(*exchange)
	defer x.close()
	x.proxy, x.w, x.r, x.caller, x.timing.begin = p, w, r, c, p.o.Now()
	x.rc, x.trace, x.secrets = *http.NewResponseController(w), tracing.Read(r.Header), secretsOf(r.Header)
	x.spans = p.o.Tracer.Start(&x.trace, r.Method, routeOf(c.Endpoint), x.timing.begin)
	p.stand(x)
	x.reader.open(x)
	if err = p.refuseLoop(r.Header); err == nil {
		err = x.enter()
	}
	if err == nil {
		err = x.read()
	}
	x.received = p.o.Now().Sub(x.timing.begin)
	if err == nil {
		err = x.run()
	}
	if err != nil {
		p.stopped.count(x, err)
	}
	if err != nil && !x.begun {
		x.describe(w.Header(), new(said)) // it is copied later
	}
	end := p.o.Now()
	x.answers(end)
	x.ended(err, end)
	if refused, is := err.(*openai.Error); is && x.attempts == 0 { //nolint:errorlint // it comes as it is
		err = &RefusedError{refused}
	}
	if err == nil && x.unread() {
		err = ErrUnread
	}
	p.metrics.overhead.Observe(x.overhead.Seconds())
	p.metrics.duration.Observe(end.Sub(x.timing.begin).Seconds())
	return x.elsewhere(end), err
}
