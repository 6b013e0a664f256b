package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"headway/internal/engine"
	"headway/internal/sim"
)

// simulated runs 'headway simulate' on a few requests.
func simulated(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return here(t, append([]string{"simulate", "--trace", "sample:", "--requests", "300"}, args...)...)
}

func TestSimulateComparesStrategies(t *testing.T) {
	code, out, errs := simulated(t, "--strategies", "round_robin,adaptive", "--rate", "4,6", "--scenario", "death", "--scenario", "speeds=1:2")
	if code != exitOK || errs != "" {
		t.Fatalf("exit %d, said %q", code, errs)
	}
	has(t, out, "sample:, 8 heads qwen32b-h100x2, seed 1\n", "scenario: death, speeds=1:2\n")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 7 || !strings.HasPrefix(lines[2], "LOAD  RATE/S  STRATEGY     TTFT MEAN  × BEST") {
		t.Fatalf("printed\n%s", out)
	}
	for i, want := range []string{"4.000   adaptive ", "4.000   round_robin ", "6.000   adaptive ", "6.000   round_robin "} {
		if !strings.Contains(lines[3+i], want) {
			t.Errorf("line %q, want %s", lines[3+i], want)
		}
	}
	if !strings.Contains(lines[3], " 1.00 ") || strings.Contains(lines[4], " 1.00 ") {
		t.Errorf("ratios to the best in\n%s", out)
	}
}

// The names of the fields are part of the interface.
func TestSimulateWritesJSON(t *testing.T) {
	code, out, errs := simulated(t, "--strategies", "round_robin", "--load", "0.5", "--carried", "--json")
	if code != exitOK || errs != "" {
		t.Fatalf("exit %d, said %q", code, errs)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trace", "profile", "heads", "seed", "saturation_rate", "results", "carried"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("no %s in %s", name, out)
		}
	}
	results, _ := fields["results"].([]any)
	result, _ := results[0].(map[string]any)
	for _, name := range []string{"strategy", "load", "rate", "requests", "ttft_ms", "goodput", "hit_rate", "imbalance", "session_seconds"} {
		if _, ok := result[name]; !ok {
			t.Errorf("no %s in %s", name, out)
		}
	}
	has(t, out, "load 1.0 is of 300 requests in ")
	rate, _ := result["rate"].(float64)
	if load1, _ := fields["saturation_rate"].(float64); rate <= 0 || load1 != 2*rate {
		t.Errorf("load 0.5 is %v, load 1 %v", rate, load1)
	}
	_, out, _ = simulated(t, "--strategies", "round_robin", "--rate", "3", "--json")
	has(t, out, `"saturation_rate": null`, `"load": null`, `"rate": 3,`)
}

