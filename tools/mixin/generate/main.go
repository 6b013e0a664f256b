// Command generate writes the files that come from the table of alerts and from
// the code of the dashboards. Run it at the root of the repository:
//
//	go run ./tools/mixin/generate
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"headway/tools/mixin"
)

func main() {
	files, err := generate(".")
	if err == nil {
		err = write(".", files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate returns the files by path. root has the guide, whose tables are
// filled in.
func generate(root string) (map[string][]byte, error) {
	files, err := dashboards()
	if err != nil {
		return nil, err
	}
	groups := mixin.Groups()
	if files["prometheus/rules/routing-service.rules.yml"], err = mixin.RuleFile(groups); err != nil {
		return nil, err
	}
	tests, err := mixin.TestFiles(groups, "../rules/routing-service.rules.yml")
	if err != nil {
		return nil, err
	}
	for name, content := range tests {
		files["prometheus/tests/"+name] = content
	}
	files["docs/runbooks.md"] = mixin.Runbooks(groups)
	if files["internal/console/pages/runbooks.html"], err = mixin.RunbookPage(groups); err != nil {
		return nil, err
	}
	if err := kubernetes(files); err != nil {
		return nil, err
	}
	files[guide], err = fillGuide(root, groups)
	return files, err
}

func write(root string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // files of the repository
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // files of the repository
			return err
		}
	}
	return nil
}

// runbookURL is the address of an alert's runbook, or with "" of the page.
func runbookURL(alert string) string {
	if alert == "" {
		return mixin.RunbookBase
	}
	a := mixin.Alert{Name: alert}
	return a.RunbookURL()
}

const guide = "docs/monitoring.md"

// fillGuide puts the tables of panels and alerts into the monitoring guide.
func fillGuide(root string, groups []mixin.Group) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, guide))
	if err != nil {
		return nil, err
	}
	for name, table := range map[string]string{"panels": panelTable(), "alerts": mixin.AlertTable(groups)} {
		begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->\n"
		before, rest, found := strings.Cut(string(text), begin)
		_, after, ended := strings.Cut(rest, end)
		if !found || !ended {
			return nil, fmt.Errorf("%s has no place for the table of %s", guide, name)
		}
		text = []byte(before + begin + table + end + after)
	}
	return text, nil
}

func panelTable() string {
	var b strings.Builder
	for _, d := range boards() {
		fmt.Fprintf(&b, "\n### %s: `grafana/dashboards/%s.json`\n\n| panel | what it shows | metrics |\n|---|---|---|\n", d.Title, d.UID)
		for _, s := range d.Sections {
			for i := range s.panels {
				p := &s.panels[i]
				var metrics []string
				for _, name := range p.metrics() {
					metrics = append(metrics, "`"+name+"`")
				}
				fmt.Fprintf(&b, "| %s | %s | %s |\n", p.Title, p.About, strings.Join(metrics, ", "))
			}
		}
	}
	return b.String() + "\n"
}
