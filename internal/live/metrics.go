package live

import (
	"errors"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The transports, and why the service ends a stream.
const (
	overSSE       = "sse"
	overWebSocket = "websocket"

	endSlow    = "slow"    // did not read
	endSilent  = "silent"  // did not answer a ping
	endRevoked = "revoked" // has lost its access
	endInvalid = "invalid" // sent an invalid message
	endStopped = "stopped" // the service stopped
)

type counts struct {
	open      map[string]prometheus.Gauge // by transport
	seconds   *prometheus.HistogramVec    // that streams were open
	refused   prometheus.Counter
	throttled prometheus.Counter
	lost      *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	forgotten *prometheus.CounterVec
	messages  map[string]map[bool]prometheus.Counter // by type and whether it succeeded
}

// From a script that takes a snapshot to a console that stays open for days.
var streamBuckets = []float64{0.1, 1, 10, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600}

func newCounts(reg prometheus.Registerer) *counts {
	auto := promauto.With(reg)
	c := &counts{
		open: map[string]prometheus.Gauge{
			overSSE:       auto.NewGauge(prometheus.GaugeOpts{Name: "sse_connections", Help: "Open Server-Sent Events connections."}),
			overWebSocket: auto.NewGauge(prometheus.GaugeOpts{Name: "websocket_connections", Help: "Open WebSocket connections."}),
		},
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headway_stream_duration_seconds", Help: "How long streams were open when they ended, by transport. http_request_duration_seconds has the time to their header.",
			Buckets: streamBuckets,
		}, []string{"transport"}),
		refused: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_live_refused_total", Help: "Streams refused because realtime.max_streams were open.",
		}),
		throttled: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_live_throttled_total", Help: "Times that reading from a WebSocket waited because it sent more than realtime.max_rate.",
		}),
		lost: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "headway_live_lost_total", Help: "Events and decisions that streams missed and were notified of, by transport.",
		}, []string{"transport"}),
		dropped: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "headway_live_dropped_total", Help: "Streams that were ended by the service, by transport and reason.",
		}, []string{"transport", "reason"}),
		forgotten: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "headway_live_forgotten_total", Help: "Encoded batches and snapshots that a full cache did not keep for other streams, by cache.",
		}, []string{"cache"}),
		messages: map[string]map[bool]prometheus.Counter{},
	}
	for transport := range c.open {
		c.lost.WithLabelValues(transport)
		c.seconds.WithLabelValues(transport)
		for _, reason := range []string{endSlow, endSilent, endRevoked, endInvalid, endStopped} {
			c.dropped.WithLabelValues(transport, reason)
		}
	}
	for _, cache := range []string{cacheBatches, cacheSnapshots} {
		c.forgotten.WithLabelValues(cache)
	}
	messages := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_live_messages_total", Help: "Messages received over WebSocket, by type (other: none that is known) and result.",
	}, []string{"type", "result"})
	for name := range requests {
		c.messages[name] = map[bool]prometheus.Counter{true: messages.WithLabelValues(name, "ok"), false: messages.WithLabelValues(name, "error")}
	}
	c.messages[""] = map[bool]prometheus.Counter{false: messages.WithLabelValues("other", "error")}
	return c
}

// countSlow counts a stream that ended by an error, if its client did not read in
// time.
func (c *counts) countSlow(transport string, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.dropped.WithLabelValues(transport, endSlow).Inc()
	}
}
