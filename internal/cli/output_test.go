package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"go.yaml.in/yaml/v3"

	"headway/api"
	"headway/client"
	"headway/internal/terminal"
)

// Text that a terminal would obey: CSI in one byte and in two, a change of the
// direction, a line, a tag.
const obeyed = "a\u009b31mb\x1b[1mc\u202ed\ne\U000e0041f \u65e5\u672c"

const obeyedShown = `a\u009b31mb\u001b[1mc\u202ed\u000ae\udb40\udc41f 日本`

func TestATerminalObeysNoName(t *testing.T) {
	heads := []api.Head{{ID: obeyed, Labels: map[string]string{obeyed: obeyed}}}
	for _, format := range terminal.Formats {
		var page strings.Builder
		if err := terminal.Write(&page, format, heads, headTable(heads)); err != nil {
			t.Fatal(err)
		}
		noneObeyed(t, format, page.String())
		if format == "table" {
			has(t, page.String(), obeyedShown)
			continue
		}
		var read []api.Head
		switch format {
		case "json":
			if err := json.Unmarshal([]byte(page.String()), &read); err != nil {
				t.Fatal(err)
			}
		case "yaml":
			var list []struct {
				ID     string
				Labels map[string]string
			}
			if err := yaml.Unmarshal([]byte(page.String()), &list); err != nil {
				t.Fatal(err)
			}
			for _, l := range list {
				read = append(read, api.Head{ID: l.ID, Labels: l.Labels})
			}
		default:
			continue
		}
		if len(read) != 1 || read[0].ID != obeyed || read[0].Labels[obeyed] != obeyed {
			t.Errorf("%s is read as %+v", format, read)
		}
	}

	var page strings.Builder
	printDecision(&page, &api.Decision{
		Head: api.DecisionHead{ID: obeyed, Endpoint: obeyed, Region: obeyed}, Reason: obeyed, Strategy: obeyed,
		Alternatives: []api.DecisionHead{{ID: obeyed}},
		Explanation:  &api.Explanation{Rule: obeyed, Formula: obeyed, Region: obeyed, RegionMode: obeyed, Candidates: []api.Candidate{{Head: obeyed}}},
	})
	for _, show := range []func(n client.Notice) error{
		func(n client.Notice) error { return showNotice(&page, n) },
		func(n client.Notice) error { return showNoticeJSON(&page, n) },
	} {
		if err := show(client.Notice{Event: &api.Event{Type: "head.status", Head: obeyed, Region: obeyed, ModelTypes: []string{obeyed}, Time: time.Now()}}); err != nil {
			t.Fatal(err)
		}
	}
	_ = (&call{w: &page}).differences([]api.Difference{{Pointer: obeyed, Before: json.RawMessage(`"` + "\u009b" + `"`)}})
	noneObeyed(t, "text", page.String())

	code, _, errs := here(t, "heads", obeyed)
	if code != exitUsage {
		t.Errorf("exit %d", code)
	}
	noneObeyed(t, "an error", errs)
}

func noneObeyed(t *testing.T, what, page string) {
	t.Helper()
	for _, bad := range []string{"\u009b", "\x1b", "\u202e", "\U000e0041"} {
		if strings.Contains(page, bad) {
			t.Errorf("%s has %q:\n%q", what, bad, page)
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

// A key without a limit of its own is not shown as one that allows nothing.
func TestAKeyWithoutALimitOfItsOwn(t *testing.T) {
	var page strings.Builder
	keys := []api.Key{{ID: "a", KeyLimits: api.KeyLimits{TokensPerMinute: -1}}, {ID: "b", KeyLimits: api.KeyLimits{RequestsPerMinute: 60, TokensPerMinute: 1000}}}
	if err := terminal.Write(&page, "wide", keys, keyTable(keys)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{" - none 1 ", " 60 1000 1 "} {
		if row := strings.Join(strings.Fields(strings.Split(page.String(), "\n")[i+1]), " ") + " "; !strings.Contains(row, want) {
			t.Errorf("%q has no %q", row, want)
		}
	}
}
