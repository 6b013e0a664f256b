package apiv1

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/prefix"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// maxDepth is how deeply a body may nest.
const maxDepth = 32

// depth is how deeply valid JSON nests.
func depth(body []byte) int {
	deepest := 0
	d := jsontext.NewDecoder(strings.NewReader(string(body)))
	for {
		if _, err := d.ReadToken(); err != nil {
			return deepest
		}
		deepest = max(deepest, d.StackDepth())
	}
}

// read reads a body and checks what holds for all of them: it is
// refused as a whole if and only if it is no JSON object or nests too deeply,
// and what is said of it is bounded. ok is true for a body without a fault.
func read(t *testing.T, body []byte, field func(r *strict.Reader, name string) bool) (ok bool) {
	t.Helper()
	copied := slices.Clone(body)
	faults, err := strict.ReadObject(body, MaxFaults, field)
	if !slices.Equal(copied, body) {
		t.Fatalf("the body was changed to %q", body)
	}
	value := jsontext.Value(body)
	object := value.IsValid() && value.Kind() == '{' && depth(body) <= maxDepth
	if (err == nil) != object {
		t.Fatalf("error %v; want one: %t", err, !object)
	}
	if err != nil {
		if faults != nil {
			t.Fatalf("faults %v beside error %v", faults, err)
		}
		p := ProblemOf(err)
		if p.Code != api.CodeInvalidJSON || !utf8.ValidString(p.Detail) || len(p.Detail) > 300 {
			t.Fatalf("%+v", p)
		}
		return false
	}
	if len(faults) > MaxFaults+1 {
		t.Fatalf("%d faults", len(faults))
	}
	for _, f := range faults {
		if f.Reason == "" || len(f.Reason) > 300 || len(f.Pointer) > 300 || !utf8.ValidString(f.Pointer) {
			t.Fatalf("fault %+v", f)
		}
	}
	return len(faults) == 0
}

// strictly decodes a body with the library alone, into the public type; ok is
// false when it refuses what we take: numbers such as 12.0 or 1e3 for
// whole ones, and everything that has a rule beyond its type.
func strictly[T any](body []byte) (v T, ok bool) {
	err := json.Unmarshal(body, &v, json.RejectUnknownMembers(true))
	return v, err == nil
}

func within(t *testing.T, name string, v *int64, least, most int64) {
	t.Helper()
	if v != nil && (*v < least || *v > most) {
		t.Fatalf("%s is %d", name, *v)
	}
}

func between(t *testing.T, name string, v *float64, least, most float64) {
	t.Helper()
	if v != nil && !(*v >= least && *v <= most) {
		t.Fatalf("%s is %g", name, *v)
	}
}

func same(t *testing.T, name string, got, want any) {
	t.Helper()
	if g, w := reflect.ValueOf(got), reflect.ValueOf(want); (g.Kind() == reflect.Slice || g.Kind() == reflect.Map) && g.Len() == 0 && w.Len() == 0 {
		return // absent and empty mean the same
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s is %v; the library says %v", name, got, want)
	}
}

// given is nil for the value that stands for none.
func given[T comparable](v, none T) *T {
	if v == none {
		return nil
	}
	return &v
}

