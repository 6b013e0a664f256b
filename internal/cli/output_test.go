package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"headway/api"
	"headway/client"
)

// Text that a terminal would obey: CSI in one byte and in two, a change of the
// direction, a line, a tag.
const obeyed = "a\u009b31mb\x1b[1mc\u202ed\ne\U000e0041f \u65e5\u672c"

const obeyedShown = `a\u009b31mb\u001b[1mc\u202ed\u000ae\udb40\udc41f 日本`

func TestATerminalObeysNoName(t *testing.T) {
	heads := []api.Head{{ID: obeyed, Labels: map[string]string{obeyed: obeyed}}}
	for _, format := range formats {
		var page strings.Builder
		if err := write(&page, format, heads, headTable(heads)); err != nil {
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
	(&call{w: &page}).differences([]api.Difference{{Pointer: obeyed, Before: json.RawMessage(`"` + "\u009b" + `"`)}})
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

func TestTextOfSeveralLinesKeepsThem(t *testing.T) {
	for in, want := range map[string]string{
		"plain":            "plain",
		"a\nb\x1bc":        "a\nb" + `\u001bc`,
		"a\x9bb":           "a\ufffdb",
		"ok \u00e9 \u65e5": "ok é 日",
	} {
		if got := seenLines(in); got != want {
			t.Errorf("%q is shown as %q; want %q", in, got, want)
		}
	}
}
