// Package webhook posts events to configured endpoints, signed as Standard
// Webhooks (standardwebhooks.com, version 1.0.0).
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/event"
	"headway/internal/outbound"
)

// Options are what a Sender is made of.
type Options struct {
	Endpoints      []Endpoint
	AllowLinkLocal bool
	Events         *event.Stream         // required
	Count          *outbound.Counter     // of each call; nil: they are not counted
	Metrics        prometheus.Registerer // required
	Log            *slog.Logger          // required
	Instance       string                // required; begins the ids of events
	Transport      http.RoundTripper     // nil: one that refuses addresses that must not be called
}

// Retry policy. A failed attempt is repeated after a random time up to 1 s, 2
// s, 4 s and so on, which spreads retries.
const (
	maxQueue   = 1000 // messages that wait for one endpoint
	maxTries   = 8    // of one message
	firstWait  = time.Second
	longestGap = 5 * time.Minute
	timeout    = 10 * time.Second // of one attempt
	breakAfter = 5                // failures in a row
	breakFor   = 30 * time.Second
	flushTime  = 5 * time.Second // for what waits, when the service stops
)

// Sender posts events to endpoints, in order for each.
type Sender struct {
	o       Options
	events  *event.Subscription // from New on, so that none is lost before Run
	poster  outbound.Poster
	targets []*target
}

// target is one endpoint and its queue.
type target struct {
	Endpoint
	queue     chan *message
	busy      atomic.Int64 // 1 while a message is on its way, or tried again
	gone      atomic.Bool  // it said that it wants no more
	failures  int          // in a row; only its goroutine uses it
	missed    uint64       // events that found no room; only Run uses it
	open      atomic.Int64 // 1 while the breaker is
	delivered prometheus.Counter
	givenUp   prometheus.Counter
	dropped   prometheus.Counter
}

type message struct {
	id   string
	kind string
	body []byte
}

// New makes a sender.
func New(o Options) (*Sender, error) {
	if o.Events == nil || o.Metrics == nil || o.Log == nil || o.Instance == "" {
		return nil, errors.New("webhook: Events, Metrics, Log and Instance are required")
	}
	if o.Transport == nil {
		o.Transport = outbound.NewTransport(outbound.Options{Timeout: timeout, AllowLinkLocal: o.AllowLinkLocal, Setting: setting})
	}
	s := &Sender{o: o, events: o.Events.Subscribe(), poster: outbound.Poster{
		Client: &http.Client{
			Transport: o.Transport, Timeout: timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Count: o.Count, Tries: maxTries, First: firstWait, Longest: longestGap,
	}}
	with := promauto.With(o.Metrics)
	messages := with.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_webhook_messages_total", Help: "Messages for webhooks by endpoint and result: delivered, given_up after all attempts or an answer that refuses it, dropped because too many waited.",
	}, []string{"endpoint", "result"})
	for _, e := range o.Endpoints {
		t := &target{
			Endpoint: e, queue: make(chan *message, maxQueue), delivered: messages.WithLabelValues(e.Name, "delivered"),
			givenUp: messages.WithLabelValues(e.Name, "given_up"), dropped: messages.WithLabelValues(e.Name, "dropped"),
		}
		s.targets = append(s.targets, t)
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_webhook_waiting", Help: "Messages that wait for an endpoint, with the one that is being sent or tried again.", ConstLabels: prometheus.Labels{"endpoint": e.Name},
		}, func() float64 { return float64(int64(len(t.queue)) + t.busy.Load()) })
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_webhook_breaker_open", Help: "Whether an endpoint is left alone for a while because it fails: 1 or 0.", ConstLabels: prometheus.Labels{"endpoint": e.Name},
		}, func() float64 { return float64(t.open.Load()) })
	}
	return s, nil
}

