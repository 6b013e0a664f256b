package live

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"headway/api"
	"headway/internal/access"
)

// ServeEvents answers with a stream of events, until the client leaves, does not
// read or loses its access, or the service stops. An error is about the request;
// nothing was sent then.
func (h *Hub) ServeEvents(w http.ResponseWriter, r *http.Request, p *access.Principal, want api.Subscription) error {
	f, err := newFilter(want, "")
	if err != nil {
		return err
	}
	leave, err := h.enter(overSSE)
	if err != nil {
		return err
	}
	defer leave()
	header := w.Header()
	header["Content-Type"] = []string{"text/event-stream"}
	header["Cache-Control"] = []string{"no-store"}
	header["X-Accel-Buffering"] = []string{"no"} // nginx would hold events back
	if r.ProtoMajor == 1 {
		// Without chunks a write is one system call: net/http hands what is longer
		// than its buffers through. The end of the connection ends the stream.
		header["Transfer-Encoding"] = []string{"identity"}
	}
	w.WriteHeader(http.StatusOK)
	s, first := h.subscribe(overSSE, want.LastEventID, f)
	defer s.close()
	// Clients that lose their connections together do not come back together.
	retry := "retry: " + strconv.Itoa(1000+rand.IntN(2000)) + "\n\n"
	out := &eventWriter{hub: h, w: w, c: unlimited(w)}
	if !out.write([]byte(retry)) || !out.write(first) {
		return nil
	}
	turn := h.takeTurn()
	for {
		wake := *turn.Load() // before Ended is called, so that no change is missed
		if h.o.Guard.Ended(p) != nil {
			h.metrics.dropped.WithLabelValues(overSSE, endRevoked).Inc()
			return nil
		}
		if b := s.next(); len(b) > 0 {
			if !out.write(b) {
				return nil
			}
		} else if time.Since(out.last) >= h.o.Timing.Heartbeat && !out.write([]byte(": still here\n\n")) {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-h.stop:
			h.metrics.dropped.WithLabelValues(overSSE, endStopped).Inc()
			out.write(bye().sse)
			return nil
		case <-wake:
		}
	}
}

// eventWriter writes to a client that has to read.
type eventWriter struct {
	hub  *Hub
	w    http.ResponseWriter
	c    *http.ResponseController
	last time.Time // of a write
}

// write reports whether the client took b.
func (e *eventWriter) write(b []byte) bool {
	for piece := range slices.Chunk(b, maxWrite) {
		_ = e.c.SetWriteDeadline(time.Now().Add(e.hub.o.Timing.Write))
		_, err := e.w.Write(piece)
		if err == nil {
			err = e.c.Flush()
		}
		if err != nil {
			e.hub.metrics.countSlow(overSSE, err)
			return false
		}
	}
	e.last = time.Now()
	return true
}
