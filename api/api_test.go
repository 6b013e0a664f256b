package api_test

import (
	"encoding/json"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"

	"headway/api"
)

// What a client leaves out is left out by every encoder: the two mean
// different things by omitempty, and the service refuses a 0 that was not set.
func TestBothEncodersLeaveOutTheSame(t *testing.T) {
	for _, body := range []any{
		api.Registration{}, api.StatusReport{}, api.HeadPatch{}, api.DecisionRequest{}, api.Progress{}, api.Outcome{}, api.KeyRequest{}, api.KeyPatch{}, api.Subscription{}, api.Envelope{},
	} {
		first, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		second, err := jsonv2.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		// A list that is required and nil is null to one and [] to the other;
		// what is compared is which members there are.
		var one, two map[string]any
		if err := json.Unmarshal(first, &one); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(second, &two); err != nil {
			t.Fatal(err)
		}
		for name := range two {
			if _, both := one[name]; !both {
				t.Errorf("%T: only one encoder writes %q: %s", body, name, second)
			}
		}
		if len(one) != len(two) {
			t.Errorf("%T: %s and %s", body, first, second)
		}
	}
}
