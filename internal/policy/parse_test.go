package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"headway/internal/fleet"
	"headway/internal/strategy"
	"headway/internal/strict"

	"pgregory.net/rapid"
)

// mustFault wants the pointers among the faults of a YAML document.
func mustFault(t testing.TB, text string, pointers ...string) []strict.Fault {
	t.Helper()
	_, faults := Parse([]byte(text), "yaml")
	for _, p := range pointers {
		if !hasFault(faults, p) {
			t.Errorf("no fault at %q for\n%s\nbut %v", p, text, faults)
		}
	}
	return faults
}

func hasFault(faults []strict.Fault, pointer string) bool {
	return slices.ContainsFunc(faults, func(f strict.Fault) bool { return f.Pointer == pointer && f.Reason != "" })
}

func TestEveryFaultIsNamedWithItsPlace(t *testing.T) {
	const text = `default_strategy: least_lodaed
rules:
  - match: {model_type: "a b", regoin: eu}
    strategy: ""
    region_mode: perfer
  - strategy: 5
  - match: {}
    strategy: random
    parameters: {nonsense: 1}
regions:
  eu: {distances_ms: {us: -5, eu: 3, "a/b": 1, far: 2000000, no: x}}
  " ": {}
aliases: {a: b, b: c, d: d, e..f: g, h: ""}
caller_may: [strategy, strategy, labls]
strateges: {}
strategies: {randon: {}, random: {parameters: {n: 1}, extra: 1}}
`
	want := map[string]string{
		"/default_strategy":               `line 1: unknown strategy "least_lodaed"; did you mean "least_loaded"?`,
		"/rules/0/match/model_type":       "line 3: want at most 128 of the characters",
		"/rules/0/match/regoin":           `line 3: unknown field "regoin"; did you mean "region"? allowed are model_type, region`,
		"/rules/0/strategy":               "line 4: is required; allowed are ",
		"/rules/0/region_mode":            `line 5: unknown region mode "perfer"; did you mean "prefer"? allowed are prefer, require`,
		"/rules/1/match":                  "line 6: is required; {} matches every request",
		"/rules/1/strategy":               "line 6: want a string, not a number; put it in quotes",
		"/rules/2/parameters/nonsense":    `line 9: unknown parameter of random "nonsense"; there are none`,
		"/regions/eu/distances_ms/us":     "line 11: want a distance from 0 to 1000000 ms, not -5",
		"/regions/eu/distances_ms/eu":     "line 11: a region is 0 ms away from itself; leave it out",
		"/regions/eu/distances_ms/a~1b":   "line 11: want a name of 1 to 64 of the characters",
		"/regions/eu/distances_ms/far":    "line 11: want a distance from 0 to 1000000 ms, not 2e+06",
		"/regions/eu/distances_ms/no":     "line 11: want a number, not a string",
		"/regions/ ":                      "line 12: want a name of 1 to 64 of the characters",
		"/aliases/a":                      `line 13: "b" is an alias too, of "c"; name the model type itself`,
		"/aliases/d":                      "line 13: names itself; leave it out",
		"/aliases/e..f":                   `line 13: a model type must not contain ".."`,
		"/aliases/h":                      `line 13: want a name of 1 to 128 of the characters`,
		"/caller_may/1":                   `line 14: "strategy" is named twice`,
		"/caller_may/2":                   `line 14: unknown field "labls"; did you mean "labels"?`,
		"/strateges":                      `line 15: unknown field "strateges"; did you mean "strategies"?`,
		"/strategies/randon":              `line 16: unknown strategy "randon"; did you mean "random"?`,
		"/strategies/random/parameters/n": `line 16: unknown parameter of random "n"`,
		"/strategies/random/extra":        `line 16: unknown field "extra"; allowed are parameters`,
	}
	_, faults := Parse([]byte(text), "yaml")
	got := map[string]string{}
	for _, f := range faults {
		if got[f.Pointer] != "" {
			t.Errorf("two faults at %s", f.Pointer)
		}
		got[f.Pointer] = f.Text()
	}
	for pointer, reason := range want {
		if !strings.HasPrefix(got[pointer], reason) {
			t.Errorf("%s: %q; want %q…", pointer, got[pointer], reason)
		}
	}
	for pointer, reason := range got {
		if want[pointer] == "" {
			t.Errorf("unexpected fault at %s: %s", pointer, reason)
		}
	}
}

