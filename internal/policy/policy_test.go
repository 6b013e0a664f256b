package policy

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"headway/internal/fleet"
	"headway/internal/strategy"
	"headway/internal/strict"

	"pgregory.net/rapid"
)

// compilePolicy compiles a document written in YAML that has no fault.
func compilePolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, faults := Parse([]byte(text), "yaml")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func TestTheDefaultPolicy(t *testing.T) {
	p := Default()
	got := p.Plan("any-model", "any-region")
	if got.Spec.Name != "adaptive" || got.Rule != RuleDefault || got.RegionMode != strategy.RegionPrefer || got.Strategy == nil {
		t.Errorf("plan %+v", got)
	}
	for _, field := range callerFields {
		if !p.CallerMay(field) {
			t.Errorf("callers may not choose %s", field)
		}
	}
	const want = `{"default_strategy":"adaptive","caller_may":["strategy","region_mode","exclude","labels","explain","region","session","priority"]}`
	if string(p.Canonical) != want {
		t.Errorf("encoded as %s; want %s", p.Canonical, want)
	}
}

func TestTheFirstRuleThatMatchesWins(t *testing.T) {
	p := compilePolicy(t, `
default_strategy: round_robin
rules:
  - {match: {model_type: "llama-*", region: eu-*}, strategy: random, region_mode: require}
  - {match: {model_type: llama-8b}, strategy: power_of_two}
  - {match: {region: "?*"}, strategy: least_loaded}
`)
	for _, c := range []struct {
		model, region, strategy string
		rule                    int
		mode                    strategy.RegionMode
	}{
		{"llama-8b", "eu-west", "random", 0, strategy.RegionRequire},
		{"llama-70b", "eu-west", "random", 0, strategy.RegionRequire},
		{"llama-8b", "us", "power_of_two", 1, strategy.RegionPrefer},
		{"llama-8b", "", "power_of_two", 1, strategy.RegionPrefer},
		{"llama-70b", "us", "least_loaded", 2, strategy.RegionPrefer},
		{"qwen", "us", "least_loaded", 2, strategy.RegionPrefer},
		{"qwen", "", "round_robin", RuleDefault, strategy.RegionPrefer},
		{"llama-70b", "", "round_robin", RuleDefault, strategy.RegionPrefer},
	} {
		got := p.Plan(c.model, c.region)
		if got.Spec.Name != c.strategy || got.Rule != c.rule || got.RegionMode != c.mode {
			t.Errorf("%s in %q: %s by rule %d, %v; want %s by rule %d, %v",
				c.model, c.region, got.Spec.Name, got.Rule, got.RegionMode, c.strategy, c.rule, c.mode)
		}
	}
}

func drawText(t *rapid.T, alphabet, label string, most int) string {
	return string(rapid.SliceOfN(rapid.SampledFrom([]rune(alphabet)), 0, most).Draw(t, label))
}

func TestThePlanIsThatOfAPlainSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := Document{DefaultStrategy: "random"}
		for range rapid.IntRange(0, 12).Draw(t, "rules") {
			doc.Rules = append(doc.Rules, Rule{Strategy: "random", Match: Match{
				ModelType: drawText(t, "ab*?", "model", 3), Region: drawText(t, "ab*", "region", 2),
			}})
		}
		p, faults := Compile(doc)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		model, region := drawText(t, "ab", "model", 3), drawText(t, "ab", "region", 2)
		want := slices.IndexFunc(doc.Rules, func(r Rule) bool {
			return (r.Match.ModelType == "" || strict.NewGlob(r.Match.ModelType).Match(model)) &&
				(r.Match.Region == "" || strict.NewGlob(r.Match.Region).Match(region))
		})
		if got := p.Plan(model, region).Rule; got != want {
			t.Fatalf("%q in %q: rule %d; want %d of %+v", model, region, got, want, doc.Rules)
		}
	})
}

func TestDistancesHoldBothWaysUnlessBothAreGiven(t *testing.T) {
	p := compilePolicy(t, `
default_strategy: random
regions:
  eu: {distances_ms: {us: 80, asia: 160.5}}
  us: {distances_ms: {eu: 90}}
`)
	for _, c := range []struct {
		from, to string
		want     float64
	}{
		{"eu", "us", 80},
		{"us", "eu", 90},
		{"eu", "asia", 160.5},
		{"asia", "eu", 160.5},
		{"eu", "eu", 0},
		{"mars", "mars", 0},
		{"us", "asia", math.NaN()},
		{"eu", "mars", math.NaN()},
		{"mars", "eu", math.NaN()},
	} {
		if got := p.Distance(c.from, c.to); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%s to %s: %v ms; want %v", c.from, c.to, got, c.want)
		}
	}
}

