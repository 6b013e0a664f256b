package cli

import (
	"bytes"
	"testing"

	"headway/api"
)

// An explanation shows what a cost is made of, and what is known of the head.
func TestAnExplanationShowsTermsAndSignals(t *testing.T) {
	var out bytes.Buffer
	explain(&out, &api.Explanation{Candidates: []api.Candidate{{
		Head: "a", Cost: new(1.5), Chosen: true,
		Terms:   []api.Term{{Name: "ahead", Value: 1200, Unit: "tokens"}, {Name: "kappa", Value: 0.5}},
		Signals: []api.Signal{{Name: "in_flight", Value: 3, Used: true}},
	}}})
	has(t, out.String(), "TERMS AND SIGNALS", "ahead 1200 tokens, kappa 0.5, *in_flight=3")
}
