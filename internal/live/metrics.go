package live

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// The transports, and why the service ends a stream.
const (
	overSSE       = "sse"
	overWebSocket = "websocket"

	droppedSlow    = "slow"    // did not read
	droppedSilent  = "silent"  // did not answer a ping
	droppedRevoked = "revoked" // has lost its access
	droppedInvalid = "invalid" // sent an invalid message
	droppedStopped = "stopped" // the service stopped
)

type counts struct {
	open      map[string]prometheus.Gauge    // by transport
	seconds   map[string]prometheus.Observer // that streams were open
	refused   prometheus.Counter
	throttled prometheus.Counter
	lost      map[string]prometheus.Counter
	dropped   map[string]map[string]prometheus.Counter
	messages  map[string]map[bool]prometheus.Counter // by type and whether it succeeded
}

// From a script that takes a snapshot to a console that stays open for days.
var streamBuckets = []float64{0.1, 1, 10, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600}

func newCounts(reg prometheus.Registerer) (*counts, error) {
	lost := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_live_lost_total", Help: "Events and decisions that streams were told they missed, by transport.",
	}, []string{"transport"})
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_live_dropped_total", Help: "Streams that were ended by the service, by transport and reason.",
	}, []string{"transport", "reason"})
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_live_messages_total", Help: "Messages received over WebSocket, by type (other: none that is known) and result.",
	}, []string{"type", "result"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "headway_stream_duration_seconds", Help: "How long streams were open when they ended, by transport. http_request_duration_seconds has the time to their header.",
		Buckets: streamBuckets,
	}, []string{"transport"})
	sse := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sse_connections", Help: "Open Server-Sent Events connections."})
	webSocket := prometheus.NewGauge(prometheus.GaugeOpts{Name: "websocket_connections", Help: "Open WebSocket connections."})
	c := &counts{
		open: map[string]prometheus.Gauge{overSSE: sse, overWebSocket: webSocket}, seconds: map[string]prometheus.Observer{},
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_live_refused_total", Help: "Streams refused because realtime.max_streams were open.",
		}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_live_throttled_total", Help: "Times that reading from a WebSocket waited because it sent more than realtime.max_rate.",
		}),
		lost: map[string]prometheus.Counter{}, dropped: map[string]map[string]prometheus.Counter{},
		messages: map[string]map[bool]prometheus.Counter{},
	}
	for _, transport := range []string{overSSE, overWebSocket} {
		c.lost[transport] = lost.WithLabelValues(transport)
		c.seconds[transport] = seconds.WithLabelValues(transport)
		c.dropped[transport] = map[string]prometheus.Counter{}
		for _, reason := range []string{droppedSlow, droppedSilent, droppedRevoked, droppedInvalid, droppedStopped} {
			c.dropped[transport][reason] = dropped.WithLabelValues(transport, reason)
		}
	}
	for name := range requests {
		c.messages[name] = map[bool]prometheus.Counter{true: messages.WithLabelValues(name, "ok"), false: messages.WithLabelValues(name, "error")}
	}
	c.messages[""] = map[bool]prometheus.Counter{false: messages.WithLabelValues("other", "error")}
	var errs []error
	for _, m := range []prometheus.Collector{sse, webSocket, seconds, c.refused, c.throttled, lost, dropped, messages} {
		errs = append(errs, reg.Register(m))
	}
	return c, errors.Join(errs...)
}
