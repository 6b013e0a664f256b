package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/admission"
	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
	"headway/internal/upstream"
)

// The hints of a request, in canonical form.
const (
	hintRegion     = "X-Headway-Region"
	hintRegionMode = "X-Headway-Region-Mode"
	hintStrategy   = "X-Headway-Strategy"
	hintSession    = "X-Headway-Session"
	hintPriority   = "X-Headway-Priority"
)

// hints are all of them, behind what ours have in common.
var hints = []string{"Region", "Region-Mode", "Strategy", "Session", "Priority"}

// ofAnswers are the other fields of ours. Who sends back what an answer had means
// nothing by it.
var ofAnswers = map[string]bool{
	"X-Headway-Decision-Id": true, "X-Headway-Head": true, "X-Headway-Attempts": true, "X-Headway-Overhead-Ms": true, "X-Headway-Queue-Ms": true, "X-Headway-Fallback": true,
}

// hintFields are the names that the policy's caller_may has for hints. The router
// itself checks those of a strategy and a region mode, which decisions name too.
var hintFields = map[string]string{hintRegion: "region", hintSession: "session", hintPriority: "priority"}

// hintOf names the hint that a field of the router's request comes from.
var hintOf = map[string]string{
	"/region": hintRegion, "/region_mode": hintRegionMode, "/strategy": hintStrategy, "/session_key": hintSession,
}

// maxHint is the longest value of a hint, in bytes.
const maxHint = 1024

// request makes the router's request of the body's fields and the hints.
func (x *exchange) request() error {
	p := x.proxy.o.Router.Policy()
	x.req = strategy.Request{ModelType: x.fields.Model, Held: true, SkipAway: true, SessionKey: x.fields.SessionKey, Caller: x.caller.Principal.Mark()}
	if x.req.SessionKey == "" && x.fields.User != "" && p.CallerMay("session") { // what one user asks has much in common
		x.req.SessionKey = x.fields.User
	}
	x.hash()
	x.req.InputTokens = x.proxy.estimates.prompt(p.Model(x.fields.Model), x.prompt)
	x.priority = admission.Normal
	given, err := hinted(x.r.Header)
	if !given || err != nil {
		return err
	}
	return x.hints()
}

// hinted reports whether a request has hints. A name that is none of them would be a
// hint that does nothing: it is refused.
func hinted(h http.Header) (given bool, err error) {
	for name := range h {
		if !strings.HasPrefix(name, ours) || ofAnswers[name] {
			continue
		}
		given = true
		if hint := name[len(ours):]; !slices.Contains(hints, hint) {
			reason := "no hint has this name"
			if meant := strict.Nearest(hint, hints); meant != "" {
				reason += "; did you mean " + strings.ToLower(ours+meant) + "?"
			} else {
				reason += "; the hints are " + strings.ToLower(ours+strings.Join(hints, ", "+ours))
			}
			wrong := badHint(strict.Clip(name), reason)
			wrong.Code = "unknown_parameter"
			return true, wrong
		}
	}
	return given, nil
}

// hints reads the hints into the router's request.
func (x *exchange) hints() error {
	for _, h := range []struct {
		name string
		to   *string
	}{{hintRegion, &x.req.Region}, {hintStrategy, &x.req.Strategy}, {hintSession, &x.req.SessionKey}} {
		if err := x.hint(h.name, h.to); err != nil {
			return err
		}
	}
	mode := ""
	if err := x.hint(hintRegionMode, &mode); err != nil {
		return err
	}
	if mode != "" {
		var ok bool
		if x.req.RegionMode, ok = strategy.ParseRegionMode(mode); !ok {
			return badHint(hintRegionMode, "must be prefer or require")
		}
	}
	if x.req.RegionMode == strategy.RegionRequire && x.req.Region == "" && x.proxy.o.Router.Policy().CallerMay("region_mode") {
		return badHint(hintRegion, "is required beside x-headway-region-mode require")
	}
	priority := x.priority.String()
	if err := x.hint(hintPriority, &priority); err != nil {
		return err
	}
	var ok bool
	if x.priority, ok = admission.ParsePriority(priority); !ok {
		return badHint(hintPriority, "must be high, normal or low")
	}
	return nil
}

// hint reads one hint, if the request has it and the policy lets callers set it.
func (x *exchange) hint(name string, to *string) error {
	switch v := x.r.Header[name]; {
	case len(v) == 0 || len(v) == 1 && strings.TrimSpace(v[0]) == "":
	case hintFields[name] != "" && !x.proxy.o.Router.Policy().CallerMay(hintFields[name]):
		return reserved(name)
	case len(v) > 1:
		return badHint(name, "must not be given twice")
	case len(v[0]) > maxHint:
		return badHint(name, fmt.Sprintf("must have at most %d characters", maxHint))
	default:
		*to = v[0]
	}
	return nil
}

func badHint(name, reason string) *openai.Error {
	name = strings.ToLower(name)
	if !strings.HasSuffix(reason, "?") {
		reason += "."
	}
	return &openai.Error{Status: http.StatusBadRequest, Param: name, Code: "invalid_value", Message: name + ": " + reason}
}

// reserved is that the policy keeps a hint to itself.
func reserved(name string) error {
	name = strings.ToLower(name)
	return &openai.Error{
		Status: http.StatusForbidden, Param: name, Code: "override_not_allowed",
		Message: "The policy does not let callers set " + name + "; its caller_may lists what they may set.",
	}
}

// hintError is the answer to what the router refuses of a request.
func hintError(err error) error {
	if o, ok := errors.AsType[*routing.OverrideError](err); ok {
		return reserved(hintOf[o.Field])
	}
	if invalid, ok := errors.AsType[*strict.InvalidError](err); ok && len(invalid.Faults) > 0 {
		f := invalid.Faults[0]
		if name := hintOf[f.Pointer]; name != "" {
			return badHint(name, f.Reason)
		}
		return &openai.Error{Status: http.StatusBadRequest, Param: strings.TrimPrefix(f.Pointer, "/"), Message: f.Pointer + ": " + f.Reason + "."}
	}
	return fmt.Errorf("decide: %w", err)
}

// Callers that were turned away together come back apart.
const (
	leastRetryAfter  = time.Second
	retryAfterSpread = 3 * time.Second
)

func retryAfter() time.Duration {
	return leastRetryAfter + time.Duration(rand.Int64N(int64(retryAfterSpread)))
}

// retryAfterPause is the time after which callers come back to heads that asked for a
// pause: never within it.
func retryAfterPause(pause time.Duration) time.Duration {
	return max(pause, leastRetryAfter) + retryAfter() - leastRetryAfter
}

// maxRetryAfter is the longest time that a head can keep requests away.
const maxRetryAfter = 5 * time.Minute

// stayAway keeps new requests away from a head that is full, or that says for how
// long it cannot serve.
func (a *attempt) stayAway(res *upstream.Response) {
	text := res.Header.Get("Retry-After")
	if res.Status != http.StatusTooManyRequests && text == "" {
		return
	}
	now := a.x.proxy.o.Now()
	a.decision.Head.Live.StayAway(now.Add(retryAfterOf(text, now)))
}

// retryAfterOf reads the Retry-After of a head: seconds or a date; a second
// without one.
func retryAfterOf(text string, now time.Time) time.Duration {
	wait := time.Second
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil || errors.Is(err, strconv.ErrRange) { // beyond it, n is the largest
		wait = time.Duration(min(max(n, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = max(at.Sub(now), 0)
	}
	return min(wait, maxRetryAfter)
}