func TestSimulateTakesPoliciesAndTraces(t *testing.T) {
	dir := t.TempDir()
	policy, trace := filepath.Join(dir, "mine.yaml"), filepath.Join(dir, "trace.csv")
	if err := os.WriteFile(policy, []byte("default_strategy: session_affinity\nstrategies: {session_affinity: {parameters: {bound: 2}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := "TIMESTAMP,ContextTokens,GeneratedTokens\n" + strings.Repeat("2024-05-10 00:00:00,100,10\n2024-05-10 00:00:09,0,10\n2024-05-10 00:00:05,900000,10\n", 20)
	if err := os.WriteFile(trace, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := here(t, "simulate", "--trace", trace, "--policy", policy, "--rate", "3")
	if code != exitOK || !strings.HasSuffix(errs, ": 20 rows without a prompt are left out\n") {
		t.Fatalf("exit %d, said %q", code, errs)
	}
	if last := strings.Fields(out[strings.LastIndex(strings.TrimSpace(out), "\n"):]); last[2] != policy || last[len(last)-1] != "20" {
		t.Errorf("want %s with the 20 that no head holds failed:\n%s", policy, out)
	}
}

// Rules of policies match the model type of the requests: the one that is named, else
// that of the log.
func TestSimulateAppliesRulesOfAModelType(t *testing.T) {
	dir := t.TempDir()
	policy, trace := filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "log.jsonl")
	writeFile(t, policy, "default_strategy: random\naliases: {other: fast}\nrules: [{match: {model_type: fast}, strategy: round_robin}, {match: {model_type: m, region: eu}, strategy: random}]\n")
	writeFile(t, trace, strings.ReplaceAll(loggedLines(t, 60), `"decision_id":"dec_1"`, `"decision_id":""`))
	result := func(args ...string) (r sim.Report) {
		t.Helper()
		code, out, errs := here(t, append([]string{"simulate", "--rate", "6", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK {
			t.Fatalf("exit %d, said %q, %v", code, errs, err)
		}
		return r
	}
	sample := []string{"--trace", "sample:", "--requests", "300"}
	want := result(append(sample, "--strategies", "round_robin")...).Results[0].TTFT
	none := result(append(sample, "--policy", policy)...)
	if none.ModelType != "simulated" || none.Results[0].TTFT == want || len(none.Notes) != 1 ||
		none.Notes[0] != policy+": no request is matched by /rules/0, /rules/1: their model type is simulated, and they name no region" {
		t.Errorf("model type %s, notes %q", none.ModelType, none.Notes)
	}
	for _, name := range []string{"fast", "other"} {
		of := result(append(sample, "--policy", policy, "--model-type", name)...)
		if of.ModelType != name || of.Results[0].TTFT != want || len(of.Notes) != 1 || !strings.Contains(of.Notes[0], "matched by /rules/1: their model type is fast,") {
			t.Errorf("model type %s, %+v, notes %q", of.ModelType, of.Results, of.Notes)
		}
	}
	if of := result("--trace", trace, "--policy", policy, "--scenario", "region-loss"); of.ModelType != "m" || !strings.HasSuffix(of.Notes[0], "their model type is m, and their regions are here and there") {
		t.Errorf("model type %s, notes %q", of.ModelType, of.Notes)
	}
	if code, out, errs := here(t, "simulate", "--trace", trace, "--policy", policy, "--rate", "6"); code != exitOK || !strings.Contains(errs, trace+": "+policy+": no request is matched by") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestSimulateNamesSlips(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte(`{"timestamp":1,"input_length":"x","output_length":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"":                                     {exitUsage, "--trace is missing"},
		"--trace agent:":                       {exitUsage, `did you mean "agents"?`},
		"--trace agents:turn=3":                {exitUsage, `did you mean "turns"?`},
		"--trace /no/such/file":                {exitNotFound, "no such file"},
		"--trace " + bad:                       {exitError, "line 1: "},
		"--trace sample: --scenario brownot":   {exitUsage, `did you mean "brownout"?`},
		"--trace sample: --scenario death=x":   {exitUsage, "--scenario: scenario death"},
		"--trace sample: --strategies adaptiv": {exitUsage, `did you mean "adaptive"?`},
		"--trace sample: --strategies=":        {exitUsage, "--strategies: want at least one"},
		"--trace sample: --profile qwen":       {exitUsage, "allowed are llama8b-h100, qwen32b-h100x2"},
		"--trace sample: --model-type a=b":     {exitUsage, `--model-type "a=b": want`},
		"--trace sample: --heads 0":            {exitUsage, "--heads 0: want 1 to 1000"},
		"--trace sample: --routers 101":        {exitUsage, "--routers 101: want"},
		"--trace sample: --rounds 0":           {exitUsage, "--rounds 0: want"},
		"--trace sample: --requests 1":         {exitUsage, "--requests 1: want"},
		"--trace sample: --load 0.5 --rate 3":  {exitUsage, "--load and --rate: want one"},
		"--trace sample: --load 0":             {exitUsage, "--load, --rate: want numbers from 0.001 to 1e+06"},
		"--trace sample: --load +Inf":          {exitUsage, "--load, --rate: want numbers"},
		"--trace sample: --rate -1":            {exitUsage, "--load, --rate: want numbers"},
		"--trace sample: --rate 1e-9":          {exitUsage, "--load, --rate: want numbers"},
		"--trace sample: --rate NaN":           {exitUsage, "--load, --rate: want numbers"},
		"--trace sample: --loss 0.1":           {exitUsage, "--loss: without --window"},
		"--trace sample: --loss 2 --window 1s": {exitUsage, "--loss 2: want 0 to 1"},
		"--trace sample: --window -1s":         {exitUsage, "--window -1s: want"},
		"--trace sample: --window 1ns":         {exitUsage, "--window 1ns: want at least 1ms"},
		"--trace sample: --plot no/such/a.svg": {exitUsage, "--plot no/such/a.svg: there is no directory no/such"},

		"--trace sample: --scenario death=8": {exitUsage, "--scenario: scenario death=8: too few heads: want more than 8"},
		"--trace sample: --plot a.jpg":       {exitUsage, "--plot a.jpg: want a name that ends in .svg or .png, or a directory"},
		"--trace sample: --policy /no/such":  {exitNotFound, "no such file"},
	} {
		code, out, errs := here(t, append([]string{"simulate"}, strings.Fields(args)...)...)
		if code != want.code || out != "" || !strings.Contains(errs, want.said) {
			t.Errorf("simulate %s: exit %d, said %q; want exit %d, %s", args, code, errs, want.code, want.said)
		}
	}
}

func TestSimulateWritesPlots(t *testing.T) {
	dir := t.TempDir()
	for name, begins := range map[string]string{"all.svg": "<svg ", "all.png": "\x89PNG"} {
		code, _, errs := simulated(t, "--rate", "3,5", "--plot", filepath.Join(dir, name))
		text, err := os.ReadFile(filepath.Join(dir, name))
		if code != exitOK || err != nil || !strings.HasPrefix(string(text), begins) {
			t.Errorf("%s: exit %d, said %q, %v, begins %.10q", name, code, errs, err, text)
		}
	}
	if code, _, errs := simulated(t, "--rate", "3", "--plot", filepath.Join(dir, "each")); code != exitOK {
		t.Fatalf("exit %d, said %q", code, errs)
	}
	for _, name := range []string{"ttft", "goodput", "hits", "imbalance", "sessions"} {
		text, err := os.ReadFile(filepath.Join(dir, "each", name+".svg"))
		if err != nil || !strings.Contains(string(text), ">least_loaded<") {
			t.Errorf("%s: %v, %.50q", name, err, text)
		}
	}
}

// A run that is interrupted shows what had ended.
func TestSimulateThatIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := Run(ctx, testBuild, []string{"simulate", "--trace", "sample:", "--rate", "3", "--json"}, &out, &errs)
	if code != exitError || !strings.Contains(errs.String(), "interrupted: what is shown is what had ended") {
		t.Errorf("exit %d, said %q", code, errs.String())
	}
	has(t, out.String(), `"interrupted": true`, `"results": []`)
}

func TestSimulateHelpNamesAllThereIs(t *testing.T) {
	_, out, _ := here(t, "simulate", "--help")
	for _, p := range engine.Profiles() {
		has(t, out, p.Name)
	}
	has(t, out, sim.Scenarios()...)
	page, err := os.ReadFile("../../docs/command-line.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sim.ScenarioNames() {
		has(t, string(page), "`"+name+"`")
	}
	_, out, _ = here(t, "__complete", "simulate", "--scenario", "")
	if words := strings.Fields(out); !slices.Contains(words, "region-loss") {
		t.Errorf("completes %q", out)
	}
}