func TestAPolicyKnowsTheNamesInIt(t *testing.T) {
	p := compilePolicy(t, `
default_strategy: random
rules:
  - {match: {model_type: llama, region: us}, strategy: random}
  - {match: {model_type: qwen-*, region: eu-*}, strategy: random}
  - {match: {region: eu-*}, strategy: model_specific, parameters: {models: [{match: phi, strategy: random}, {match: mistral-*, strategy: random}]}}
strategies:
  model_specific: {parameters: {models: [{match: gemma, strategy: random}]}}
regions:
  asia: {distances_ms: {mars: 1e6}}
aliases: {gpt: ghost}
caller_may: [explain]
`)
	for name, want := range map[string]bool{"llama": true, "gpt": true, "ghost": true, "phi": true, "gemma": true, "mistral-*": false, "qwen-*": false, "qwen-1": false, "": false} {
		if p.NamesModel(name) != want {
			t.Errorf("names model %q: %v", name, !want)
		}
	}
	for name, want := range map[string]bool{"us": true, "asia": true, "mars": true, "eu-*": false, "eu-1": false, "": false} {
		if got := p.Region(name); (got == name && name != "") != want {
			t.Errorf("region %q is %q", name, got)
		}
	}
	if p.Model("gpt") != "ghost" || p.Model("other") != "other" {
		t.Errorf("gpt is %q, other is %q", p.Model("gpt"), p.Model("other"))
	}
	if !p.CallerMay("explain") || p.CallerMay("strategy") {
		t.Error("callers may choose strategy and not explain; want the opposite")
	}
}

func TestAStrategyByNameHasThePolicysParameters(t *testing.T) {
	var given strategy.Values
	withSpec(t, strategy.Spec{
		Name: "zz_probe",
		Parameters: []strategy.Parameter{
			{Name: "a", Kind: strategy.KindNumber, Default: 1.0, Max: 10},
			{Name: "b", Kind: strategy.KindNumber, Default: 2.0, Max: 10},
			{Name: "c", Kind: strategy.KindString, Default: "x"},
			{Name: "list", Kind: strategy.KindList},
		},
		New: func(v strategy.Values, _ strategy.Build) (strategy.Strategy, []strict.Fault) {
			given = maps.Clone(v)
			return &probe{v}, nil
		},
	})
	p := compilePolicy(t, `
default_strategy: zz_probe
strategies: {zz_probe: {parameters: {b: 5}}}
rules:
  - {match: {region: eu}, strategy: zz_probe}
  - {match: {region: us}, strategy: zz_probe, parameters: {a: 3, c: "y"}}
`)
	if want := (strategy.Values{"a": 3.0, "b": 5.0, "c": "y"}); !reflect.DeepEqual(given, want) {
		t.Errorf("the rule's strategy was made from %v; want %v", given, want)
	}
	s, ok := p.Named("zz_probe")
	if !ok || s.Spec.Name != "zz_probe" || !reflect.DeepEqual(s.Strategy, &probe{strategy.Values{"a": 1.0, "b": 5.0, "c": "x"}}) {
		t.Errorf("by name: %+v, %v", s, ok)
	}
	if p.Plan("m", "eu").Strategy != s.Strategy || p.Plan("m", "").Strategy != s.Strategy || p.Plan("m", "us").Strategy == s.Strategy {
		t.Error("a rule without parameters of its own must share the strategy, one with must not")
	}
	if _, ok := p.Named("nonsense"); ok {
		t.Error("there is a strategy nonsense")
	}
}

func TestAStrategyThatNeedsParametersIsRefusedWithoutThem(t *testing.T) {
	withSpec(t, strategy.Spec{
		Name: "zz_needs", Parameters: []strategy.Parameter{{Name: "list", Kind: strategy.KindList}},
		New: func(v strategy.Values, _ strategy.Build) (strategy.Strategy, []strict.Fault) {
			if v.List("list") == nil {
				return nil, []strict.Fault{{Pointer: "/list", Reason: "is required"}}
			}
			return &probe{v}, nil
		},
	})
	p := compilePolicy(t, "default_strategy: random")
	if _, ok := p.Named("zz_needs"); ok {
		t.Error("it is there")
	}
	mustFault(t, "default_strategy: zz_needs", "/strategies/zz_needs/parameters/list")
	mustFault(t, "default_strategy: random\nrules: [{match: {}, strategy: zz_needs}]", "/rules/0/parameters/list")
	p = compilePolicy(t, "default_strategy: zz_needs\nstrategies: {zz_needs: {parameters: {list: []}}}")
	if _, ok := p.Named("zz_needs"); !ok {
		t.Error("it is not to be had although the policy gives what it needs")
	}
}

