// Package webhook posts events to configured endpoints, signed as Standard
// Webhooks (standardwebhooks.com, version 1.0.0).
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

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
	maxAnswer  = 64 << 10        // of an answer that is read, for the connection's sake
)

// Sender posts events to endpoints, in order for each.
type Sender struct {
	o       Options
	events  *event.Subscription // from New on, so that none is lost before Run
	client  *http.Client
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
	open      atomic.Bool  // the breaker, for its gauge
	delivered prometheus.Counter
	given     prometheus.Counter // up
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
	s := &Sender{o: o, events: o.Events.Subscribe(), client: &http.Client{
		Transport:     o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if o.Transport == nil {
		s.client.Transport = outbound.NewTransport(outbound.Options{Timeout: timeout, AllowLinkLocal: o.AllowLinkLocal, Setting: setting})
	}
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_webhook_messages_total", Help: "Messages for webhooks by endpoint and result: delivered, given_up after all attempts or an answer that refuses it, dropped because too many waited.",
	}, []string{"endpoint", "result"})
	errs := []error{o.Metrics.Register(deliveries)}
	for _, e := range o.Endpoints {
		t := &target{
			Endpoint: e, queue: make(chan *message, maxQueue), delivered: deliveries.WithLabelValues(e.Name, "delivered"),
			given: deliveries.WithLabelValues(e.Name, "given_up"), dropped: deliveries.WithLabelValues(e.Name, "dropped"),
		}
		s.targets = append(s.targets, t)
		errs = append(errs, o.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_webhook_waiting", Help: "Messages that wait for an endpoint, with the one that is being sent or tried again.", ConstLabels: prometheus.Labels{"endpoint": e.Name},
		}, func() float64 { return float64(int64(len(t.queue)) + t.busy.Load()) })), o.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_webhook_breaker_open", Help: "Whether an endpoint is left alone for a while because it fails: 1 or 0.", ConstLabels: prometheus.Labels{"endpoint": e.Name},
		}, func() float64 {
			if t.open.Load() {
				return 1
			}
			return 0
		})))
	}
	return s, errors.Join(errs...)
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
			t.given.Inc()
		}
		t.busy.Store(0)
	}
}

// deliver retries until the message has arrived, or reports that it gave up.
func (s *Sender) deliver(ctx context.Context, t *target, m *message) bool {
	for try := 1; ; try++ {
		if t.failures >= breakAfter {
			t.open.Store(true)
			if !pause(ctx, breakFor) {
				return false
			}
			t.open.Store(false)
		}
		status, asked, err := s.post(ctx, t, m)
		if err == nil && status/100 == 2 {
			t.failures = 0
			s.o.Count.Add(true)
			return true
		}
		t.failures++
		s.o.Count.Add(false)
		_, forbidden := errors.AsType[*outbound.ForbiddenError](err)
		final := forbidden || status == http.StatusGone || status/100 == 3 || status/100 == 4 && status != http.StatusRequestTimeout &&
			status != http.StatusTooEarly && status != http.StatusTooManyRequests
		s.o.Log.Warn("webhook", "endpoint", t.Name, "type", m.kind, "id", m.id, "attempt", try, "status", status, "error", reason(err))
		switch {
		case status == http.StatusGone:
			t.gone.Store(true)
			s.o.Log.Warn("the endpoint wants no more; no events are sent until the service restarts", "endpoint", t.Name)
			return false
		case final || try == maxTries:
			return false
		}
		wait := time.Duration(mathrand.Int64N(int64(min(longestGap, firstWait<<(try-1))) + 1))
		if !pause(ctx, max(wait, min(asked, longestGap))) {
			return false
		}
	}
}

// post makes one attempt. asked is the Retry-After of the endpoint.
func (s *Sender) post(ctx context.Context, t *target, m *message) (status int, asked time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(m.body))
	if err != nil {
		return 0, 0, err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "headway")
	r.Header.Set("Webhook-Id", m.id)
	r.Header.Set("Webhook-Timestamp", at)
	r.Header.Set("Webhook-Signature", sign(t.Secret, m.id, at, m.body))
	answer, err := s.client.Do(r)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		asked = time.Duration(min(seconds, int(longestGap/time.Second))) * time.Second
	}
	return answer.StatusCode, asked, nil
}

// sign is the HMAC-SHA256 of id, time and body with dots between them (Standard
// Webhooks, "Signature scheme").
func sign(secret []byte, id, at string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// reason is an error without the URL, whose path or query may be a credential.
func reason(err error) string {
	for err != nil {
		inner := errors.Unwrap(err)
		if inner == nil || !strings.Contains(err.Error(), "://") {
			return err.Error()
		}
		err = inner
	}
	return ""
}

// pause waits, and reports whether ctx is still valid.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
