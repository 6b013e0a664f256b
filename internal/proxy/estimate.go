package proxy

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/routing"
)

// estimates are how many bytes a token of each model has, as heads report it: of
// prompts as they stand in requests, and of the text of answers.
type estimates struct {
	fleet   routing.Fleet
	refused prometheus.Counter // models that there was no room for

	mu     sync.Mutex
	models map[string]*ratios
}

type ratios struct{ prompt, text ratio }

// maxEstimated is how many models have ratios of their own.
const maxEstimated = 1024

// ratio is bytes for each token, over the newest requests: both sums fade.
type ratio struct{ bytes, tokens float64 }

const (
	bytesPerToken = 4    // until a head has reported
	fading        = 0.98 // with each request
	// A report outside of these bounds is not of text: a picture, or reasoning that
	// is not shown.
	leastPerToken, mostPerToken = 0.5, 32
)

// learn takes what a head reported.
func (r *ratio) learn(bytes, tokens int64) {
	if b, t := float64(bytes), float64(tokens); b >= leastPerToken*t && b <= mostPerToken*t {
		r.bytes, r.tokens = r.bytes*fading+b, r.tokens*fading+t
	}
}

// of is the estimate for a text.
func (r *ratio) of(bytes int64) int64 {
	if r == nil || r.tokens == 0 {
		return (bytes + bytesPerToken - 1) / bytesPerToken
	}
	return int64(float64(bytes)*r.tokens/r.bytes + 0.5)
}

// prompt estimates the tokens of a prompt for a model.
func (e *estimates) prompt(model string, bytes int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.models[model]; m != nil {
		return m.prompt.of(bytes)
	}
	return (*ratio)(nil).of(bytes)
}

// text estimates the tokens of an answer's text.
func (e *estimates) text(model string, bytes int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.models[model]; m != nil {
		return m.text.of(bytes)
	}
	return (*ratio)(nil).of(bytes)
}

// learn takes the counts that a head of the model reported. The model is the
// fleet's name, never one that only a caller knows.
func (e *estimates) learn(model string, prompt, text int64, u openai.Usage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.models[model]
	if m == nil {
		if len(e.models) >= maxEstimated && !e.makeRoom() {
			e.refused.Inc()
			return
		}
		m = &ratios{}
		e.models[model] = m
	}
	if prompt > 0 && u.Input > 0 {
		m.prompt.learn(prompt, u.Input)
	}
	if text > 0 && u.Output > 0 {
		m.text.learn(text, u.Output)
	}
}

// makeRoom forgets the models that no head has any more.
func (e *estimates) makeRoom() bool {
	pools := e.fleet.Snapshot().Pools
	for model := range e.models {
		if pools[model] == nil {
			delete(e.models, model)
		}
	}
	return len(e.models) < maxEstimated
}

// estimate fills in the counts that the head of an attempt did not report of an
// answer that it gave, and learns from those that it did.
func (x *exchange) estimate(o *routing.Outcome) {
	if x.first.IsZero() || o.StatusCode >= 400 && o.StatusCode < 500 {
		return
	}
	model, e := x.decision.ModelType, x.caller.Endpoint
	if e == PassThrough {
		if x.r.Method != http.MethodPost || !engineOf(x.decision.Head).OfText() {
			return
		}
		if x.prompt = int64(len(x.body.b)); x.upload != nil {
			x.prompt += x.upload.sent
		}
	}
	if o.Result == routing.ResultOK && (o.InputTokens > 0 || o.OutputTokens > 0) {
		x.proxy.estimates.learn(model, x.prompt, x.text, openai.Usage{Input: o.InputTokens, Output: o.OutputTokens})
	}
	if o.InputTokens == fleet.Unknown && x.prompt > 0 {
		o.InputTokens, o.Estimated = x.proxy.estimates.prompt(model, x.prompt), true
	}
	if o.OutputTokens == fleet.Unknown && (e.Generates || e == PassThrough) {
		o.OutputTokens, o.Estimated = x.proxy.estimates.text(model, x.text), true
	}
}
