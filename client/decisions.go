package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"headway/api"
)

const decisionsPath = "/api/v1/decisions"

func decisionPath(id string) string { return decisionsPath + "/" + url.PathEscape(id) }

// The results of an outcome.
const (
	ResultOK        = "ok"
	ResultError     = "error"
	ResultCancelled = "cancelled"
)

// Decision is a chosen head, with a place reserved until the outcome is
// reported or ExpiresAt.
type Decision struct {
	api.Decision
	client *Client
}

// Decide asks for a head. It retries only if surely not answered: no
// connection, 429, or 503 with Retry-After (which no_eligible_head has), while
// ctx allows. It fails with ErrUnknownModelType, ErrNoHead, ErrInvalid or
// ErrForbidden among others.
func (c *Client) Decide(ctx context.Context, r api.DecisionRequest) (*Decision, error) {
	d := &Decision{client: c}
	_, err := c.do(ctx, &call{what: "decide", method: http.MethodPost, path: decisionsPath, in: &r, out: &d.Decision})
	return d.checked(err)
}

// checked is the decision of an answer, unless err failed it or it has none.
func (d *Decision) checked(err error) (*Decision, error) {
	if err == nil && (d.DecisionID == "" || d.Head.Endpoint == "") {
		err = fmt.Errorf("decide: %w: no decision in it", ErrAnswer)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// FirstToken reports the first token.
func (d *Decision) FirstToken(ctx context.Context) error {
	return d.client.ReportFirstToken(ctx, d.DecisionID)
}

// Outcome reports how the request ended on the decision's head, and gives its
// place back. Only the first outcome counts.
func (d *Decision) Outcome(ctx context.Context, o api.Outcome) error {
	return d.client.ReportOutcome(ctx, d.DecisionID, o)
}

// ReportFirstToken is [Decision.FirstToken] by the decision's id.
func (c *Client) ReportFirstToken(ctx context.Context, id string) error {
	return c.carryOut(ctx, &call{
		what: "report the first token of decision " + id, method: http.MethodPost, path: decisionPath(id) + "/progress",
		in: api.Progress{Event: "first_token"}, idempotent: true,
	})
}

// ReportOutcome is [Decision.Outcome] by the decision's id.
func (c *Client) ReportOutcome(ctx context.Context, id string, o api.Outcome) error {
	return c.carryOut(ctx, &call{
		what: "report the outcome of decision " + id, method: http.MethodPost, path: decisionPath(id) + "/outcome", in: o, idempotent: true,
	})
}

// DecisionQuery narrows a list of decisions. Empty fields select all.
type DecisionQuery struct {
	ModelType string
	Head      string // id of the chosen one
	RequestID string // X-Request-Id of a request of the data plane
	Result    string // ok, error, cancelled, expired, evicted, open or failed: it found no head
	PageSize  int    // 1 to 1000; 0: the router's default
}

// Decisions lists the recent decisions, newest first.
func (c *Client) Decisions(ctx context.Context, q DecisionQuery) iter.Seq2[api.RecentDecision, error] {
	return pages[api.RecentDecision](ctx, c, "list the decisions", decisionsPath,
		values("model_type", q.ModelType, "head", q.Head, "request_id", q.RequestID, "result", q.Result, "limit", size(q.PageSize)))
}

// Decision returns a recent decision, or ErrNotFound.
func (c *Client) Decision(ctx context.Context, id string) (api.RecentDecision, error) {
	return get[api.RecentDecision](ctx, c, "get decision "+id, decisionPath(id))
}

// DecisionLogQuery says which part of the decision log is read. Empty fields select all.
type DecisionLogQuery struct {
	Last  time.Duration // of this time until now
	Limit int           // at most so many decisions: the newest, or the worst

	ModelType string // only decisions for this model type
}

// DecisionLog returns lines of the decision log: an [api.LoggedDecision] each, as JSON,
// which has "decision_id"; others are of other kinds. The caller closes it, and ctx must
// stay valid until then. Reading fails if a part is missing, and with ErrTooLarge beyond
// 64 GiB.
func (c *Client) DecisionLog(ctx context.Context, q DecisionLogQuery) (io.ReadCloser, error) {
	return c.readLog(ctx, values("last", span(q.Last), "limit", size(q.Limit), "model_type", q.ModelType))
}

// DecisionLogBegins is when the oldest decision was made that the decision log has; zero:
// it has none.
func (c *Client) DecisionLogBegins(ctx context.Context) (time.Time, error) {
	var first api.LoggedDecision
	lines, err := c.readLog(ctx, values("order", "first"))
	if err != nil {
		return first.At, err
	}
	defer func() { _ = lines.Close() }()
	if err := json.NewDecoder(lines).Decode(&first); err != nil && !errors.Is(err, io.EOF) {
		return first.At, fmt.Errorf("read the decision log: %w", err)
	}
	return first.At, nil
}

// WorstDecisions are the logged decisions that q selects with the most regret, the worst
// first.
func (c *Client) WorstDecisions(ctx context.Context, q DecisionLogQuery) ([]api.LoggedDecision, error) {
	lines, err := c.readLog(ctx, values("last", span(q.Last), "limit", size(q.Limit), "model_type", q.ModelType, "order", "regret"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = lines.Close() }()
	worst := []api.LoggedDecision{}
	for in := json.NewDecoder(lines); ; {
		var d api.LoggedDecision
		if err := in.Decode(&d); errors.Is(err, io.EOF) {
			return worst, nil
		} else if err != nil {
			return worst, fmt.Errorf("read the decision log: %w", err)
		}
		worst = append(worst, d)
	}
}

func (c *Client) readLog(ctx context.Context, query url.Values) (io.ReadCloser, error) {
	return c.read(ctx, &call{what: "read the decision log", method: http.MethodGet, path: "/api/v1/decision-log", query: query}, maxLog)
}

// Strategies describes each strategy with its results.
func (c *Client) Strategies(ctx context.Context) ([]api.Strategy, error) {
	list, err := c.Effectiveness(ctx, EffectivenessQuery{})
	return list.Data, err
}

// EffectivenessQuery is what is asked of strategies.
type EffectivenessQuery struct {
	Window    time.Duration // in whole minutes, up to an hour; 0: 15 minutes
	ModelType string        // "": all
}

// Effectiveness describes each strategy with what its placements led to lately.
func (c *Client) Effectiveness(ctx context.Context, q EffectivenessQuery) (api.StrategyList, error) {
	window := ""
	if q.Window != 0 {
		window = q.Window.String()
	}
	return fetch[api.StrategyList](ctx, c, &call{
		what: "list the strategies", method: http.MethodGet, path: "/api/v1/strategies", idempotent: true,
		query: values("window", window, "model_type", q.ModelType),
	})
}
