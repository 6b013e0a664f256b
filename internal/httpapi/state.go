package httpapi

import (
	"context"
	"io"
	"net/http"
	"time"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/audit"
)

// State is the file with what the service keeps. Its methods read all of it, as
// it is at one moment, while the service goes on.
type State interface {
	// Export writes it as JSON lines; a slow writer holds nothing up. Of damaged
	// state nothing is written.
	Export(ctx context.Context, w io.Writer) error
	// Check verifies each page, record and checksum. Changes wait for it.
	Check(ctx context.Context) (api.StateReport, error)
}

// exportState sends the whole state. It holds the hashes of keys, so the trail
// has who took a copy.
func (s *Server) exportState(w *answer, r *http.Request) error {
	return s.readState(func() error {
		begin := func() { s.noteState(r, "state.export", nil) }
		err := s.o.State.Export(r.Context(), &stateWriter{w, s.o.Limits.WriteTimeout, begin})
		if err != nil && w.status != 0 {
			s.noteState(r, "state.export", err)
			panic(http.ErrAbortHandler) // the client must not take half of it for the whole
		}
		return err
	})
}

func (s *Server) checkState(w *answer, r *http.Request) error {
	return s.readState(func() error {
		report, err := s.o.State.Check(r.Context())
		if err != nil {
			return err
		}
		s.noteState(r, "state.check", nil)
		return writeJSON(w, http.StatusOK, report)
	})
}

// readState lets one request at a time read the state, since each holds all of
// it in memory.
func (s *Server) readState(read func() error) error {
	if s.o.State == nil {
		return &apiv1.Problem{Code: api.CodeStateUnavailable, Detail: "The service keeps no state in a file."}
	}
	if !s.reading.TryLock() {
		return &apiv1.Problem{Code: api.CodeRateLimited, Detail: "Another export or check of the state is under way.", RetryAfter: time.Second}
	}
	defer s.reading.Unlock()
	return read()
}

// noteState records in the audit trail that the state was read.
func (s *Server) noteState(r *http.Request, action string, err error) {
	e := audit.Entry{Category: audit.Admin, Action: action, Outcome: audit.Success, Target: audit.Target{Type: "state"}}.By(r.Context())
	if err != nil {
		e.Outcome, e.Reason = audit.Failure, "it did not arrive whole"
	}
	s.o.Audit.Note(e)
}

// stateWriter sends an export. The client has the write timeout for each part of
// it, not for all of it.
type stateWriter struct {
	*answer
	timeout time.Duration
	begin   func() // called before the first byte
}

func (o *stateWriter) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.begin()
		h := o.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Cache-Control", "no-store")
	}
	_ = http.NewResponseController(o).SetWriteDeadline(time.Now().Add(o.timeout)) // connections of net/http always can
	return o.answer.Write(b)
}
