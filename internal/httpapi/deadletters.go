package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"headway/api"
	"headway/internal/apiv1"
)

// DeadLetters are the commands that the message queue could not carry out. The
// methods are safe for concurrent use; the errors are those of ProblemOf.
type DeadLetters interface {
	DeadLetters(ctx context.Context, after uint64, limit int) (letters []api.DeadLetter, total uint64, err error)
	DeadLetter(ctx context.Context, number uint64) (api.DeadLetter, error)
	RetryDeadLetter(ctx context.Context, number uint64) error
	PurgeDeadLetter(ctx context.Context, number uint64) error
}

// queueOr refuses what needs a message queue when there is none.
func (s *Server) queueOr() error {
	if s.o.Letters != nil {
		return nil
	}
	return &apiv1.Problem{Code: api.CodeQueueUnavailable, Detail: "The service runs without a message queue: queue.mode is off."}
}

func (s *Server) listDeadLetters(w *answer, r *http.Request) error {
	q := readQuery(r, "limit", "cursor")
	limit, after := q.limit(), cursor(q, letterCursor, 0, numberPlace)
	if err := q.err(); err != nil {
		return err
	}
	if err := s.queueOr(); err != nil {
		return err
	}
	letters, _, err := s.o.Letters.DeadLetters(r.Context(), after, limit+1)
	if err != nil {
		return err
	}
	return writePage(w, letterCursor, limit, letters, func(l api.DeadLetter) (api.DeadLetter, string) {
		return l, strconv.FormatUint(l.Number, 10)
	})
}

func (s *Server) getDeadLetter(w *answer, r *http.Request) error {
	number, err := s.letterNumber(r)
	if err != nil {
		return err
	}
	letter, err := s.o.Letters.DeadLetter(r.Context(), number)
	return writeResult(w, letter, err)
}

// ofLetter calls a method for the dead letter that the path names.
func (s *Server) ofLetter(method func(l DeadLetters, ctx context.Context, number uint64) error) func(*answer, *http.Request) error {
	return func(w *answer, r *http.Request) error {
		number, err := s.letterNumber(r)
		if err == nil {
			err = method(s.o.Letters, r.Context(), number)
		}
		return done(w, err)
	}
}

// letterNumber is the {n} of a dead letter's path.
func (s *Server) letterNumber(r *http.Request) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue("n"), 10, 64)
	if err != nil || n == 0 {
		return 0, invalidParameter("n", "must be the number of a dead letter")
	}
	return n, s.queueOr()
}
