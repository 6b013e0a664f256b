package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"headway/api"
)

const (
	policyPath    = "/api/v1/policy"
	revisionsPath = policyPath + "/revisions"
	keysPath      = "/api/v1/keys"
)

// Policy is the policy in force.
type Policy struct {
	Document json.RawMessage
	ETag     string // of this revision, for PolicyChange.IfMatch
	Revision uint64 // 0: the default in the binary
}

// PolicyChange are the conditions of a policy change.
type PolicyChange struct {
	IfMatch string // ETag of the policy that is changed, or * for any
	Note    string // for the history; up to 500 bytes on one line
}

// Policy returns the policy in force.
func (c *Client) Policy(ctx context.Context) (Policy, error) {
	return c.policy(ctx, &call{what: "get the policy", method: http.MethodGet, path: policyPath, idempotent: true})
}

// PutPolicy replaces the policy and returns the new one. It fails with
// ErrInvalid and every fault, or ErrStale if IfMatch is not the current ETag.
// It is retried only if surely not applied, so after ErrUnavailable the change
// may be in force.
func (c *Client) PutPolicy(ctx context.Context, document json.RawMessage, p PolicyChange) (Policy, error) {
	return c.policy(ctx, &call{what: "replace the policy", method: http.MethodPut, path: policyPath, in: document, header: p.header()})
}

// PatchPolicy applies a JSON merge patch (RFC 7396), otherwise like PutPolicy.
func (c *Client) PatchPolicy(ctx context.Context, patch json.RawMessage, p PolicyChange) (Policy, error) {
	return c.policy(ctx, &call{what: "change the policy", method: http.MethodPatch, path: policyPath, in: patch, header: p.header()})
}

// RestorePolicy makes an old revision the newest. It is like PutPolicy, but the
// note is not kept.
func (c *Client) RestorePolicy(ctx context.Context, revision uint64, p PolicyChange) (Policy, error) {
	return c.policy(ctx, &call{
		what: fmt.Sprintf("restore revision %d of the policy", revision), method: http.MethodPost,
		path: revisionPath(revision) + "/restore", header: PolicyChange{IfMatch: p.IfMatch}.header(),
	})
}

func (p PolicyChange) header() http.Header {
	h := http.Header{}
	if p.IfMatch != "" {
		h.Set("If-Match", p.IfMatch)
	}
	if p.Note != "" {
		h.Set("X-Change-Note", p.Note)
	}
	return h
}

func (c *Client) policy(ctx context.Context, k *call) (Policy, error) {
	var p Policy
	k.out = &p.Document
	header, err := c.do(ctx, k)
	if err != nil {
		return Policy{}, err
	}
	p.ETag = header.Get("ETag")
	if p.Revision, err = strconv.ParseUint(strings.Trim(strings.TrimPrefix(p.ETag, "W/"), `"`), 10, 64); err != nil {
		return Policy{}, fmt.Errorf("%s: %w: the ETag %q names no revision", k.what, ErrAnswer, p.ETag)
	}
	return p, nil
}

// ValidatePolicy returns a document's faults, or what it would change.
func (c *Client) ValidatePolicy(ctx context.Context, document json.RawMessage) (api.PolicyCheck, error) {
	return fetch[api.PolicyCheck](ctx, c, &call{
		what: "check the policy", method: http.MethodPost, path: policyPath + "/validate", in: document, idempotent: true,
	})
}

// PolicyRevisions lists the history, newest first, without documents.
func (c *Client) PolicyRevisions(ctx context.Context) iter.Seq2[api.PolicyRevision, error] {
	return pages[api.PolicyRevision](ctx, c, "list the policy's revisions", revisionsPath, url.Values{})
}

// PolicyRevision returns one revision with its document, or ErrNotFound.
func (c *Client) PolicyRevision(ctx context.Context, revision uint64) (api.PolicyRevision, error) {
	return get[api.PolicyRevision](ctx, c, fmt.Sprintf("get revision %d of the policy", revision), revisionPath(revision))
}

func revisionPath(revision uint64) string {
	return revisionsPath + "/" + strconv.FormatUint(revision, 10)
}

// Keys lists the API keys, without their secrets.
func (c *Client) Keys(ctx context.Context) iter.Seq2[api.Key, error] {
	return pages[api.Key](ctx, c, "list the keys", keysPath, url.Values{})
}

