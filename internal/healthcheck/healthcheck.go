// Package healthcheck asks heads at which requests failed whether they are well,
// until they are: by the call that their engine has for it, never a completion.
package healthcheck

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/outbound"
)

// Options are what a Checker is made of.
type Options struct {
	// Checked takes what the checks of the head at an endpoint found, once they
	// agree: what is wrong, or "". It reports false where the head is gone.
	Checked        func(id, endpoint, detail string) bool // required
	Metrics        prometheus.Registerer                  // required
	Log            *slog.Logger                           // required
	Interval       time.Duration                          // between checks of a head; 1 s
	Timeout        time.Duration                          // of a check; 5 s
	MaxHeads       int                                    // that are checked at a time; 1,000
	Transport      http.RoundTripper                      // nil: one that checks addresses and uses no proxy
	AllowLinkLocal bool                                   // of heads
	RootCAs        *x509.CertPool                         // of heads, in that transport; nil: those of the system
	Count          *outbound.Counter                      // of checks; nil: they are not counted
}

// How many checks in a row have to agree. A busy engine may answer one late.
const (
	unwellAfter = 3
	wellAfter   = 2
)

// Checker checks heads. Failed is safe for concurrent use; Run is called once.
type Checker struct {
	o       Options
	client  *http.Client
	begin   chan *fleet.Head
	results map[string]prometheus.Counter
	refused prometheus.Counter

	mu      sync.Mutex
	checked map[string]bool // ids
}

// Results of a check, the values of the label of headway_health_checks_total.
const (
	resultWell   = "well"
	resultUnwell = "unwell"
	resultNone   = "none" // the head has no such call, or asks for a key
)

// New makes a checker that Run lets work.
func New(o Options) (*Checker, error) {
	if o.Checked == nil || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("healthcheck: Checked, Metrics and Log are required")
	}
	o.Interval = cmp.Or(o.Interval, time.Second)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.MaxHeads = cmp.Or(o.MaxHeads, 1000)
	if o.Transport == nil {
		t := outbound.NewTransport(outbound.Options{Timeout: o.Timeout, AllowLinkLocal: o.AllowLinkLocal, Setting: "heads.allow_link_local"})
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
		o.Transport = t
	}
	c := &Checker{
		o: o, begin: make(chan *fleet.Head, o.MaxHeads), checked: map[string]bool{}, results: map[string]prometheus.Counter{},
		client: &http.Client{
			Transport:     o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	auto := promauto.With(o.Metrics)
	results := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_health_checks_total",
		Help: "Checks of the health of heads at which proxied requests failed, by result; none: the head has no such call.",
	}, []string{"result"})
	for _, r := range []string{resultWell, resultUnwell, resultNone} {
		c.results[r] = results.WithLabelValues(r)
	}
	c.refused = auto.NewCounter(prometheus.CounterOpts{
		Name: "headway_health_checks_refused_total", Help: "Heads at which requests failed, and that are not checked since as many are as may be.",
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "headway_health_checked_heads", Help: "Heads whose health is checked now, since requests there failed."},
		func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(len(c.checked))
		})
	return c, nil
}

// Failed has a head checked at which a request failed. It does not block.
func (c *Checker) Failed(h *fleet.Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.checked[h.ID]:
	case len(c.checked) >= c.o.MaxHeads:
		c.refused.Inc()
	default:
		c.checked[h.ID] = true
		c.begin <- h // it has room for all
	}
}

// Run checks heads until ctx ends.
func (c *Checker) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer c.client.CloseIdleConnections()
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-c.begin:
			running.Go(func() {
				c.check(ctx, h)
				c.mu.Lock()
				delete(c.checked, h.ID)
				c.mu.Unlock()
			})
		}
	}
}

// check checks one head until it is well or gone, or turns out to have no check.
func (c *Checker) check(ctx context.Context, h *fleet.Head) {
	source := engines.Source{Engine: engines.Of(h.Engine), URL: h.Endpoint, HTTP: c.client}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for well, unwell := 0, 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		result, detail := c.ask(ctx, &source)
		if ctx.Err() != nil {
			return
		}
		c.results[result].Inc()
		switch result {
		case resultWell:
			well, unwell = well+1, 0
		case resultUnwell:
			well, unwell = 0, unwell+1
		case resultNone:
			well = wellAfter
		}
		switch {
		case well >= wellAfter:
			c.o.Checked(h.ID, h.Endpoint, "")
			return
		case unwell >= unwellAfter && !c.o.Checked(h.ID, h.Endpoint, detail):
			return
		case unwell == unwellAfter:
			c.o.Log.Warn("a head fails the checks of its health", "head", h.ID, "detail", detail)
		}
		wait.Reset(time.Duration((0.75 + rand.Float64()/2) * float64(c.o.Interval)))
	}
}

// ask checks a head once.
func (c *Checker) ask(ctx context.Context, source *engines.Source) (result, detail string) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	err := source.Healthy(ctx)
	c.o.Count.Add(err == nil)
	status, answered := errors.AsType[*engines.StatusError](err)
	switch {
	case err == nil:
		return resultWell, ""
	case !answered && ctx.Err() != nil:
		return resultUnwell, fmt.Sprintf("its health check had no answer within %s", c.o.Timeout)
	case !answered:
		return resultUnwell, "its health check found no connection"
	case status.Status < 500 || status.Status == http.StatusNotImplemented:
		return resultNone, ""
	}
	return resultUnwell, fmt.Sprintf("its health check was answered with %d", status.Status)
}
