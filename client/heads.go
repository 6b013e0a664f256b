package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"headway/api"
)

const headsPath = "/api/v1/heads"

func headPath(id string) string { return headsPath + "/" + url.PathEscape(id) }

// HeadQuery narrows a list of heads. Empty fields select all.
type HeadQuery struct {
	ModelType string
	Region    string
	Status    string // as reported: unknown, active, degraded, draining or offline
	PageSize  int    // 1 to 1000; 0: the router's default
}

// Heads lists the heads by id.
func (c *Client) Heads(ctx context.Context, q HeadQuery) iter.Seq2[api.Head, error] {
	return pages[api.Head](ctx, c, "list the heads", headsPath,
		values("model_type", q.ModelType, "region", q.Region, "status", q.Status, "limit", size(q.PageSize)))
}

// Head returns one head, or ErrNotFound.
func (c *Client) Head(ctx context.Context, id string) (api.Head, error) {
	return get[api.Head](ctx, c, "get head "+id, headPath(id))
}

// Register registers a head once, with a new epoch; an [Agent] keeps it
// registered.
func (c *Client) Register(ctx context.Context, r api.Registration) (api.RegistrationAnswer, error) {
	return fetch[api.RegistrationAnswer](ctx, c, registering(&r))
}

func registering(r *api.Registration) *call {
	return &call{what: "register head " + r.ID, method: http.MethodPost, path: headsPath, in: r, idempotent: true, success: http.StatusCreated}
}

// Report reports a head's status once and renews its lease. After ErrNotFound
// or ErrStale the head must register again.
func (c *Client) Report(ctx context.Context, id string, r api.StatusReport) (api.StatusAnswer, error) {
	return fetch[api.StatusAnswer](ctx, c, reporting(id, &r))
}

func reporting(id string, r *api.StatusReport) *call {
	return &call{what: "report head " + id, method: http.MethodPut, path: headPath(id) + "/status", in: r, idempotent: true}
}

// PatchHead changes the operator's settings of a head and returns the head.
func (c *Client) PatchHead(ctx context.Context, id string, p api.HeadPatch) (api.Head, error) {
	return fetch[api.Head](ctx, c, &call{what: "change head " + id, method: http.MethodPatch, path: headPath(id), in: p, idempotent: true})
}

// RehearseDrain predicts what it would lead to that a head is drained, by the requests of
// the last time (0: 10 minutes), and changes nothing. It takes up to half a minute. It
// fails with ErrConflict if the decision log has too few requests of the head, and with
// ErrRateLimited while it is read for another caller.
func (c *Client) RehearseDrain(ctx context.Context, id string, last time.Duration) (r api.DrainRehearsal, err error) {
	k := &call{what: "rehearse the drain of head " + id, method: http.MethodPost, path: headPath(id) + "/drain-rehearsal", query: values("last", span(last))}
	answer, err := c.read(ctx, k, maxAnswer) // without the timeout of calls
	if err != nil {
		return r, err
	}
	defer func() { _ = answer.Close() }()
	if err := json.NewDecoder(answer).Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w: %w", k.what, ErrAnswer, err)
	}
	return r, nil
}

// EndEjection ends a head's ejection. It fails with ErrNotFound if the head is
// not ejected.
func (c *Client) EndEjection(ctx context.Context, id string) error {
	return c.carryOut(ctx, &call{what: "end the ejection of head " + id, method: http.MethodDelete, path: headPath(id) + "/ejection"})
}

// DeleteHead deregisters a head. It fails with ErrNotFound if there was none,
// unless an earlier attempt may have removed it.
func (c *Client) DeleteHead(ctx context.Context, id string) error {
	err := c.carryOut(ctx, &call{what: "deregister head " + id, method: http.MethodDelete, path: headPath(id), idempotent: true})
	if failed, ok := errors.AsType[*callError](err); ok && failed.repeats > 0 && errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
