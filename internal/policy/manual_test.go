package policy

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"headway/internal/strategy"
)

const policyManual = "../../docs/policy.md"

var updateManual = flag.Bool("update", false, "write the list of strategies into the manual")

// blocks returns the fenced blocks of the manual in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(policyManual)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, part := range strings.Split(string(text), "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		all = append(all, block)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no %s", policyManual, language)
	}
	return all
}

func TestEveryExampleInTheManualIsAPolicyWithoutWarnings(t *testing.T) {
	for _, format := range []string{"yaml", "json"} {
		for _, text := range blocks(t, format) {
			p, faults := Parse([]byte(text), format)
			if len(faults) > 0 || len(p.Warnings) > 0 {
				t.Errorf("%s\n%v, warnings %v", text, faults, p.Warnings)
			}
		}
	}
}

func TestTheFaultsInTheManualAreThoseOfItsExample(t *testing.T) {
	text := blocks(t, "yaml-with-faults")[0]
	_, faults := Parse([]byte(text), "yaml")
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "%s: %s\n", f.Pointer, f.Text())
	}
	if got, want := strings.TrimSpace(b.String()), blocks(t, "text")[0]; got != want {
		t.Errorf("the example\n%s\nhas the faults\n%s", text, got)
	}
}

// The list of the manual is made of the specs, so that it cannot differ from
// what the program does.
func TestTheManualListsEveryStrategy(t *testing.T) {
	const begin, end = "<!-- strategies: begin -->\n", "<!-- strategies: end -->\n"
	manual, err := os.ReadFile(policyManual)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(manual), begin)
	old, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no list between %q and %q", policyManual, begin, end)
	}
	list := strategyList()
	if old == list {
		return
	}
	if !*updateManual {
		t.Fatalf("the list in %s is out of date; run: go test ./internal/policy -run TheManual -update", policyManual)
	}
	if err := os.WriteFile(policyManual, []byte(before+begin+list+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

func strategyList() string {
	var b strings.Builder
	b.WriteString("| strategy | what it takes |\n|---|---|\n")
	for _, s := range specs {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", s.Name, s.Name, cell(s.Summary))
	}
	for _, s := range specs {
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n\n`%s`\n\n%s\n\n", s.Name, s.Summary, s.Formula, s.Use)
		if s.AcrossRegions {
			b.WriteString("It weighs heads of all regions against each other, unless the region mode is `require`.\n\n")
		}
		if len(s.Parameters) == 0 {
			b.WriteString("It has no parameters.\n")
			continue
		}
		b.WriteString("| parameter | default | allowed | meaning |\n|---|---|---|---|\n")
		for _, p := range s.Parameters {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Name, defaultOf(p), cell(p.Allowed()), cell(p.Summary))
		}
	}
	return b.String()
}

func defaultOf(p strategy.Parameter) string {
	switch v := p.Default.(type) {
	case float64:
		return strings.TrimSpace(strconv.FormatFloat(v, 'f', -1, 64) + " " + p.Unit)
	case string:
		return "`" + v + "`"
	}
	return "(none)"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
