package routing_test

import (
	"os"
	"path/filepath"
	"testing"

	"headway/internal/scenario"
	"headway/internal/strategy"
)

// TestScenarios runs the scripts that specify each strategy, and the life of a
// head.
func TestScenarios(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.scenario")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			script, err := scenario.Parse(path, file)
			if err != nil {
				t.Fatal(err)
			}
			if err := scenario.Run(t.Context(), script, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEachStrategyHasAScript(t *testing.T) {
	for _, s := range strategy.Specs() {
		if _, err := os.Stat(filepath.Join("testdata", s.Name+".scenario")); err != nil {
			t.Errorf("no script says what %s does: %v", s.Name, err)
		}
	}
}
