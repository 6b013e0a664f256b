package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/decisionlog"
	"headway/internal/fleet"
	"headway/internal/rehearse"
)

// Bounds of a rehearsal. It takes about 0.1 ms for a request, twice, and 1 KiB.
const (
	usualRehearsed = 10 * time.Minute
	mostRehearsed  = time.Hour
	mostPlayed     = 50_000           // requests
	rehearsalTime  = 30 * time.Second // for the reading and the playing
)

// rehearseDrain predicts what it would lead to that a head is drained.
func (s *Server) rehearseDrain(w *answer, r *http.Request, id string) error {
	last, err := rehearsedTime(r)
	if err != nil {
		return err
	}
	head, err := s.o.Fleet.Head(id)
	if err != nil {
		return err
	}
	return s.readLog(func(log *decisionlog.Log) error {
		ctx, cancel := context.WithTimeoutCause(r.Context(), s.rehearsals, &apiv1.Problem{
			Code: api.CodeTimeout, Detail: "The rehearsal takes more than " + s.rehearsals.String() + ". Ask for a shorter time with last.",
		})
		defer cancel()
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.rehearsals + s.o.Limits.WriteTimeout)) // connections of net/http always can
		result, err := s.rehearsal(ctx, log, head.Head, last)
		switch {
		case errors.Is(err, rehearse.ErrTooLittle):
			return &apiv1.Problem{Code: api.CodeTooFewRequests, Detail: fmt.Sprintf(
				"Of the last %s the decision log has fewer than %d requests that had %s to choose from.", last, rehearse.LeastRequests, id)}
		case errors.Is(err, context.DeadlineExceeded):
			return context.Cause(ctx)
		}
		return writeResult(w, result, err)
	})
}

func (s *Server) rehearsal(ctx context.Context, log *decisionlog.Log, head *fleet.Head, last time.Duration) (r api.DrainRehearsal, err error) {
	r.Head, r.Since = head.ID, time.Now().Add(-last).UTC()
	begins, err := decisionlog.Begins(func(q decisionlog.Query, yield func([]byte) error) error { return log.Read(ctx, q, yield) })
	if err != nil {
		return r, err
	}
	if begins.After(r.Since) {
		r.Since = begins
	}
	played := rehearse.NewLog(mostPlayed)
	err = log.Read(ctx, decisionlog.Query{Since: r.Since}, func(line []byte) error {
		var d api.LoggedDecision
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("read the decision log: %w", err)
		}
		if slices.Contains(head.ModelTypes, d.ModelType) {
			played.Add(&d)
		}
		return ctx.Err()
	})
	if err != nil {
		return r, err
	}
	if played.Since.After(r.Since) {
		r.Since = played.Since
	}
	drain := rehearse.Drain{Log: played, Policy: s.o.Router.Policy(), Head: head.ID, Has: func(id string) bool {
		other, err := s.o.Fleet.Head(id)
		return err == nil && other.Head.Routable()
	}}
	r.ModelTypes, err = drain.Play(ctx)
	for i := range r.ModelTypes {
		if p := &r.ModelTypes[i]; !head.Routable() {
			p.Assumed = append(p.Assumed, "before has "+head.ID+" take requests, which it does not now")
		}
	}
	return r, err
}

// rehearsedTime is how far back requests are played.
func rehearsedTime(r *http.Request) (time.Duration, error) {
	q := readQuery(r, "last")
	last := usualRehearsed
	if text := q.values["last"]; text != "" {
		var err error
		if last, err = time.ParseDuration(text); err != nil || last < time.Second || last > mostRehearsed {
			q.fault("last", "want a time of 1s to 1h, such as 90s or 10m")
		}
	}
	return last, q.err()
}