// CreateKey makes an API key. Its Secret is in this answer only. It is retried
// only if surely not applied.
func (c *Client) CreateKey(ctx context.Context, r api.KeyRequest) (api.Key, error) {
	return fetch[api.Key](ctx, c, &call{what: "make a key", method: http.MethodPost, path: keysPath, in: r, success: http.StatusCreated})
}

// PatchKey changes what a key may use of the data plane and returns the key.
func (c *Client) PatchKey(ctx context.Context, id string, p api.KeyPatch) (api.Key, error) {
	return fetch[api.Key](ctx, c, &call{what: "change key " + id, method: http.MethodPatch, path: keysPath + "/" + url.PathEscape(id), in: p, idempotent: true})
}

// RevokeKey revokes a key. It is idempotent.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.carryOut(ctx, &call{what: "revoke key " + id, method: http.MethodDelete, path: keysPath + "/" + url.PathEscape(id), idempotent: true})
}

// AuditQuery narrows a search of the audit trail. Empty fields select all.
type AuditQuery struct {
	Since    time.Time // from then on
	Until    time.Time // before then
	Actor    string    // id, type, or type:id
	Action   string    // how it begins, such as policy; with a * anywhere, all of it
	Category string    // admin, policy, head, routing_config, auth or audit
	Outcome  string    // success, failure, denied or unknown
	Target   string    // id, type, or type:id
	PageSize int       // 1 to 1000; 0: the router's default
}

// Audit searches the audit trail, newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) iter.Seq2[api.AuditRecord, error] {
	return pages[api.AuditRecord](ctx, c, "search the audit trail", "/api/v1/audit", values(
		"since", moment(q.Since), "until", moment(q.Until), "actor", q.Actor, "action", q.Action,
		"category", q.Category, "outcome", q.Outcome, "target", q.Target, "limit", size(q.PageSize)))
}

// Ready returns the conditions of readiness. A router that is not ready is no
// error: its Status is unavailable. It is not retried.
func (c *Client) Ready(ctx context.Context) (api.Readiness, error) {
	const what = "ask for readiness"
	out, err := fetch[api.Readiness](ctx, c, &call{what: what, method: http.MethodGet, path: "/readyz", once: true, success: http.StatusServiceUnavailable})
	if err == nil && out.Status == "" {
		err = fmt.Errorf("%s: %w", what, ErrAnswer)
	}
	return out, err
}

// Bounds of streams in bytes.
const (
	maxMetrics = 256 << 20
	maxState   = 4 << 30
	maxLog     = 64 << 30
)

// Metrics returns the metrics in Prometheus' text format. The caller closes it,
// and ctx must stay valid until then. Beyond 256 MiB reading fails with
// ErrTooLarge.
func (c *Client) Metrics(ctx context.Context) (io.ReadCloser, error) {
	k := &call{what: "get the metrics", method: http.MethodGet, path: "/metrics", header: http.Header{"Accept": {"text/plain; version=0.0.4"}}}
	return c.read(ctx, k, maxMetrics)
}

// ExportState returns the router's state as JSON lines for 'headway state
// import'. The caller closes it, and ctx must stay valid until then. Reading
// fails if the copy is incomplete, and with ErrTooLarge beyond 4 GiB.
func (c *Client) ExportState(ctx context.Context) (io.ReadCloser, error) {
	return c.read(ctx, &call{what: "export the state", method: http.MethodGet, path: "/api/v1/state/export"}, maxState)
}

// CheckState verifies the router's state file. Damage is reported, not an
// error.
func (c *Client) CheckState(ctx context.Context) (api.StateReport, error) {
	return get[api.StateReport](ctx, c, "check the state", "/api/v1/state/check")
}

// read makes a call without retries and bounds its answer.
func (c *Client) read(ctx context.Context, k *call, most int64) (io.ReadCloser, error) {
	body, err := c.open(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.what, err)
	}
	return &boundedBody{ReadCloser: body, what: k.what, left: most}, nil
}

// boundedBody fails beyond the limit, where io.LimitReader would report the
// end.
type boundedBody struct {
	io.ReadCloser
	what string
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%s: %w", b.what, ErrTooLarge)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
