package cli

import (
	"bytes"
	"testing"

	"headway/api"
)

// An explanation shows what a cost is made of, and what is known of the head.
func TestAnExplanationShowsTermsAndSignals(t *testing.T) {
	var out bytes.Buffer
	explain(&out, &api.Explanation{InputTokens: 512, InputTokensAssumed: true, Candidates: []api.Candidate{{
		Head: "a", Region: "us", Cost: new(1.5), PredictedMs: new(43.21), Chosen: true,
		Terms:   []api.Term{{Name: "ahead", Value: 1200, Unit: "tokens"}, {Name: "kappa", Value: 0.5}},
		Signals: []api.Signal{{Name: "in_flight", Value: 3, Used: true}},
	}, {Head: "b", Region: "eu", Cost: new(0.5), Filter: "farther"}}})
	has(t, out.String(), "TERMS AND SIGNALS", "prompt    512 tokens, as is usual: the request does not say\n", "*  a     us      1.5   43.2 ms    -", "b     eu      0.5   -          farther", "ahead 1200 tokens, kappa 0.5, *in_flight=3")
}
