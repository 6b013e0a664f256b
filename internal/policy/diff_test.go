package policy_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/policy"
)

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, faults := policy.Parse([]byte(text), "json")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func TestMergePatch(t *testing.T) {
	const before = `{"default_strategy":"least_loaded","rules":[{"match":{},"strategy":"random"}],"aliases":{"a":"m","b":"n"},"caller_may":["explain"]}`
	for _, c := range []struct{ name, patch, want string }{
		{"nothing", `{}`, before},
		{"a value", `{"default_strategy":"random"}`, strings.Replace(before, "least_loaded", "random", 1)},
		{"a member of an object", `{"aliases":{"b":"m"}}`, strings.Replace(before, `"n"`, `"m"`, 1)},
		{"null takes away", `{"aliases":{"a":null},"rules":null}`, `{"default_strategy":"least_loaded","aliases":{"b":"n"},"caller_may":["explain"]}`},
		{"null for what is not there", `{"regions":null}`, before},
		{"a list is replaced", `{"caller_may":["strategy"]}`, strings.Replace(before, "explain", "strategy", 1)},
	} {
		merged, faults := parse(t, before).Merge([]byte(c.patch))
		if len(faults) > 0 || !bytes.Equal(merged.Canonical, parse(t, c.want).Canonical) {
			t.Errorf("%s: %+v, %v; want %s", c.name, merged, faults, c.want)
		}
	}
	for patch, reason := range map[string]string{
		`{"default_strategy":"rondom"}`: "did you mean \"random\"?",
		`{"default_strategy":null}`:     "is required",
		`{"colour":1}`:                  "unknown field",
		`null`:                          "not null",
		`[]`:                            "want a JSON object",
		`{"aliases":{},"aliases":{}}`:   "given twice",
		`{`:                             "not valid JSON",
		`{"x":"` + strings.Repeat("y", policy.MaxBytes) + `"}`: "at most",
	} {
		_, faults := parse(t, before).Merge([]byte(patch))
		if len(faults) == 0 || !strings.Contains(faults[0].Reason, reason) {
			t.Errorf("%.40s: %v; want %q", patch, faults, reason)
		}
	}
}

// The differences of two documents make the second of the first.
func TestDifferencesMakeTheSecondOfTheFirst(t *testing.T) {
	strategies := []string{"random", "least_loaded", "round_robin"}
	draw := rapid.Custom(func(rt *rapid.T) *policy.Policy {
		d := policy.Default().Document
		d.DefaultStrategy = rapid.SampledFrom(strategies).Draw(rt, "default")
		d.Aliases = rapid.MapOf(rapid.StringMatching(`[ab/]{1,2}`), rapid.SampledFrom([]string{"m", "n"})).Draw(rt, "aliases")
		for range rapid.IntRange(0, 3).Draw(rt, "rules") {
			d.Rules = append(d.Rules, policy.Rule{Strategy: rapid.SampledFrom(strategies).Draw(rt, "rule")})
		}
		p, faults := policy.Compile(d)
		if len(faults) > 0 {
			rt.Skip(faults)
		}
		return p
	})
	rapid.Check(t, func(rt *rapid.T) {
		a, b := draw.Draw(rt, "a"), draw.Draw(rt, "b")
		differences, err := policy.Differences(a, b)
		if err != nil {
			rt.Fatal(err)
		}
		if same := bytes.Equal(a.Canonical, b.Canonical); same != (len(differences) == 0) {
			rt.Fatalf("equal: %v, differences %v", same, differences)
		}
		var tree, want any
		_ = json.Unmarshal(a.Canonical, &tree)
		_ = json.Unmarshal(b.Canonical, &want)
		for _, d := range slices.Backward(differences) { // ends of lists first
			var value any
			if d.After != nil {
				if err := json.Unmarshal(d.After, &value); err != nil {
					rt.Fatal(err)
				}
			}
			tree = put(tree, strings.Split(d.Pointer, "/")[1:], value, d.After == nil)
		}
		got, _ := json.Marshal(tree)
		wanted, _ := json.Marshal(want)
		if string(got) != string(wanted) {
			rt.Fatalf("%s and %v make %s, want %s", a.Canonical, differences, got, wanted)
		}
	})
}

// put sets or removes the value at a pointer of differences.
func put(tree any, path []string, value any, remove bool) any {
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	switch node := tree.(type) {
	case map[string]any:
		switch {
		case len(path) > 1:
			node[name] = put(node[name], path[1:], value, remove)
		case remove:
			delete(node, name)
		default:
			node[name] = value
		}
		return node
	case []any:
		i := int(name[0] - '0')
		switch {
		case len(path) > 1:
			node[i] = put(node[i], path[1:], value, remove)
		case remove:
			node = slices.Delete(node, i, i+1)
		case i < len(node):
			node[i] = value
		default:
			// They come from the end, so that the first is the farthest.
			node = append(node, make([]any, i+1-len(node))...)
			node[i] = value
		}
		return node
	}
	return value
}
