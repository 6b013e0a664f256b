package proxy

import (
	"bytes"
	"net/http"
	"time"

	"headway/internal/openai"
	"headway/internal/routing"
)

// refused ends a decision whose head asked to be left alone for some time, and
// returns the answer to its caller. The router takes such a head only where no
// other has room, so that all of them are away. nil: the head is not away.
func (x *exchange) refused(d *routing.Decision) error {
	if d.Head.Live.AwayUntil(x.proxy.o.Now()).IsZero() {
		return nil
	}
	x.decision = nil
	x.proxy.o.Router.End(d, withdrawn())
	return &openai.Error{
		Status: http.StatusTooManyRequests, Code: "heads_rate_limited", RetryAfter: retryAfterPause(x.leastAway(d.ModelType)),
		Message: "All heads that may take the request asked for a pause. Try again after it.",
	}
}

// leastAway is how long it takes until the first of the heads of a model type that
// asked for a pause takes requests again; 0: none did.
func (x *exchange) leastAway(model string) (least time.Duration) {
	now, pool := x.proxy.o.Now(), x.proxy.o.Fleet.Snapshot().Pools[model]
	if pool == nil {
		return 0
	}
	for _, h := range pool.All.Heads {
		if until := h.Live.AwayUntil(now); !until.IsZero() && h.Routable() {
			if wait := until.Sub(now); least == 0 || wait < least {
				least = wait
			}
		}
	}
	return least
}

// renamed is an error's text without the key that its head asks for, and with the
// name that the caller used of the model in the place of the head's.
func (a *attempt) renamed(text []byte) []byte {
	if a.headKey != "" && bytes.Contains(text, []byte(a.headKey)) {
		text = bytes.ReplaceAll(text, []byte(a.headKey), []byte("***"))
	}
	if a.model == "" {
		return text
	}
	return openai.Rename(text, a.real, a.model)
}
