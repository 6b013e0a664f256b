// Command generate writes the files that come from the table of alerts and from
// the code of the dashboards. Run it at the root of the repository:
//
//	go run ./internal/mixin/generate
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"headway/internal/mixin"
)

func main() {
	files, err := generate()
	if err == nil {
		err = write(".", files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate returns the files by their paths.
func generate() (map[string][]byte, error) {
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
	files["internal/console/pages/runbooks.html"], err = mixin.RunbookPage(groups)
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

// runbookURL is where the runbook of an alert is, or with "" all of them.
func runbookURL(alert string) string {
	if alert == "" {
		return mixin.RunbookBase
	}
	a := mixin.Alert{Name: alert}
	return a.RunbookURL()
}