func TestBothFormatsAreReadStrictly(t *testing.T) {
	const valid = `"default_strategy":"random"`
	for _, c := range []struct {
		format, text, pointer, reason string
	}{
		{"json", `{`, "", "not JSON: line 1"},
		{"json", ``, "", "not JSON: line 1"},
		{"json", `null`, "", "want an object, not null"},
		{"json", `[]`, "", "want an object, not an array"},
		{"json", "{" + valid + "} {}", "", "more after the end"},
		{"json", "{" + valid + ",\n\"rules\":}", "", "not JSON: line 2"},
		{"json", "{" + valid + ",\"aliases\":{\"a\":\"\xff\"}}", "", "not JSON: line 1"},
		{"json", "{" + valid + "," + valid + "}", "/default_strategy", "given twice"},
		{"json", `{"Default_Strategy":"random"}`, "/Default_Strategy", "unknown field"},
		{"json", "{" + valid + `,"rules":null}`, "/rules", "want an array, not null"},
		{"json", "{" + valid + `,"rules":{}}`, "/rules", "want an array, not an object"},
		{"json", "{" + valid + `,"caller_may":"all"}`, "/caller_may", "want an array, not a string"},
		{"json", "{" + valid + `,"caller_may":[true]}`, "/caller_may/0", "want a string, not a boolean"},
		{"json", "{" + valid + `,"regions":{"eu":{"distances_ms":{"us":1e999}}}}`, "/regions/eu/distances_ms/us", "number"},
		{"json", "{" + valid + `,"regions":{"eu":{"distances_ms":{"us":1,"us":1}}}}`, "/regions/eu/distances_ms/us", "given twice"},
		{"yaml", " \n", "", "want an object, not an empty document"},
		{"yaml", `null`, "", "want an object, not null"},
		{"yaml", "a: [", "", "not YAML: line 1"},
		{"yaml", "{" + valid + "}\n---\n{}", "", "second document"},
		{"yaml", "default_strategy: random\ndefault_strategy: random", "/default_strategy", "line 2: is given twice"},
		{"yaml", "default_strategy: &x random", "/default_strategy", "anchors"},
		{"yaml", "default_strategy: random\naliases: {a: &x b, c: *x}", "/aliases/c", "line 2: anchors"},
		{"yaml", "default_strategy: !!str random", "/default_strategy", "tags"},
		{"yaml", "default_strategy: random\naliases: {<<: {a: b}}", "/aliases", "merge keys"},
		{"yaml", "default_strategy: random\naliases: {[a]: b}", "/aliases", "plain text"},
		{"yaml", "default_strategy: random\naliases: {a: 2024-01-01}", "/aliases/a", "put it in quotes"},
		{"yaml", "default_strategy: random\naliases: {a: 2024}", "/aliases/a", "want a string, not a number; put it in quotes"},
		{"yaml", "default_strategy: random\nregions: {eu: {distances_ms: {us: .inf}}}", "/regions/eu/distances_ms/us", "plain decimal number"},
		{"yaml", "default_strategy: random\nregions: {eu: {distances_ms: {us: .nan}}}", "/regions/eu/distances_ms/us", "plain decimal number"},
		{"yaml", "default_strategy: random\nregions: {eu: {distances_ms: {us: 010}}}", "/regions/eu/distances_ms/us", "plain decimal number"},
		{"yaml", "default_strategy: random\nregions: {eu: {distances_ms: {us: 0x10}}}", "/regions/eu/distances_ms/us", "plain decimal number"},
		{"toml", "", "", "allowed are json, yaml"},
	} {
		_, faults := Parse([]byte(c.text), c.format)
		if !slices.ContainsFunc(faults, func(f strict.Fault) bool {
			return f.Pointer == c.pointer && strings.Contains(f.Text(), c.reason)
		}) {
			t.Errorf("%s %q: %v; want %s: …%s…", c.format, c.text, faults, c.pointer, c.reason)
		}
	}
}

// Bounds of what is read of a document, which are the reader's.
const (
	maxDepth    = 32
	maxNameSize = 256
)