func TestStrategiesDelegateButNeverToThemselves(t *testing.T) {
	withSpec(t, strategy.Spec{
		Name: "zz_delegates", Parameters: []strategy.Parameter{{Name: "to", Kind: strategy.KindString, Default: "random"}, {Name: "n", Kind: strategy.KindNumber, Default: 1.0, Max: 5}},
		New: func(v strategy.Values, build strategy.Build) (strategy.Strategy, []strict.Fault) {
			s, faults := build(v.Text("to"), nil)
			for i := range faults {
				faults[i].Pointer = "/to" + faults[i].Pointer
			}
			return s, faults
		},
	})
	p := compilePolicy(t, "default_strategy: zz_delegates")
	random, _ := p.Named("random")
	if p.Plan("m", "").Strategy != random.Strategy {
		t.Error("the delegate is not the strategy of that name")
	}
	for _, to := range []string{"zz_delegates", "nonsense"} {
		mustFault(t, "default_strategy: zz_delegates\nstrategies: {zz_delegates: {parameters: {to: "+to+"}}}",
			"/strategies/zz_delegates/parameters/to")
		mustFault(t, "default_strategy: random\nrules: [{match: {}, strategy: zz_delegates, parameters: {to: "+to+"}}]",
			"/rules/0/parameters/to")
	}
}

func TestOneDocumentMakesABoundedNumberOfStrategies(t *testing.T) {
	withSpec(t, strategy.Spec{
		Name: "zz_many", Parameters: []strategy.Parameter{{Name: "list", Kind: strategy.KindList}, {Name: "n", Kind: strategy.KindNumber, Default: 1.0, Max: 5}},
		New: func(v strategy.Values, build strategy.Build) (strategy.Strategy, []strict.Fault) {
			var faults []strict.Fault
			for range v.List("list") {
				_, f := build("zz_one", map[string]any{"n": 2.0})
				faults = append(faults, f...)
			}
			return &probe{v}, faults[:min(1, len(faults))]
		},
	})
	withSpec(t, strategy.Spec{
		Name: "zz_one", Parameters: []strategy.Parameter{{Name: "n", Kind: strategy.KindNumber, Default: 1.0, Max: 5}},
		New: func(v strategy.Values, _ strategy.Build) (strategy.Strategy, []strict.Fault) { return &probe{v}, nil },
	})
	doc := Document{
		DefaultStrategy: "random",
		Strategies:      map[string]StrategyDoc{"zz_many": {Parameters: map[string]any{"list": make([]any, 1000)}}},
	}
	for range 20 {
		doc.Rules = append(doc.Rules, Rule{Strategy: "zz_many", Parameters: map[string]any{"n": 3.0}})
	}
	_, faults := Compile(doc)
	if len(faults) == 0 || !strings.Contains(faults[0].Reason, "more than 10000 strategies") {
		t.Errorf("faults %v", faults)
	}
}

// probe is a strategy that remembers what it was made from.
type probe struct{ values strategy.Values }

func (*probe) Choose(*strategy.Input, []strategy.Pick) int { return 0 }
func (*probe) Score(*strategy.Input, []float64)            {}

// withSpec adds a strategy for one test. Its name comes after all others.
func withSpec(t *testing.T, s strategy.Spec) {
	t.Helper()
	before := specs
	specs = append(slices.Clone(specs), s)
	t.Cleanup(func() { specs = before })
}

func TestRulesThatNeverMatchAreWarnedOf(t *testing.T) {
	p := compilePolicy(t, `
default_strategy: random
aliases: {gpt: llama-8b}
rules:
  - {match: {model_type: llama-*}, strategy: random}
  - {match: {model_type: llama-8b, region: eu}, strategy: random}
  - {match: {model_type: gpt}, strategy: random}
  - {match: {region: us}, strategy: random}
  - {match: {}, strategy: random}
  - {match: {region: asia}, strategy: random}
`)
	var got []string
	for _, w := range p.Warnings {
		got = append(got, w.Pointer)
	}
	want := []string{"/rules/1", "/rules/2/match/model_type", "/rules/5"}
	if !slices.Equal(got, want) {
		t.Errorf("warnings at %v; want %v", p.Warnings, want)
	}
	if q := compilePolicy(t, "default_strategy: random\nrules: [{match: {}, strategy: random}]"); q.Warnings != nil {
		t.Errorf("warned of %v", q.Warnings)
	}
}

