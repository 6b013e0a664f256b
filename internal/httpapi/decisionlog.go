package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/decisionlog"
)

// usualWorst is how many of the worst decisions are shown.
const usualWorst = 20

// readDecisionLog sends lines of the decision log.
func (s *Server) readDecisionLog(w *answer, r *http.Request) error {
	q, err := logQuery(r, time.Now())
	if err != nil {
		return err
	}
	return s.readLog(func(log *decisionlog.Log) error { return s.sendLog(w, r, log, q) })
}

// readLog lets one request at a time read the decision log, since that takes a processor
// for as long as it lasts.
func (s *Server) readLog(read func(*decisionlog.Log) error) error {
	if s.o.DecisionLog == nil {
		return &apiv1.Problem{Code: api.CodeNotFound, Detail: "There is no decision log: decision_log.rate is 0."}
	}
	if !s.readingLog.TryLock() {
		return &apiv1.Problem{Code: api.CodeRateLimited, Detail: "The decision log is being read for another request.", RetryAfter: time.Second}
	}
	defer s.readingLog.Unlock()
	return read(s.o.DecisionLog)
}

func (s *Server) sendLog(w *answer, r *http.Request, log *decisionlog.Log, q decisionlog.Query) error {
	lines := &lineWriter{answer: w, timeout: s.o.Limits.WriteTimeout}
	err := log.Read(r.Context(), q, func(line []byte) error {
		_, err := lines.Write(line)
		return err
	})
	if err != nil && w.status != 0 {
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
	if err == nil {
		lines.begin()
	}
	return err
}

// logQuery reads which lines are asked for.
func logQuery(r *http.Request, now time.Time) (decisionlog.Query, error) {
	q := readQuery(r, "last", "order", "limit", "model_type")
	asked := decisionlog.Query{Model: q.values["model_type"]}
	if text := q.values["last"]; text != "" {
		last, err := time.ParseDuration(text)
		if err != nil || last <= 0 {
			q.fault("last", "must be a time above 0 such as 90s, 1h or 24h")
		}
		asked.Since = now.Add(-last)
	}
	q.oneOf("order", []string{"time", "regret", "first"})
	asked.First = q.values["order"] == "first"
	if asked.Worst = q.values["order"] == "regret"; asked.Worst {
		asked.Limit = usualWorst
	}
	if text := q.values["limit"]; text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 || limit > decisionlog.MaxLimit {
			q.fault("limit", "must be a whole number from 1 to "+strconv.Itoa(decisionlog.MaxLimit))
		}
		asked.Limit = limit
	}
	return asked, q.err()
}

// lineWriter sends JSON lines. The client has the write timeout for each, not for all.
type lineWriter struct {
	*answer
	timeout time.Duration
	until   time.Time // of the deadline that is set
}

func (o *lineWriter) begin() {
	if o.status == 0 {
		h := o.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Cache-Control", "no-store")
		o.WriteHeader(http.StatusOK)
	}
}

func (o *lineWriter) Write(b []byte) (int, error) {
	o.begin()
	if now := time.Now(); o.until.Sub(now) < o.timeout*3/4 {
		o.until = now.Add(o.timeout)
		_ = http.NewResponseController(o).SetWriteDeadline(o.until) // connections of net/http always can
	}
	return o.answer.Write(b)
}