func TestADocumentIsBounded(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+5) + strings.Repeat("]", maxDepth+5)
	var many struct {
		rules, regions, aliases []string
	}
	for i := range maxRules + 1 {
		many.rules = append(many.rules, `{"match":{},"strategy":"random"}`)
		many.aliases = append(many.aliases, fmt.Sprintf(`"a%d":"b"`, i))
	}
	for i := range maxRegions {
		many.regions = append(many.regions, fmt.Sprintf(`"r%d":1`, i))
	}
	for _, c := range []struct{ text, pointer, reason string }{
		{strings.Repeat(" ", MaxBytes+1), "", "at most 1048576 are read"},
		{`"strategies":{"random":{"parameters":{"n":` + deep + `}}}`, "/strategies/random/parameters/n" + strings.Repeat("/0", maxDepth-4), "deeper than 32"},
		{`"rules":[` + strings.Join(many.rules, ",") + `]`, "/rules", "1001 rules; at most 1000"},
		{`"aliases":{` + strings.Join(many.aliases, ",") + `}`, "/aliases", "1001 aliases; at most 1000"},
		{`"regions":{"eu":{"distances_ms":{` + strings.Join(many.regions, ",") + `}}}`, "/regions", "201 different regions; at most 200"},
		{`"` + strings.Repeat("x", maxNameSize+1) + `":1`, strict.Clip("/" + strings.Repeat("x", maxNameSize+1)), "longer than 256 bytes"},
		{`"caller_may":[` + strings.Repeat("1,", 5000) + `1]`, "", "more faults that are not listed: 4002"},
	} {
		text := `{"default_strategy":"random",` + c.text + `}`
		for _, format := range []string{"json", "yaml"} {
			_, faults := Parse([]byte(text), format)
			if !slices.ContainsFunc(faults, func(f strict.Fault) bool {
				return f.Pointer == c.pointer && strings.Contains(f.Text(), c.reason)
			}) {
				t.Errorf("%s: %d faults, the first %v; want %s: …%s…", format, len(faults), faults[:min(3, len(faults))], c.pointer, c.reason)
			}
			for _, f := range faults {
				if len(f.Pointer)+len(f.Reason) > 1500 {
					t.Errorf("%s: a fault of %d bytes", format, len(f.Pointer)+len(f.Reason))
				}
			}
		}
	}
}

func TestCompileRefusesWhatOnlyGoCanHold(t *testing.T) {
	for _, doc := range []Document{
		{},
		{DefaultStrategy: "random", Regions: map[string]RegionDoc{"eu": {DistancesMs: map[string]float64{"us": math.NaN()}}}},
		{DefaultStrategy: "random", Regions: map[string]RegionDoc{"eu": {DistancesMs: map[string]float64{"inf": math.Inf(1)}}}},
		{DefaultStrategy: "random", Regions: map[string]RegionDoc{"\xff": {}}},
		{DefaultStrategy: "random", Strategies: map[string]StrategyDoc{"model_specific": {Parameters: map[string]any{"models": make(chan int)}}}},
	} {
		if p, faults := Compile(doc); p != nil || len(faults) == 0 || faults[0].Reason == "" {
			t.Errorf("%+v was taken", doc)
		}
	}
}

