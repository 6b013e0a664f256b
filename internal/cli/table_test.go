package cli

import (
	"fmt"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"

	"headway/api"
)

// Columns stand below each other where the terminal shows a character on two
// cells, or on none.
func TestColumnsStandBelowEachOther(t *testing.T) {
	table := &table{columns: []string{"ID", "REGION", "NOTE"}}
	table.add("a", "eu-west", "x")
	table.add("日本語", "e\u0301u", "y")
	table.add("only the first", "", "")
	var page strings.Builder
	if err := table.write(&page, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(page.String(), "\n")
	if want := "only the first"; lines[3] != want {
		t.Errorf("%q; want %q", lines[3], want)
	}
	for i, note := range []string{"NOTE", "x", "y"} {
		before, _, found := strings.Cut(lines[i], note)
		if at := lipgloss.Width(before); !found || at != 6+2+7+2 {
			t.Errorf("%q has its last column at %d", lines[i], at)
		}
	}
}

// An explanation of any names fits a terminal of 120 columns, and nothing of it
// is left out.
func TestAnExplanationFitsThePage(t *testing.T) {
	for _, name := range []string{"gpu-7", strings.Repeat("very-long-name-", 8), strings.Repeat("日本", 30)} {
		e := &api.Explanation{Rule: "rule 3: model_type llama-* and region eu-*", Formula: strings.Repeat("(load + 1) / (capacity * weight) ", 8), Region: name, RegionMode: "prefer"}
		for i := range 12 {
			load := float64(i)
			c := api.Candidate{Head: fmt.Sprintf("%s%d", name, i), Region: name, Cost: &load}
			for _, signal := range []string{"in_flight", "queued", "capacity", "weight", "kv_cache_usage", "pending_prompt_tokens", "tokens_per_second"} {
				c.Signals = append(c.Signals, api.Signal{Name: signal, Value: load * 1234.5, AgeMs: 1500})
			}
			if i%3 == 0 {
				c.Filter, c.Cost = "region_mode "+name, nil
			}
			e.Candidates = append(e.Candidates, c)
		}
		var page strings.Builder
		printDecision(&page, &api.Decision{
			Head: api.DecisionHead{ID: name, Endpoint: "http://" + name + ":8000", Region: name}, Reason: strings.Repeat("least_loaded: cost 0.1, ", 9), Strategy: "least_loaded",
			Alternatives: []api.DecisionHead{{ID: name + "1"}, {ID: name + "2"}}, Explanation: e,
		})
		for line := range strings.Lines(page.String()) {
			if n := lipgloss.Width(strings.TrimSuffix(line, "\n")); n > 120 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		dense := strings.NewReplacer(" ", "", "\n", "").Replace(page.String())
		for _, want := range []string{"pending_prompt_tokens=1.358e+04(1500msold)", "(load+1)/(capacity*weight)"} {
			if len(name) < 10 && !strings.Contains(dense, want) {
				t.Errorf("no %q in\n%s", want, page.String())
			}
		}
	}
}

func TestTextIsWrapped(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 5, ""},
		{"short", 5, "short"},
		{"two words", 5, "two|words"},
		{"two words", 3, "two|wor|ds"},
		{"a  b", 2, "a|b"},
		{"日本語", 4, "日本|語"},
		{"abcdef", 2, "ab|cd|ef"},
	} {
		if got := strings.Join(wrap(c.text, c.width), "|"); got != c.want {
			t.Errorf("wrap(%q, %d) = %q; want %q", c.text, c.width, got, c.want)
		}
	}
}
