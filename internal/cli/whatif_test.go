package cli

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headway/api"
)

// loggedLines is a decision log of two heads.
func loggedLines(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	number := func(v float64) *float64 { return &v }
	output := int64(20)
	for i := range n {
		d := api.LoggedDecision{
			At: time.Now().Add(-time.Minute + time.Duration(i)*100*time.Millisecond), RegretMs: number(float64(i % 7)), DecisionID: "dec_1", ModelType: "m", Region: "us",
			Strategy: "least_loaded", Share: 1, InputTokens: int64(500 + i*7%900), Head: "a", Candidates: 2,
			Outcome: &api.LoggedOutcome{Result: "ok", TTFTMs: number(100), DurationMs: number(500), OutputTokens: &output},
		}
		for k, id := range []string{"a", "b"} {
			ahead := float64((i + k) * 37 % 1000)
			d.Heads = append(d.Heads, api.LoggedHead{
				ID: id, Region: "us", AheadTokens: ahead, UncachedTokens: float64(d.InputTokens), Slower: 1, PredictedMs: number(5 + 0.05*(ahead+float64(d.InputTokens))),
			})
		}
		line, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

// loggingService has a decision log.
func loggingService(t *testing.T, lines string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/decision-log":
			fmt.Fprint(w, lines)
		case "/api/v1/policy":
			w.Header().Set("ETag", `"1"`)
			fmt.Fprint(w, `{"default_strategy":"round_robin"}`)
		default:
			t.Errorf("%s %s: nothing may be changed", r.Method, r.URL.Path)
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnotherPolicyIsPlayed(t *testing.T) {
	url := loggingService(t, loggedLines(t, 200))
	file := filepath.Join(t.TempDir(), "next.yaml")
	writeFile(t, file, "default_strategy: adaptive\n")
	code, out, errs := forAWhile(t, "decisions", "what-if", "--server", url, "--policy", file, "--strategies", "random", "--json")
	var rows []whatIfRow
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != exitOK {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	noneObeyed(t, "json", out+errs)
	for i, want := range []string{"measured", "in force", file, "random"} {
		if r := rows[i]; r.Policy != want || r.Requests != 200 || r.MeanMs <= 0 || (r.Goodput == nil) != (want == "measured") {
			t.Errorf("line %d is %+v, want %s", i, r, want)
		}
	}
	has(t, errs, "the size of the KV cache is that of llama8b-h100")
	for ms, far := range map[string]bool{"5": true, "60": false, "400": true} { // about 50 are predicted
		of := loggingService(t, strings.ReplaceAll(loggedLines(t, 200), `"ttft_ms":100`, `"ttft_ms":`+ms))
		_, out, errs := forAWhile(t, "decisions", "what-if", "--server", of, "--strategies", "random")
		if strings.Contains(errs, "m: in force takes ") != far {
			t.Errorf("%s ms are measured: %s%s", ms, out, errs)
		}
	}
	_, out, errs = forAWhile(t, "decisions", "what-if", "--server", url, "--strategies", "random", "--profile", "qwen32b-h100x2")
	noneObeyed(t, "the table", out+errs)
	has(t, out, "MEAN TTFT", "measured", "in force", "random")
	for _, wrong := range []string{"", "--strategies none", "--strategies random --profile none", "--strategies random --last 0s"} {
		if code, out, errs := forAWhile(t, strings.Fields("decisions what-if --server "+url+" "+wrong)...); code != exitUsage {
			t.Errorf("%q: exit %d: %s%s", wrong, code, out, errs)
		}
	}
	little := loggingService(t, loggedLines(t, 3))
	if code, _, errs := forAWhile(t, "decisions", "what-if", "--server", little, "--strategies", "random"); code != exitUnavailable || !strings.Contains(errs, "too few") {
		t.Errorf("three requests: exit %d: %s", code, errs)
	}
}

func TestADrainIsRehearsed(t *testing.T) {
	figures := api.RehearsedFigures{Requests: 200, P50TTFTMs: new(80.), P95TTFTMs: new(120.), Goodput: 1, HitRate: new(0.4)}
	later := api.RehearsedFigures{Requests: 200, P50TTFTMs: new(110.), P95TTFTMs: new(400.), Goodput: 0.9, HitRate: new(0.5)}
	said := api.DrainRehearsal{Head: "a", Since: time.Now(), ModelTypes: []api.RehearsedPool{
		{ModelType: "m", HeadsLeft: 1, Before: figures, After: later, CarriesLoad: true, Assumed: []string{"the size of the KV cache is that of llama8b-h100"}},
		{ModelType: "n", Before: figures, After: api.RehearsedFigures{Requests: 200, Failed: 200}},
		{ModelType: "o", Before: api.RehearsedFigures{Requests: 200, Failed: 200}, After: api.RehearsedFigures{Requests: 200, Failed: 200}},
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.String() {
		case "POST /api/v1/heads/a/drain-rehearsal?last=10m0s":
			_ = json.NewEncoder(w).Encode(said)
		case "POST /api/v1/heads/c/drain-rehearsal?last=5m0s":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(api.Problem{Status: http.StatusConflict, Code: api.CodeTooFewRequests, Detail: "Too few."})
		default:
			t.Errorf("%s %s: nothing may be changed", r.Method, r.URL)
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	code, out, errs := forAWhile(t, "heads", "drain", "a", "--rehearse", "--server", s.URL, "--json")
	var got api.DrainRehearsal
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK || len(got.ModelTypes) != 3 || *got.ModelTypes[0].After.P95TTFTMs != 400 || strings.Count(out, "p50_ttft_ms") != 3 || strings.Contains(out, "ms\": null") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	_, out, errs = forAWhile(t, "heads", "drain", "a", "--rehearse", "--server", s.URL)
	has(t, out, "HEADS LEFT", "80 ms -> 110 ms", "120 ms -> 400 ms", "100.0% -> 90.0%", "40.0% -> 50.0%", "yes", "80 ms -> - ", "120 ms -> - ", "100.0% -> 0.0% ", "40.0% -> - ", "NO")
	has(t, errs, "only requests from ", " of the last 10m the log has no others", "m: the size of the KV cache is that of llama8b-h100", "n: without a no answers in the time looked at", "o: no answers in the time looked at")
	if strings.Contains(errs, "m: with") || strings.Contains(errs, "n: with a") {
		t.Errorf("answers are denied: %s", errs)
	}
	if code, _, errs := forAWhile(t, "heads", "drain", "c", "--rehearse", "--last", "5m", "--server", s.URL); code != exitConflict || !strings.Contains(errs, "Too few.") {
		t.Errorf("a head without requests: exit %d: %s", code, errs)
	}
	for _, wrong := range []string{"a b --rehearse", "a --last 5m", "a --rehearse --last 0s"} {
		if code, out, errs := forAWhile(t, strings.Fields("heads drain --server "+s.URL+" "+wrong)...); code != exitUsage {
			t.Errorf("%q: exit %d: %s%s", wrong, code, out, errs)
		}
	}
}

func TestTheLogIsReadFromFilesAndTheService(t *testing.T) {
	lines := loggedLines(t, 60)
	url := loggingService(t, lines)
	if code, out, errs := forAWhile(t, "decisions", "export", "--server", url); code != exitOK || out != lines {
		t.Errorf("exit %d: %d bytes of %d: %s", code, len(out), len(lines), errs)
	}
	file := filepath.Join(t.TempDir(), "log.jsonl")
	if code, out, errs := forAWhile(t, "decisions", "export", file, "--server", url); code != exitOK || out != "" || !strings.HasSuffix(errs, "wrote "+file+"\n") {
		t.Errorf("to a file: exit %d: %s%s", code, out, errs)
	}
	if code, out, errs := forAWhile(t, "decisions", "export", "-", "--server", url); code != exitOK || out != lines || strings.Contains(errs, "wrote") {
		t.Errorf("to -: exit %d: %d bytes of %d: %s", code, len(out), len(lines), errs)
	}
	if code, _, errs := forAWhile(t, "decisions", "export", file+".gz", "--server", url); code != exitUsage || !strings.Contains(errs, "is not compressed") {
		t.Errorf("to a file that ends in .gz: exit %d: %s", code, errs)
	}
	for args, noted := range map[string]bool{"--last 24h": true, "--last 59s": false} {
		if _, _, errs := forAWhile(t, append(strings.Fields("decisions export --server "+url), strings.Fields(args)...)...); strings.Contains(errs, "the log begins at ") != noted {
			t.Errorf("export %s of a log of a minute: %s", args, errs)
		}
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "decisions-20261101T000000.000000000Z.jsonl.gz"), packed(t, lines))
	if code, out, errs := forAWhile(t, "decisions", "export", "--dir", dir); code != exitOK || out != lines {
		t.Errorf("exit %d: %d bytes of %d: %s", code, len(out), len(lines), errs)
	}
	code, out, errs := forAWhile(t, "decisions", "worst", "--dir", dir, "-n", "3", "--json")
	var worst []worstDecision
	if err := json.Unmarshal([]byte(out), &worst); err != nil || code != exitOK || len(worst) != 3 || *worst[0].RegretMs != 6 || worst[0].Why == "" || worst[0].Best == "" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	has(t, errs, "the log begins at ", ": it has 1m of the last 1h\n")
	mixed := t.TempDir() // those of another model type are worse
	writeFile(t, filepath.Join(mixed, "decisions-20261101T000000.000000000Z.jsonl.gz"),
		packed(t, lines+strings.ReplaceAll(strings.ReplaceAll(lines, `"model_type":"m"`, `"model_type":"n \"m\""`), `"regret_ms":`, `"regret_ms":9`)))
	for model, want := range map[string]int{"m": 3, `n "m"`: 3, "n": 0} {
		var of []worstDecision
		_, out, errs := forAWhile(t, "decisions", "worst", "--dir", mixed, "-n", "3", "--json", "--model-type", model)
		if err := json.Unmarshal([]byte(out), &of); err != nil || len(of) != want || want > 0 && of[0].ModelType != model {
			t.Errorf("the worst of %q: %s%s", model, out, errs)
		}
	}
	code, out, errs = forAWhile(t, "decisions", "what-if", "--dir", dir, "--strategies", "random")
	if has(t, out, "least_loaded, as logged"); code != exitOK {
		t.Errorf("exit %d: %s", code, errs)
	}
	two := t.TempDir() // a third of the decisions are of adaptive
	writeFile(t, filepath.Join(two, "decisions-20261101T000000.000000000Z.jsonl.gz"),
		packed(t, strings.ReplaceAll(loggedLines(t, 60), `"least_loaded"`, `"adaptive"`)+loggedLines(t, 120)))
	if _, out, _ := forAWhile(t, "decisions", "what-if", "--dir", two, "--strategies", "random"); !strings.Contains(out, "least_loaded, as logged") {
		t.Errorf("two strategies decided, and of the one that did most is said\n%s", out)
	}
	for _, wrong := range []string{"worst -n 0", "worst --last 0s", "export --last -1s"} {
		if code, _, errs := forAWhile(t, strings.Fields("decisions "+wrong+" --dir "+dir)...); code != exitUsage {
			t.Errorf("%s: exit %d: %s", wrong, code, errs)
		}
	}
	whole := packed(t, lines)
	torn := filepath.Join(dir, "decisions-20261101T000000.000000000Z.jsonl.gz")
	writeFile(t, torn, whole[:len(whole)-100])
	writeFile(t, filepath.Join(dir, "decisions-20261102T000000.000000000Z.jsonl.gz"), whole)
	said := fmt.Sprintf("%s is damaged: of %d bytes from byte 0 on", torn, len(whole)-100)
	for _, args := range []string{"export", "worst", "what-if --strategies random"} {
		code, out, errs := forAWhile(t, strings.Fields("decisions "+args+" --dir "+dir)...)
		if code != exitOK || strings.Count(errs, said) != 1 || args == "export" && !strings.HasSuffix(out, lines) {
			t.Errorf("%s of a damaged file and a whole one: exit %d: %s", args, code, errs)
		}
	}
	if code, _, errs := forAWhile(t, "decisions", "worst", "--dir", dir+"/none"); code != exitNotFound {
		t.Errorf("a directory that is not there: exit %d: %s", code, errs)
	}
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil || z.Close() != nil {
		t.Fatal("gzip failed")
	}
	return b.String()
}