// value is what a pointer points to, nil for a nil pointer.
func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func FuzzRegistration(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		var in registration
		if !read(t, body, in.field) {
			return
		}
		weight := given(in.spec.Weight, 0)
		between(t, "weight", weight, fleet.MinWeight, fleet.MaxWeight)
		within(t, "max_in_flight", &in.spec.MaxInFlight, 0, fleet.HighestMaxInFlight)
		wrong := in.complete()
		err := fleet.ValidateSpec(&in.spec, false)
		if len(wrong) > 0 || err != nil {
			return
		}
		v, ok := strictly[api.Registration](body)
		if !ok {
			return
		}
		if v.ModelType != "" {
			v.ModelTypes = []string{v.ModelType}
		}
		same(t, "id", in.spec.ID, v.ID)
		same(t, "model_types", in.spec.ModelTypes, v.ModelTypes)
		same(t, "region", in.spec.Region, v.Region)
		same(t, "zone", in.spec.Zone, v.Zone)
		same(t, "version", in.spec.Version, v.Version)
		same(t, "engine", in.spec.Engine, v.Engine)
		same(t, "weight", value(weight), value(v.Weight))
		if v.Capacity != nil {
			same(t, "max_in_flight", in.spec.MaxInFlight, v.Capacity.MaxInFlight)
		}
		if (in.first != nil) != (v.Status != "") || in.first != nil && in.first.Status.String() != v.Status {
			t.Fatalf("first report %+v; want status %q", in.first, v.Status)
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		in := report{load: fleet.UnknownLoad()}
		if !read(t, body, in.field) {
			return
		}
		within(t, "epoch", given(in.epoch, 0), 1, strict.MaxExact)
		within(t, "sequence", given(in.sequence, 0), 1, strict.MaxExact)
		within(t, "in_flight", known(in.load.InFlight), 0, fleet.MaxCount)
		within(t, "queued", known(in.load.Queued), 0, fleet.MaxCount)
		within(t, "pending_prompt_tokens", known(in.load.PendingPromptTokens), 0, fleet.MaxTokens)
		within(t, "kv_capacity_tokens", known(in.load.KVCapacityTokens), 0, fleet.MaxTokens)
		between(t, "kv_cache_usage", Number(in.load.KVCacheUsage), 0, 1)
		between(t, "utilization", Number(in.load.Utilization), 0, 1)
		between(t, "tokens_per_second", Number(in.load.TokensPerSecond), 0, fleet.MaxCount)
		v, ok := strictly[api.StatusReport](body)
		if !ok {
			return
		}
		if in.epoch != 0 {
			same(t, "epoch", uint64(in.epoch), v.Epoch)
		}
		if in.status != fleet.StatusUnknown {
			same(t, "status", in.status.String(), v.Status)
		}
		if v.Load == nil {
			v.Load = new(api.Load)
		}
		same(t, "in_flight", value(known(in.load.InFlight)), value(v.Load.InFlight))
		same(t, "queued", value(known(in.load.Queued)), value(v.Load.Queued))
		same(t, "pending_prompt_tokens", value(known(in.load.PendingPromptTokens)), value(v.Load.PendingPromptTokens))
		same(t, "kv_cache_usage", value(Number(in.load.KVCacheUsage)), value(v.Load.KVCacheUsage))
		same(t, "kv_capacity_tokens", value(known(in.load.KVCapacityTokens)), value(v.Load.KVCapacityTokens))
		same(t, "utilization", value(Number(in.load.Utilization)), value(v.Load.Utilization))
		same(t, "tokens_per_second", value(Number(in.load.TokensPerSecond)), value(v.Load.TokensPerSecond))
	})
}

func FuzzPatch(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		var in patch
		if !read(t, body, in.field) {
			return
		}
		if in.Weight != nil && *in.Weight != 0 {
			between(t, "weight", in.Weight, fleet.MinWeight, fleet.MaxWeight)
		}
		v, ok := strictly[api.HeadPatch](body)
		if !ok {
			return
		}
		if v.Weight != nil {
			same(t, "weight", value(in.Weight), *v.Weight)
		}
		if in.State != nil {
			same(t, "admin_state", in.State.String(), value(v.AdminState))
		}
	})
}

func FuzzOutcome(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		in := newOutcome("id")
		if !read(t, body, in.field) {
			return
		}
		if in.Result > routing.ResultCancelled {
			t.Fatalf("result %v can be reported", in.Result)
		}
		within(t, "status_code", known(in.StatusCode), 100, 599)
		for name, n := range map[string]*int64{"input_tokens": known(in.InputTokens), "output_tokens": known(in.OutputTokens), "cached_tokens": known(in.CachedTokens)} {
			within(t, name, n, 0, maxTokens)
		}
		between(t, "ttft_ms", given(in.TTFT, -1), 0, maxDurationMs)
		between(t, "duration_ms", given(in.Duration, -1), 0, maxDurationMs)
		if v, ok := strictly[api.Outcome](body); ok {
			same(t, "status_code", value(known(in.StatusCode)), value(v.StatusCode))
			same(t, "ttft_ms", value(given(in.TTFT, -1)), value(v.TTFTMs))
			same(t, "duration_ms", value(given(in.Duration, -1)), value(v.DurationMs))
			same(t, "input_tokens", value(known(in.InputTokens)), value(v.InputTokens))
			same(t, "output_tokens", value(known(in.OutputTokens)), value(v.OutputTokens))
			same(t, "cached_tokens", value(known(in.CachedTokens)), value(v.CachedTokens))
		}
	})
}

