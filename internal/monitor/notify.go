package monitor

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"

	"headway/internal/outbound"
)

// Receiver is notified of alerts.
type Receiver struct {
	URL    string // of an Alertmanager, such as http://localhost:9093, or of a webhook
	Kind   string // Alertmanager or Webhook
	Client *http.Client
	Count  *outbound.Counter // of each call; nil: they are not counted
}

// The kinds of receivers.
const (
	Alertmanager = "alertmanager" // POST /api/v2/alerts
	Webhook      = "webhook"      // POST of Alertmanager's webhook format, version 4
)

// Bounds of notifications.
const (
	repeatAfter = time.Minute     // for an alert that still fires
	endsAfter   = 4 * time.Minute // an alert that is not repeated ends
	notifyTries = 5
	notifyQueue = 64 // batches that wait for one receiver
	minWait     = 500 * time.Millisecond
	maxWait     = 10 * time.Second
)

// notifier sends alerts to the receivers, each at its own pace.
type notifier struct {
	log                   *slog.Logger
	lanes                 []*lane
	sent, failed, dropped prometheus.Counter
}

type lane struct {
	Receiver
	name             string // the address without what may be secret in it
	poster           outbound.Poster
	source, external string // pages that alerts link to, and of the service
	queue            chan batch
	delivered        map[string]delivered // to a webhook, by the name of alerts
}

// batch is what receivers get at one time: the alerts that are due, and all of
// the same names that fire or ended a short while ago.
type batch struct {
	alerts []*alert
	groups []*alert
	at     time.Time
}

func newNotifier(o *Options) *notifier {
	calls := promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "headway_monitor_notifications_total", Help: "Notifications of alerts to receivers, by status: sent, failed after all attempts, dropped because too many waited.",
	}, []string{"status"})
	t := &notifier{log: o.Log, sent: calls.WithLabelValues("sent"), failed: calls.WithLabelValues("failed"), dropped: calls.WithLabelValues("dropped")}
	for _, r := range o.Receivers {
		name := r.Kind
		if u, err := url.Parse(r.URL); err == nil {
			name = u.Scheme + "://" + u.Host
		}
		t.lanes = append(t.lanes, &lane{
			Receiver: r, name: name, poster: outbound.Poster{Client: r.Client, Count: r.Count, Tries: notifyTries, First: minWait, Longest: maxWait},
			source: o.URL.JoinPath("console", "monitoring").String() + "#page=alerts", external: strings.TrimSuffix(o.URL.String(), "/"),
			queue: make(chan batch, notifyQueue), delivered: map[string]delivered{},
		})
	}
	return t
}

// notify queues alerts for every receiver. For one that is too slow they are
// dropped, and repeated after repeatAfter.
func (t *notifier) notify(b batch) {
	if len(b.alerts) == 0 {
		return
	}
	for _, l := range t.lanes {
		select {
		case l.queue <- b:
		default:
			t.dropped.Inc()
		}
	}
}

// AlertChange is an alert that began to fire, or that fires no more.
type AlertChange struct {
	Firing      bool
	At          time.Time
	Labels      map[string]string // alertname among them
	Annotations map[string]string
}

// alerted reports what changed, and not what is repeated.
func (m *Monitor) alerted(b batch) {
	if m.o.Alerted == nil {
		return
	}
	for _, a := range b.alerts {
		if a.changed {
			m.o.Alerted(AlertChange{Firing: a.state == firing, At: b.at, Labels: a.labels.Map(), Annotations: a.annotations.Map()})
		}
	}
}

func (t *notifier) run(ctx context.Context) {
	var wait sync.WaitGroup
	for _, l := range t.lanes {
		wait.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case b := <-l.queue:
					t.deliver(ctx, l, b)
				}
			}
		})
	}
	wait.Wait()
}

// deliver sends one batch. To a webhook each group of alerts is a message, and
// what did not arrive is in the next one.
func (t *notifier) deliver(ctx context.Context, l *lane, b batch) {
	if l.Kind != Webhook {
		t.post(ctx, l, "/api/v2/alerts", l.posted(b))
		return
	}
	groups := map[string][]*alert{}
	for _, a := range b.groups {
		name := a.labels.Get(labels.AlertName)
		groups[name] = append(groups[name], a)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		if m, after := l.message(name, groups[name], b.at); m != nil && t.post(ctx, l, "", m) {
			l.delivered[name] = after
		}
	}
}

// post sends one body, again if the receiver is away.
func (t *notifier) post(ctx context.Context, l *lane, path string, body any) bool {
	content, err := json.Marshal(body)
	if err == nil {
		err = l.poster.Retry(ctx, func(int) (bool, error) { return false, l.poster.Post(ctx, l.URL+path, nil, content) })
	}
	if err != nil {
		t.failed.Inc()
		t.log.Warn("a receiver was not notified of alerts", "receiver", l.name, "error", err)
		return false
	}
	t.sent.Inc()
	return true
}

// postedAlert is an alert as Alertmanager takes it.
type postedAlert struct {
	Labels       labels.Labels `json:"labels"`
	Annotations  labels.Labels `json:"annotations"`
	StartsAt     time.Time     `json:"startsAt"`
	EndsAt       time.Time     `json:"endsAt"`
	GeneratorURL string        `json:"generatorURL"`
}

func (l *lane) posted(b batch) []postedAlert {
	list := make([]postedAlert, len(b.alerts))
	for i, a := range b.alerts {
		list[i] = postedAlert{Labels: a.labels, Annotations: a.annotations, StartsAt: a.firedAt.UTC(), EndsAt: b.at.Add(endsAfter).UTC(), GeneratorURL: l.source}
		if a.state == inactive {
			list[i].EndsAt = a.resolvedAt.UTC()
		}
	}
	return list
}
