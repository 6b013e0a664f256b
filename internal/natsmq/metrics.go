package natsmq

import "github.com/prometheus/client_golang/prometheus"

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
func NewMessages(metrics prometheus.Registerer) (*Messages, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "message_queue_messages_total",
		Help: "Messages of the message queue, by queue and status.",
	}, []string{"queue", "status"})
	m := &Messages{of: map[[2]string]prometheus.Counter{}}
	for _, q := range queues {
		for _, s := range statuses {
			m.of[[2]string{q, s}] = vec.WithLabelValues(q, s)
		}
	}
	return m, metrics.Register(vec)
}

// add counts messages of a known queue.
func (m *Messages) add(queue, status string, n int) {
	if c := m.of[[2]string{queue, status}]; c != nil {
		c.Add(float64(n))
	}
}