func TestAPolicyKeepsNothingOfItsDocument(t *testing.T) {
	doc := Document{
		DefaultStrategy: "random", CallerMay: []string{"strategy"},
		Rules:      []Rule{{Strategy: "random", Match: Match{Region: "us"}}},
		Regions:    map[string]RegionDoc{"us": {DistancesMs: map[string]float64{"eu": 80}}},
		Strategies: map[string]StrategyDoc{"random": {}},
		Aliases:    map[string]string{"a": "b"},
	}
	p, faults := Compile(doc)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	doc.CallerMay[0] = "x"
	doc.Rules[0].Strategy = "x"
	doc.Regions["us"].DistancesMs["eu"] = 1
	doc.Regions["x"] = RegionDoc{}
	doc.Strategies["x"] = StrategyDoc{}
	doc.Aliases["a"] = "x"
	after, err := p.Document.encode()
	if err != nil || !bytes.Equal(p.Canonical, after) || p.Model("a") != "b" {
		t.Errorf("the policy changed with the document: %s, %v", after, err)
	}
}

func TestLookingUpAPlanAllocatesNothing(t *testing.T) {
	p := policyOfRules(t, maxRules)
	if n := testing.AllocsPerRun(100, func() {
		p.Plan("model-999", "us")
		p.Plan("unknown", "us")
		p.Named("random")
		p.Distance("us", "eu")
		p.CallerMay("strategy")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// policyOfRules has n rules, each for a model of its own, and patterns among
// them.
func policyOfRules(t testing.TB, n int) *Policy {
	t.Helper()
	doc := Document{DefaultStrategy: "random"}
	for i := range n {
		model := fmt.Sprintf("model-%d", i)
		if i%10 == 0 {
			model = fmt.Sprintf("*-%d-*", i)
		}
		doc.Rules = append(doc.Rules, Rule{Strategy: "random", Match: Match{ModelType: model}})
	}
	p, faults := Compile(doc)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func BenchmarkPlan(b *testing.B) {
	p := policyOfRules(b, maxRules)
	for _, model := range []string{"model-999", "unknown-model-type"} {
		b.Run(model, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Plan(model, "us")
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	doc := policyOfRules(b, maxRules).Document
	for b.Loop() {
		Compile(doc)
	}
}

// A policy can name each region and model type that a head can register with.
func TestAPolicyNamesWhatHeadsRegister(t *testing.T) {
	spec := fleet.Spec{ID: "h", Endpoint: "http://h:1", ModelTypes: []string{"m" + fleet.Punctuation(fleet.ModelTypeCharacters)}, Region: "r" + fleet.Punctuation(fleet.NameCharacters)}
	if err := fleet.ValidateSpec(&spec, false); err != nil {
		t.Fatal(err)
	}
	d := Default().Document
	d.Aliases = map[string]string{"usual": spec.ModelTypes[0]}
	d.Regions = map[string]RegionDoc{spec.Region: {DistancesMs: map[string]float64{"other": 1}}}
	d.Rules = []Rule{{Match: Match{ModelType: spec.ModelTypes[0], Region: spec.Region}, Strategy: d.DefaultStrategy}}
	if _, faults := Compile(d); len(faults) > 0 {
		t.Error(faults)
	}
}

func TestRulesThatMatchNoRequestAreFound(t *testing.T) {
	p := compilePolicy(t, `
default_strategy: random
rules:
- {match: {model_type: "llama*"}, strategy: round_robin}
- {match: {region: eu-west}, strategy: round_robin}
- {match: {model_type: qwen, region: eu-west}, strategy: round_robin}
- {match: {model_type: "*"}, strategy: round_robin}
`)
	for _, c := range []struct {
		model   string
		regions []string
		want    []string
	}{
		{"simulated", nil, []string{"/rules/0", "/rules/1", "/rules/2"}},
		{"llama-8b", []string{"us", "eu-west"}, []string{"/rules/2"}},
		{"qwen", []string{"us"}, []string{"/rules/0", "/rules/1", "/rules/2"}},
		{"qwen", []string{"eu-west"}, []string{"/rules/0"}},
	} {
		if got := p.Unmatched(c.model, c.regions); !slices.Equal(got, c.want) {
			t.Errorf("requests for %s from %q do not match %q, want %q", c.model, c.regions, got, c.want)
		}
	}
}
