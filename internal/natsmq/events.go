package natsmq

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/event"
)

// cloudEvent is a CloudEvent 1.0 in JSON (structured mode).
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}

// publishEvents publishes events until ctx ends, head.expired on
// headway.v1.events.head.expired.
func (q *Queue) publishEvents(ctx context.Context) {
	for {
		e, lost, err := q.events.Next(ctx)
		if err != nil {
			return
		}
		source := "/headway/" + q.o.Instance
		if lost > 0 {
			q.publishEvent(api.MessageLost, &cloudEvent{
				SpecVersion: "1.0", ID: apiv1.EventID(q.o.Instance, e.ID) + "-lost", Source: source, Type: "headway." + api.MessageLost,
				Time: time.Now().UTC(), DataContentType: "application/json", Data: api.Lost{Count: lost, Reason: "slow"},
			})
		}
		q.publishEvent(e.Type, q.cloudEventOf(source, &e))
	}
}

func (q *Queue) cloudEventOf(source string, e *event.Event) *cloudEvent {
	data := apiv1.EventOf(q.o.Instance, e)
	return &cloudEvent{
		SpecVersion: "1.0", ID: data.ID, Source: source, Type: "headway." + e.Type, Subject: e.Head,
		Time: data.Time, DataContentType: "application/json", Data: data,
	}
}

func (q *Queue) publishEvent(kind string, e *cloudEvent) {
	m := nats.NewMsg(prefix + queueEvents + "." + kind)
	m.Header.Set("Content-Type", "application/cloudevents+json")
	var err error
	if m.Data, err = json.Marshal(e); err == nil {
		err = q.nc.PublishMsg(m)
	}
	if err != nil {
		q.o.Messages.add(queueEvents, publishFailed, 1)
		return
	}
	q.o.Messages.add(queueEvents, published, 1)
}

type gauges struct {
	swept       prometheus.Counter
	regressions prometheus.Counter
	discarded   prometheus.Counter
	healed      prometheus.Counter
	last        atomic.Uint64 // number of the newest command
}

func (q *Queue) newGauges() (*gauges, error) {
	g := &gauges{
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_swept_total", Help: "Commands that were stuck, and made dead letters by the sweep.",
		}),
		discarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_discarded_total", Help: "Dead letters that were lost without a retry or a purge: too old, or gone to make room for newer ones.",
		}),
		healed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_heals_total", Help: "Times that the streams of the embedded message queue were opened again after a write had failed.",
		}),
		regressions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_regressions_total", Help: "Times that the stream of commands had fewer messages than before: acknowledged ones were lost.",
		}),
	}
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_queue_up", Help: "Whether the message queue can be used: 1 or 0.",
	}, func() float64 {
		if ok, _ := q.Ready(); ok {
			return 1
		}
		return 0
	})
	reconnects := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "headway_queue_reconnects_total", Help: "Times that the connection to the message queue was made again.",
	}, func() float64 { return float64(q.nc.Stats().Reconnects) })
	all := []prometheus.Collector{g.swept, g.regressions, g.discarded, g.healed, up, reconnects}
	for stream, filled := range map[string]func() float64{"commands": q.filled, "dead_letters": q.letters.filled} {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_queue_fill_ratio", Help: "Share of a stream's room that is taken, 0 to 1. At 1 commands are refused, and the oldest dead letters give way.",
			ConstLabels: prometheus.Labels{"stream": stream},
		}, filled))
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, q.o.Metrics.Register(c))
	}
	return g, errors.Join(errs...)
}