// drawDocument draws a document without faults.
func drawDocument(t *rapid.T) Document {
	model := rapid.StringMatching(`[A-Za-z0-9_:/@+-]{1,12}`)
	region := rapid.StringMatching(`[A-Za-z0-9._:-]{1,8}`)
	strategy := rapid.SampledFrom(usable())
	doc := Document{
		DefaultStrategy: strategy.Draw(t, "default"),
		CallerMay:       rapid.SliceOfNDistinct(rapid.SampledFrom(callerFields), 0, 5, rapid.ID).Draw(t, "caller_may"),
	}
	for range rapid.IntRange(0, 4).Draw(t, "rules") {
		name := strategy.Draw(t, "strategy")
		doc.Rules = append(doc.Rules, Rule{
			Match: Match{
				ModelType: rapid.OneOf(model, rapid.StringMatching(`[a-z*?]{0,6}`)).Draw(t, "model pattern"),
				Region:    rapid.StringMatching(`[a-z*?]{0,6}`).Draw(t, "region pattern"),
			},
			Strategy:   name,
			RegionMode: rapid.SampledFrom([]string{"", "prefer", "require"}).Draw(t, "mode"),
			Parameters: drawParameters(t, name),
		})
	}
	if names := rapid.SliceOfNDistinct(region, 0, 4, rapid.ID).Draw(t, "regions"); len(names) > 0 {
		doc.Regions = map[string]RegionDoc{}
		for _, name := range names {
			distances := rapid.MapOfN(region, rapid.Float64Range(0, maxDistanceMs), 0, 3).Draw(t, "distances")
			delete(distances, name)
			if len(distances) == 0 {
				distances = nil
			}
			doc.Regions[name] = RegionDoc{DistancesMs: distances}
		}
	}
	if names := rapid.SliceOfNDistinct(strategy, 0, 3, rapid.ID).Draw(t, "strategies"); len(names) > 0 {
		doc.Strategies = map[string]StrategyDoc{}
		for _, name := range names {
			doc.Strategies[name] = StrategyDoc{Parameters: drawParameters(t, name)}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "aliases") {
		if doc.Aliases == nil {
			doc.Aliases = map[string]string{}
		}
		doc.Aliases["alias-"+model.Draw(t, "alias")] = "model-" + model.Draw(t, "target")
	}
	return doc
}

// usable are the strategies that need no parameters.
func usable() []string {
	p, faults := Compile(Document{DefaultStrategy: "random"})
	if len(faults) > 0 {
		panic(faults)
	}
	return slices.Sorted(maps.Keys(p.byName))
}

func drawParameters(t *rapid.T, name string) map[string]any {
	var m map[string]any
	for _, p := range findSpec(name).Parameters {
		var v any
		switch {
		case !rapid.Bool().Draw(t, "give "+p.Name):
			continue
		case p.Kind == strategy.KindNumber:
			v = rapid.Float64Range(p.Min, p.Max).Draw(t, p.Name)
		case name == "model_specific" && p.Name == "models":
			models := []any{}
			for range rapid.IntRange(0, 3).Draw(t, "models") {
				to := rapid.SampledFrom([]string{"geo_preferred", "least_loaded", "random", "session_affinity"}).Draw(t, "to")
				rule := map[string]any{"match": rapid.StringMatching(`[a-z*?]{1,5}`).Draw(t, "match"), "strategy": to}
				if parameters := drawParameters(t, to); parameters != nil {
					rule["parameters"] = parameters
				}
				models = append(models, rule)
			}
			v = models
		default:
			continue
		}
		if m == nil {
			m = map[string]any{}
		}
		m[p.Name] = v
	}
	return m
}

func TestADocumentReadBackIsTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p, faults := Compile(drawDocument(rt))
		if len(faults) > 0 {
			// Strategies may refuse parameters that are sound one by one.
			rt.Skip(faults)
		}
		for _, format := range []string{"json", "yaml"} { // JSON is YAML
			back, faults := Parse(p.Canonical, format)
			if len(faults) > 0 {
				rt.Fatalf("%s of %s: %v", format, p.Canonical, faults)
			}
			if !bytes.Equal(back.Canonical, p.Canonical) {
				rt.Fatalf("%s: %s came back as %s", format, p.Canonical, back.Canonical)
			}
		}
	})
}

