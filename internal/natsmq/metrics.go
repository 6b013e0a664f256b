package natsmq

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// queues and statuses are the labels of message_queue_messages_total.
var (
	queues   = []string{queueRegister, queueStatus, queueRequest, queueOutcome, queueEvents, queueAudit, queueDead}
	statuses = []string{published, publishFailed, received, processed, failed, retried, duplicate, invalid, dropped, deadLettered}
)

// Messages counts the messages of the queue. All series exist from the start,
// even if the queue is disabled, so that a rate includes the first error.
type Messages struct {
	of map[[2]string]prometheus.Counter
}

// NewMessages makes the counters.
func NewMessages(metrics prometheus.Registerer) *Messages {
	vec := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "message_queue_messages_total", Help: "Messages of the message queue, by queue and status.",
	}, []string{"queue", "status"})
	m := &Messages{of: map[[2]string]prometheus.Counter{}}
	for _, q := range queues {
		for _, s := range statuses {
			m.of[[2]string{q, s}] = vec.WithLabelValues(q, s)
		}
	}
	return m
}

// add counts messages of a known queue.
func (m *Messages) add(queue, status string, n int) {
	if c := m.of[[2]string{queue, status}]; c != nil {
		c.Add(float64(n))
	}
}

type metrics struct {
	swept, regressions, discarded, healed prometheus.Counter

	forgottenCommands, forgottenCredentials prometheus.Counter

	last atomic.Uint64 // number of the newest command
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	with := promauto.With(registerer)
	forgotten := with.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_queue_forgotten_total", Help: "What the memory had no more room for, too early: ids of commands, whose repetition would be applied again, and credentials of ended connections, whose messages that still waited were refused.",
	}, []string{"cache"})
	return &metrics{
		swept: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_swept_total", Help: "Commands that were stuck, and made dead letters by the sweep.",
		}),
		discarded: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_discarded_total", Help: "Dead letters that were lost without a retry or a purge: too old, or gone to make room for newer ones.",
		}),
		healed: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_heals_total", Help: "Times that the streams of the embedded message queue were opened again after a write had failed.",
		}),
		regressions: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_queue_regressions_total", Help: "Times that the stream of commands had fewer messages than before: acknowledged ones were lost.",
		}),
		forgottenCommands: forgotten.WithLabelValues("commands"), forgottenCredentials: forgotten.WithLabelValues("credentials"),
	}
}

// observe registers what is read from a queue that is connected.
func (q *Queue) observe() {
	with := promauto.With(q.o.Metrics)
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_queue_up", Help: "Whether the message queue can be used: 1 or 0.",
	}, func() float64 {
		if ok, _ := q.Ready(); ok {
			return 1
		}
		return 0
	})
	with.NewCounterFunc(prometheus.CounterOpts{
		Name: "headway_queue_reconnects_total", Help: "Times that the connection to the message queue was made again.",
	}, func() float64 { return float64(q.nc.Stats().Reconnects) })
	for stream, filled := range map[string]func() float64{"commands": q.filled, "dead_letters": q.letters.filled} {
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_queue_fill_ratio", Help: "Share of a stream's room that is taken, 0 to 1. At 1 commands are refused, and the oldest dead letters give way.",
			ConstLabels: prometheus.Labels{"stream": stream},
		}, filled)
	}
}
