package apiv1

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/strict"
)

// decided makes a decision and returns its id.
func decided(t testing.TB, d *Verbs) string {
	t.Helper()
	answer, err := d.Decide(nil, []byte(`{"model_type":"m"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var decision api.Decision
	if err := json.Unmarshal(answer, &decision); err != nil {
		t.Fatal(err)
	}
	return decision.DecisionID
}

// faultsAt are the pointers of an error's faults.
func faultsAt(err error) string {
	invalid, ok := errors.AsType[*strict.InvalidError](err)
	if !ok {
		return ""
	}
	var at []string
	for _, f := range invalid.Faults {
		at = append(at, f.Pointer)
	}
	return strings.Join(at, " ")
}

// An outcome that cannot be true says nothing of the head, and is not taken.
func TestOutcomesThatContradictThemselves(t *testing.T) {
	d := newDesk(t)
	for body, at := range map[string]string{
		`{"result":"ok","ttft_ms":900.1,"duration_ms":900}`:                     "/ttft_ms",
		`{"result":"cancelled","ttft_ms":1,"duration_ms":0}`:                    "/ttft_ms",
		`{"result":"ok","input_tokens":10,"cached_tokens":11}`:                  "/cached_tokens",
		`{"result":"error","cached_tokens":1,"input_tokens":0}`:                 "/cached_tokens",
		`{"result":"ok","status_code":500}`:                                     "/status_code",
		`{"status_code":400,"result":"ok"}`:                                     "/status_code",
		`{"result":"ok","status_code":199}`:                                     "/status_code",
		`{"result":"ok","status_code":404,"ttft_ms":2,"duration_ms":1}`:         "/ttft_ms /status_code",
		`{"result":"ok","ttft_ms":-1,"duration_ms":1}`:                          "/ttft_ms",
		`{"result":"ok","ttft_ms":"5","duration_ms":1}`:                         "/ttft_ms",
		`{"ttft_ms":2,"duration_ms":1}`:                                         "/result /ttft_ms",
		`{"result":"ok","ttft_ms":900,"duration_ms":900}`:                       "",
		`{"result":"ok","ttft_ms":5}`:                                           "",
		`{"result":"ok","duration_ms":5}`:                                       "",
		`{"result":"ok","input_tokens":10,"cached_tokens":10}`:                  "",
		`{"result":"ok","cached_tokens":10}`:                                    "",
		`{"result":"ok","status_code":200}`:                                     "",
		`{"result":"ok","status_code":399}`:                                     "",
		`{"result":"error","status_code":200}`:                                  "", // it broke off
		`{"result":"error","status_code":503,"ttft_ms":null,"duration_ms":0.5}`: "",
		`{"result":"cancelled","status_code":499}`:                              "",
	} {
		if err := d.Outcome(decided(t, d), []byte(body)); faultsAt(err) != at || at == "" && err != nil {
			t.Errorf("%s: %v; want faults at %q", body, err, at)
		}
		// Where no path names the decision, the body does.
		named := strings.Replace(body, "{", `{"decision_id":"`+decided(t, d)+`",`, 1)
		if err := d.Outcome("", []byte(named)); faultsAt(err) != at || at == "" && err != nil {
			t.Errorf("%s: %v; want faults at %q", named, err, at)
		}
	}
}

// What an outcome does not say is not known, and not 0.
func TestWhatAnOutcomeDoesNotSayIsNotKnown(t *testing.T) {
	d := newDesk(t)
	id := decided(t, d)
	if err := d.Outcome(id, []byte(`{"result":"ok"}`)); err != nil {
		t.Fatal(err)
	}
	recent, err := d.router.Decision(id)
	if err != nil {
		t.Fatal(err)
	}
	o := RecentOf(recent).Outcome
	if o == nil || o.TTFTMs != nil || o.DurationMs != nil || o.StatusCode != nil || o.InputTokens != nil || o.OutputTokens != nil || o.CachedTokens != nil {
		t.Errorf("%+v", o)
	}
}

// What a client sent is repeated in bounded length.
func TestWhatIsRepeatedIsClipped(t *testing.T) {
	d := newDesk(t)
	long := strings.Repeat("a", 10<<10)
	err := d.Outcome("dec_1", []byte(`{"result":"ok","`+long+`":1}`))
	if at := faultsAt(err); len(at) > 210 || !strings.HasPrefix(at, "/aaa") {
		t.Errorf("a fault at %d bytes: %.100s", len(at), at)
	}
}