// damage puts one fault into a document read as plain JSON and returns where
// it must be found.
var damages = map[string]func(t *rapid.T, doc map[string]any) (pointer string){
	"unknown field": func(_ *rapid.T, doc map[string]any) string {
		doc["nonsense"] = 1
		return "/nonsense"
	},
	"no default": func(_ *rapid.T, doc map[string]any) string {
		delete(doc, "default_strategy")
		return "/default_strategy"
	},
	"caller may": func(_ *rapid.T, doc map[string]any) string {
		list, _ := doc["caller_may"].([]any)
		list = append(list, "nonsense")
		doc["caller_may"] = list
		return "/caller_may/" + strconv.Itoa(len(list)-1)
	},
	"rule": func(t *rapid.T, doc map[string]any) string {
		rules, _ := doc["rules"].([]any)
		rule := map[string]any{"match": map[string]any{}, "strategy": "random"}
		doc["rules"] = append(rules, rule)
		at := "/rules/" + strconv.Itoa(len(rules))
		switch rapid.IntRange(0, 8).Draw(t, "which") {
		case 0:
			rule["strategy"] = rapid.SampledFrom([]any{"nonsense", "", 5, nil, []any{}}).Draw(t, "v")
			return at + "/strategy"
		case 1:
			delete(rule, "strategy")
			return at + "/strategy"
		case 2:
			delete(rule, "match")
			return at + "/match"
		case 3:
			rule["match"] = map[string]any{"model_type": strings.Repeat("a", fleet.MaxModelTypeLength+1)}
			return at + "/match/model_type"
		case 4:
			rule["match"] = map[string]any{"region": rapid.SampledFrom([]any{"a b", "ü", "/", 1, nil}).Draw(t, "v")}
			return at + "/match/region"
		case 5:
			rule["region_mode"] = "nonsense"
			return at + "/region_mode"
		case 6:
			rule["parameters"] = map[string]any{"no~/pe": 1}
			return at + "/parameters/no~0~1pe"
		case 7:
			rule["nonsense"] = map[string]any{"deep": 1}
			return at + "/nonsense"
		}
		doc["rules"] = append(rules, "not a rule")
		return at
	},
	"region": func(t *rapid.T, doc map[string]any) string {
		regions, _ := doc["regions"].(map[string]any)
		if regions == nil {
			regions = map[string]any{}
			doc["regions"] = regions
		}
		distance := rapid.SampledFrom([]any{-1, 1e6 + 1, "5", nil, true}).Draw(t, "v")
		regions["damaged"] = map[string]any{"distances_ms": map[string]any{"x": distance}}
		return "/regions/damaged/distances_ms/x"
	},
	"alias": func(t *rapid.T, doc map[string]any) string {
		aliases, _ := doc["aliases"].(map[string]any)
		if aliases == nil {
			aliases = map[string]any{}
			doc["aliases"] = aliases
		}
		aliases["end"] = "model"
		aliases["damaged"] = rapid.SampledFrom([]any{"damaged", "end", "", "a..b", "a b", 7}).Draw(t, "v")
		return "/aliases/damaged"
	},
	"parameter": func(t *rapid.T, doc map[string]any) string {
		strategies, _ := doc["strategies"].(map[string]any)
		if strategies == nil {
			strategies = map[string]any{}
			doc["strategies"] = strategies
		}
		type number struct {
			strategy string
			strategy.Parameter
		}
		var numbers []number
		for _, s := range specs {
			for _, p := range s.Parameters {
				if p.Kind == strategy.KindNumber && (p.Min != 0 || p.Max != 0) {
					numbers = append(numbers, number{s.Name, p})
				}
			}
		}
		p := rapid.SampledFrom(numbers).Draw(t, "parameter")
		v := rapid.SampledFrom([]any{p.Max + 1, p.Min - 1, "x", nil, []any{}, map[string]any{}}).Draw(t, "v")
		strategies[p.strategy] = map[string]any{"parameters": map[string]any{p.Name: v}}
		return "/strategies/" + p.strategy + "/parameters/" + p.Name
	},
}

func TestEveryDamageIsFoundAtItsPlace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var doc map[string]any
		encoded, err := drawDocument(rt).encode()
		if err != nil {
			rt.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &doc); err != nil {
			rt.Fatal(err)
		}
		var pointers []string
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(damages))), 1, 4, rapid.ID).Draw(rt, "damages") {
			pointers = append(pointers, damages[name](rt, doc))
		}
		text, err := json.Marshal(doc)
		if err != nil {
			rt.Fatal(err)
		}
		for _, format := range []string{"json", "yaml"} {
			_, faults := Parse(text, format)
			for _, p := range pointers {
				if !hasFault(faults, p) {
					rt.Fatalf("%s of %s: no fault at %s but %v", format, text, p, faults)
				}
			}
		}
	})
}

func FuzzParsePolicyJSON(f *testing.F) { fuzzParsePolicy(f, "json") }

func FuzzParsePolicyYAML(f *testing.F) { fuzzParsePolicy(f, "yaml") }

// fuzzParsePolicy holds any input to what Parse promises: no panic, a fault or a
// policy, and a document that reads back the same.
func fuzzParsePolicy(f *testing.F, format string) {
	f.Fuzz(func(t *testing.T, data []byte) {
		p, faults := Parse(data, format)
		for _, fault := range faults {
			if fault.Reason == "" || fault.Pointer != "" && fault.Pointer[0] != '/' {
				t.Fatalf("a fault without a place or a reason: %+v", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		p.Plan("m", "r")
		back, faults := Parse(p.Canonical, "json")
		if len(faults) > 0 || !bytes.Equal(back.Canonical, p.Canonical) {
			t.Fatalf("%s came back as %v, %v", p.Canonical, back, faults)
		}
	})
}
