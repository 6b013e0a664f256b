package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"headway/internal/config"
)

var update = flag.Bool("update", false, "write the table of settings into the manual")

// The table of the manual is made of the settings, so that it cannot differ
// from what the program does.
func TestTheManualListsEverySetting(t *testing.T) {
	const file, begin, end = "../../docs/configuration.md", "<!-- settings: begin -->\n", "<!-- settings: end -->\n"
	manual, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(manual), begin)
	old, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	table := settingsTable()
	if old == table {
		return
	}
	if !*update {
		t.Fatalf("the table in %s is out of date; run: go test ./internal/config -run TheManual -update", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

func settingsTable() string {
	var b strings.Builder
	section := "-"
	for _, s := range config.Settings() {
		name, _, nested := strings.Cut(s.Key, ".")
		if !nested {
			name = ""
		}
		if name != section {
			section = name
			title := "`" + name + "`"
			if name == "" {
				title = "At the top"
			}
			fmt.Fprintf(&b, "\n### %s\n\n| key, flag, variable | default | allowed | meaning |\n|---|---|---|---|\n", title)
		}
		value := "(none)"
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s`<br>`--%s`<br>`%s` | %s | %s | %s |\n", s.Key, s.Flag, s.Env, value, s.Allowed, s.Description)
	}
	return b.String() + "\n"
}

func TestTheExampleInTheManualLoads(t *testing.T) {
	manual, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(manual), "```yaml\n")[1:]
	for _, block := range blocks {
		example, _, _ := strings.Cut(block, "```")
		mustLoad(t, example, nil)
	}
	if len(blocks) == 0 {
		t.Error("there is no example")
	}
}
