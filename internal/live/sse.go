package live

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
)

// ServeEvents answers with a stream of events for whoever asks, until they leave,
// do not read, may no longer listen, or the service stops. The error is for what
// is wrong with the request; nothing was sent then.
func (h *Hub) ServeEvents(w http.ResponseWriter, r *http.Request, p *access.Principal, want api.Subscription) error {
	f, faults := newFilter(want)
	if len(faults) > 0 {
		for i := range faults {
			faults[i].Parameter, faults[i].Pointer = faults[i].Pointer, ""
		}
		return &apiv1.Problem{Code: api.CodeInvalid, Detail: apiv1.DetailOf(faults), Faults: faults}
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
	// Those who lose the connection together do not come back together.
	retry := "retry: " + strconv.Itoa(1000+rand.IntN(2000)) + "\n\n"
	out := &eventWriter{hub: h, w: w, c: unlimited(w), timeout: h.o.Timing.Write}
	if !out.write([]byte(retry)) || !out.write(first) {
		return nil
	}
	turn := h.takeTurn()
	for {
		wake := *turn.Load() // before Ended is asked, so that no change is missed
		if h.o.Guard.Ended(p) != nil {
			h.metrics.dropped[overSSE][droppedRevoked].Inc()
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
			h.metrics.dropped[overSSE][droppedStopped].Inc()
			out.write(bye().sse)
			return nil
		case <-wake:
		}
	}
}

// eventWriter writes to a reader that must read.
type eventWriter struct {
	hub     *Hub
	w       http.ResponseWriter
	c       *http.ResponseController
	timeout time.Duration
	last    time.Time // that something was sent
}

// maxWrite is how much a reader must take within the time for a write.
const maxWrite = 64 << 10

// write reports whether the reader is still there.
func (e *eventWriter) write(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), maxWrite)
		_ = e.c.SetWriteDeadline(time.Now().Add(e.timeout))
		_, err := e.w.Write(b[:n])
		if err == nil {
			err = e.c.Flush()
		}
		if err != nil {
			e.hub.failed(overSSE, err)
			return false
		}
		b = b[n:]
	}
	e.last = time.Now()
	return true
}