// copied is a request that owns its memory.
func copied(r strategy.Request) strategy.Request {
	r.PrefixHashes = append([]uint64{}, r.PrefixHashes...)
	r.Exclude = append([]string{}, r.Exclude...)
	return r
}

// FuzzDecision compares the two readers of a decision request: what the fast
// one takes, the strict one takes without a fault, and it means the same.
func FuzzDecision(f *testing.F) {
	verbs := newDesk(f)
	f.Add([]byte(`{"model_type":"m","exclude":["a"]}`))
	f.Add([]byte(`{"model_type":"m","session_id":"s","turn":3,"expected_return_ms":1500}`))
	f.Add([]byte(`{"model_type":"m","labels":{},"session_id":"\u0073","turn":3e0,"expected_return_ms":0.25}`))
	f.Add([]byte(`{"model_type":"m","prompt":"` + strings.Repeat(`a\u00e9\ud83d\ude00\n`, 100) + `"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if answer, err := verbs.Decide(nil, body, nil); err == nil && !jsontext.Value(answer).IsValid() {
			t.Fatalf("the answer is %q without an error", answer)
		}
		var d work
		fast := d.scan(body)
		scanned := copied(d.req)
		faults, err := d.decode(body)
		decoded := copied(d.req)
		if fast {
			if err != nil || len(faults) > 0 || !reflect.DeepEqual(scanned, decoded) {
				t.Fatalf("scanned as %+v, decoded as %+v, %v, %v", scanned, decoded, faults, err)
			}
		}
		// Nothing of one request is left for the next.
		if !d.scan([]byte(`{"model_type":"m"}`)) || !reflect.DeepEqual(copied(d.req), copied(strategy.Request{ModelType: "m"})) {
			t.Fatalf("the next request is %+v", d.req)
		}

		var again work
		ok := read(t, body, func(r *strict.Reader, name string) bool { return again.field(r, name) })
		if ok != (err == nil && len(faults) == 0) {
			t.Fatalf("read again: %t, before %v, %v", ok, faults, err)
		}
		v, decodes := strictly[api.DecisionRequest](body)
		if !ok || !decodes {
			return
		}
		same(t, "model_type", decoded.ModelType, v.ModelType)
		same(t, "region", decoded.Region, v.Region)
		same(t, "strategy", decoded.Strategy, v.Strategy)
		same(t, "session_key", decoded.SessionKey, v.SessionKey)
		same(t, "session_id", decoded.SessionID, v.SessionID)
		if v.Turn != 0 {
			same(t, "turn", decoded.Turn, v.Turn)
		}
		if r := v.ExpectedReturnMs; r != nil && (decoded.Returns < 1 || math.Abs(float64(decoded.Returns)-*r*1e6) > 1) || r == nil && decoded.Returns != 0 {
			t.Fatalf("expected_return_ms is %v", decoded.Returns)
		}
		same(t, "explain", decoded.Explain, v.Explain)
		same(t, "exclude", decoded.Exclude, v.Exclude)
		if len(v.PrefixHashes) > 0 {
			same(t, "prefix_hashes", len(decoded.PrefixHashes), len(v.PrefixHashes))
		} else {
			var c prefix.Chain
			_, _ = c.Write([]byte(v.Prompt))
			same(t, "hashes of the prompt", decoded.PrefixHashes, c.Hashes)
			same(t, "bytes of the prompt", decoded.PromptBytes, c.Bytes())
		}
		tokens := int64(math.Ceil(float64(len(v.Prompt)) / bytesPerToken))
		if v.InputTokens != nil {
			tokens = *v.InputTokens
		}
		same(t, "input_tokens", decoded.InputTokens, tokens)
	})
}