// Run posts events until ctx ends, then for a short time those still queued.
func (s *Sender) Run(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wait sync.WaitGroup
	for _, t := range s.targets {
		wait.Go(func() { s.serve(sending, t) })
	}
	for {
		e, lost, err := s.events.Next(ctx)
		if lost > 0 {
			s.enqueue(api.MessageLost, time.Now(), api.Lost{Count: lost, Reason: "slow"}, lost)
		}
		if err != nil {
			break
		}
		s.enqueue(e.Type, e.Time, apiv1.EventOf(s.o.Instance, &e), 1)
	}
	for _, t := range s.targets {
		close(t.queue)
	}
	late := time.AfterFunc(flushTime, stop)
	wait.Wait()
	late.Stop()
	stop()
	return nil
}

// enqueue queues a message about a number of events. What finds no room is
// reported as lost later.
func (s *Sender) enqueue(kind string, at time.Time, data any, events uint64) {
	var m *message
	for _, t := range s.targets {
		if t.gone.Load() || !t.wants(kind) {
			continue
		}
		if m == nil {
			if m = newMessage(kind, at, data); m == nil {
				return // our own types do not fail
			}
		}
		if t.missed > 0 && t.offer(newMessage(api.MessageLost, at, api.Lost{Count: t.missed, Reason: "slow"})) {
			t.missed = 0
		}
		if t.missed > 0 || !t.offer(m) {
			t.missed += events
			t.dropped.Inc()
		}
	}
}

func newMessage(kind string, at time.Time, data any) *message {
	body, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      any       `json:"data"`
	}{kind, at.UTC(), data})
	if err != nil {
		return nil
	}
	return &message{id: "msg_" + rand.Text(), kind: kind, body: body}
}

func (t *target) offer(m *message) bool {
	select {
	case t.queue <- m:
		return true
	default:
		return false
	}
}

func (t *target) wants(kind string) bool {
	return len(t.Types) == 0 || kind == api.MessageLost || slices.ContainsFunc(t.Types, func(p string) bool { return event.Matches(p, kind) })
}

func (s *Sender) serve(ctx context.Context, t *target) {
	for m := range t.queue {
		t.busy.Store(1)
		switch {
		case t.gone.Load():
			t.dropped.Inc()
		case s.deliver(ctx, t, m):
			t.delivered.Inc()
		default:
			t.givenUp.Inc()
		}
		t.busy.Store(0)
	}
}

// deliver retries until the message has arrived, or reports that it gave up.
func (s *Sender) deliver(ctx context.Context, t *target, m *message) bool {
	return s.poster.Retry(ctx, func(try int) (final bool, err error) {
		if t.failures >= breakAfter {
			t.open.Store(1)
			if !outbound.Pause(ctx, breakFor) {
				return true, ctx.Err()
			}
			t.open.Store(0)
		}
		if err = s.post(ctx, t, m); err == nil {
			t.failures = 0
			return true, nil
		}
		t.failures++
		status := 0
		if answer, is := errors.AsType[*outbound.StatusError](err); is {
			status = answer.Status
		}
		s.o.Log.Warn("webhook", "endpoint", t.Name, "type", m.kind, "id", m.id, "attempt", try, "status", status, "error", err)
		if status == http.StatusGone {
			t.gone.Store(true)
			s.o.Log.Warn("the endpoint wants no more; no events are sent until the service restarts", "endpoint", t.Name)
		}
		_, forbidden := errors.AsType[*outbound.ForbiddenError](err)
		return forbidden || status/100 == 3 || status/100 == 4 && !slices.Contains(transient, status), err
	}) == nil
}

// transient are the refusals after which a message is sent again.
var transient = []int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}

func (s *Sender) post(ctx context.Context, t *target, m *message) error {
	at := strconv.FormatInt(time.Now().Unix(), 10)
	return s.poster.Post(ctx, t.URL, http.Header{
		"Webhook-Id": {m.id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {sign(t.Secret, m.id, at, m.body)},
	}, m.body)
}

// sign is the HMAC-SHA256 of id, time and body with dots between them (Standard
// Webhooks, "Signature scheme").
func sign(secret []byte, id, at string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
