package proxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/strict"
	"headway/internal/upstream"
)

// ClientPath opens paths of heads to all callers of PassThrough: those beside what
// is known of the head's engine. * in either stands for any characters.
type ClientPath struct{ ModelType, Path string }

// RefusedError is an answer that no head had a part in: the request itself or its
// caller is refused, or no head takes it.
type RefusedError struct{ Answer *openai.Error }

func (e *RefusedError) Error() string { return e.Answer.Error() }

// Unwrap returns the answer.
func (e *RefusedError) Unwrap() error { return e.Answer }

// use is what a request to PassThrough is for.
type use int

const (
	operates use = iota // it may change the engine: what is in no list
	asks                // it asks how the engine is, as the service itself does
	serves              // it is one that clients may send
)

// useOf is what the request is for at a head that serves the model type.
func (x *exchange) useOf(h *fleet.Head, model string) use {
	e, method, path := engineOf(h), x.r.Method, x.path()
	switch {
	case e.Serves(method, path) || x.proxy.opens(model, path):
		return serves
	case e.Tells(method, path):
		return asks
	}
	return operates
}

func engineOf(h *fleet.Head) *engines.Engine { return engines.Of(h.Engine) }

// path is the one at the head, as it is sent.
func (x *exchange) path() string {
	path, _, _ := strings.Cut(x.target, "?")
	return path
}

// opens reports whether Options.ClientPaths has a path. One that readers may take
// apart in different ways is never among them.
func (p *Proxy) opens(model, path string) bool {
	if len(p.o.ClientPaths) == 0 {
		return false
	}
	decoded, err := url.PathUnescape(path)
	if err != nil || strings.Count(decoded, "/") != strings.Count(path, "/") || strings.Contains(path, "//") || strings.ContainsAny(decoded, `%;?#\`) {
		return false
	}
	for _, c := range p.o.ClientPaths {
		if strict.Match(c.ModelType, model, nil) && strict.Match(c.Path, path, nil) {
			return true
		}
	}
	return false
}

// permitted checks that the caller may send a request to PassThrough to the head
// that was chosen, after fallbacks, changes of the fleet and retries too. If it may
// not, the decision is ended.
func (x *exchange) permitted(d *routing.Decision) error {
	if x.caller.Endpoint != PassThrough || x.caller.Principal.May(access.Operate) || x.useOf(d.Head, d.ModelType) == serves {
		return nil
	}
	x.proxy.o.Router.End(d, withdrawn())
	return needsOperate(d.Head)
}

// permittedSomewhere refuses a request that no head of the model type may get from
// this caller, before its body is read.
func (x *exchange) permittedSomewhere(model string) error {
	pool := x.proxy.pool(model)
	if pool == nil || len(pool.All.Heads) == 0 || x.caller.Principal.May(access.Operate) {
		return nil
	}
	model = x.proxy.o.Router.Policy().Model(model)
	for _, h := range pool.All.Heads {
		if x.useOf(h, model) == serves {
			return nil
		}
	}
	return needsOperate(pool.All.Heads[0])
}

func needsOperate(h *fleet.Head) error {
	why := "proxy.client_paths can open it to others."
	if e := engineOf(h); e.OfText() {
		why = "What heads of the engine " + e.Name + " serve is reached by /v1."
	}
	return &openai.Error{Status: http.StatusForbidden, Message: "This path needs the permission operate. " + why}
}

// repeatable reports whether heads may carry the request out twice: any for /v1, and
// for PassThrough by its method (RFC 9110, 9.2.2).
func (x *exchange) repeatable() bool {
	if x.caller.Endpoint != PassThrough {
		return true
	}
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// record has the audit trail say what is to be done at the head of the attempt, if
// that may change it. After an error it must not be done.
func (x *exchange) record() error {
	if x.proxy.o.Audit == nil || x.caller.Endpoint != PassThrough || x.useOf(x.decision.Head, x.decision.ModelType) != operates {
		return nil
	}
	if safe := x.r.Method == http.MethodGet || x.r.Method == http.MethodHead || x.r.Method == http.MethodOptions; safe && engines.Find(strings.ToLower(x.decision.Head.Engine)) == nil {
		return nil // no engine is known to change by these
	}
	after, _ := json.Marshal(map[string]string{"method": x.r.Method, "path": strict.Clip(x.path())}) // texts always encode
	end, err := x.proxy.o.Audit.Begin(x.ctx, audit.Entry{
		Category: audit.Head, Action: "head.request", After: after,
		Target: audit.Target{Type: "head", ID: x.decision.Head.ID, Region: x.decision.Head.Region, ModelType: x.decision.ModelType},
	}.By(x.ctx))
	if err != nil {
		x.proxy.o.Router.End(x.decision, withdrawn())
		x.decision = nil
		return err //nolint:wrapcheck // it is one of the audit room's, which callers know
	}
	x.recorded = func(o *routing.Outcome) {
		outcome, reason := x.ending(o)
		end(outcome, reason, nil)
	}
	return nil
}

// ending is how the trail says that an attempt ended: a failure is only what cannot be
// in effect.
func (a *attempt) ending(o *routing.Outcome) (audit.Outcome, string) {
	reason := "the head answered " + strconv.FormatInt(o.StatusCode, 10)
	switch kind := upstream.Kind(a.fault); {
	case o.Result == routing.ResultOK:
		return audit.Success, ""
	case a.fault == reasonUnauthorized:
		return audit.Failure, "the head did not accept the service's credential"
	case kind == upstream.Canceled || a.fault == "" && o.Result == routing.ResultCancelled:
		reason = "the caller left"
	case slices.Contains(upstream.Kinds(), kind):
		reason = "the head failed: " + explain(kind)
	case o.StatusCode < 500:
		return audit.Failure, reason
	}
	if a.unsent {
		return audit.Failure, reason
	}
	return audit.Unknown, reason
}
