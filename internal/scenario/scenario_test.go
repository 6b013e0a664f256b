package scenario_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headway/internal/scenario"
)

func run(t *testing.T, script string) error {
	t.Helper()
	s, err := scenario.Parse("test", strings.NewReader(script))
	if err != nil {
		return err
	}
	return scenario.Run(t.Context(), s, 0)
}

const three = "policy\n  default_strategy: round_robin\nend\nhead a\nhead b\nhead c\n"

// Each expectation holds where it should, and fails, with its line and what
// was seen, where it should not.
func TestExpectations(t *testing.T) {
	for _, c := range []struct{ script, says string }{
		{three + "decide 3 -> a=1 b=1 c=1", ""},
		{three + "decide 3 -> a=1..3 b=0..1 c=1", ""},
		{three + "decide 3 -> a=2 b=1", "test:7: decide: a got 1 of 3, want 2; all: a=1 b=1 c=1"},
		{three + "decide 3 -> a=1 b=1", "c got 1, and is not expected"},
		{three + "decide 3 -> a=0..0 b=1 c=1", "a got 1 of 3, want 0..0"},
		{three + "decide 3 -> a=1 a=1 b=1 c=1", "a is expected twice"},
		{three + "decide 3 -> a=3..1", "no count is at least 3 and at most 1"},
		{three + "decide 31 -> even 10% a b c", ""},
		{three + "decide 30 -> even 0% a b c", ""},
		{three + "decide 30 -> even 10% a b", "a got 10 of 30, want 14..16"},
		{three + "decide 31 -> even 0% a b c", "no count is at least 11 and at most 10"},
		{three + "decide 3 -> even a b c", "even takes a tolerance"},
		{three + "decide 3 -> even 200% a b c", `"200" is no whole number from 0 to 100`},
		{three + "decide 3 -> a|b|c", ""},
		{three + "decide 3 -> a|b", "want a|b"},
		{three + "decide 3 -> same", "not to one head"},
		{three + "decide 1 -> same", ""},
		{three + "decide 2 -> order a a", "want a a"},
		{three + "decide 1 -> refused region", `want it refused as region, got head`},
		{three + "decide model=x -> refused unknown_model_type", ""},
		{three + "decide model=x -> a", "was refused: unknown_model_type"},
		{three + "decide -> what is this", `"what is this" is no expectation`},
		{three + "decide -> a=x", `"a=x" is no expectation`},
		{three + "routable a b c", ""},
		{three + "routable a b", `got "a b c", want "a b"`},
		{three + "health a stale", `got "fresh", want "stale"`},
		{three + "health z gone", ""},
		{three + "decide 2 hold -> a|b|c\nopen 2\nfinish 1\nopen 1\nfinish\nopen 0", ""},
		{three + "decide 2 hold tokens=500 blocks=1,2 -> a|b|c\nanswer 1\nanswer\nfinish\nopen 0", ""},
		{three + "decide blocks=1,x -> a", `"x" is no whole number`},
		{three + "answer 1", `"1" is no whole number from 0 to 0`},
		{three + "inflight a 1", `got "0", want "1"`},
		{three + "open 1", `got "0", want "1"`},
	} {
		err := run(t, c.script)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s\ngot %v, want %q", strings.TrimPrefix(c.script, three), err, c.says)
		}
	}
}

func TestMistakesNameTheirLine(t *testing.T) {
	for script, says := range map[string]string{
		"\nfly":                    "test:2: \"fly\" is no command",
		"head":                     "test:1: head: number of words: 0, want 1 to 1",
		"head a b":                 "head: number of words: 2, want 1 to 1",
		"head a colour=red":        `head has no "colour"`,
		"head a label.=red":        "/labels/: must have a name",
		"head a region=x region=y": "region is given twice",
		"head a region=":           "region has no value",
		"decide 3":                 "an expectation (->) belongs to decide",
		"head a -> a":              "an expectation (->) belongs to decide",
		"decide ->":                "nothing stands behind",
		"-> a":                     "nothing stands before",
		"policy\n  x: 1\n":         "test:1: this policy has no end",
		"policy\n  x: 1\nend":      "test:1: policy: /x",
		"advance soon":             `"soon" is no time`,
		"advance -1s":              `"-1s" is no time`,
		"report z":                 `no head "z" is registered`,
		"silent z":                 `no head "z" is registered`,
		"head a status=great":      `"great" is no status`,
		"head a weight=x":          `weight "x" is no number`,
		"head a weight=2x":         `weight "2x" is no number`,
		"advance 1h\nadvance 24h":  "test:2: advance: a script lasts at most 24h0m0s, not 25h0m0s",
		"head a\ndecide 1 -> a\ndecide 1000000 -> a": "at most 1000000 decisions, not 1000001",
		"head a\nadmin a fired":                      `"fired" is no admin state`,
		"head a\ndecide mode=x -> a":                 `"x" is no region mode`,
		"head a\ndecide 0 -> a":                      `"0" is no whole number from 1`,
		"finish 1":                                   `"1" is no whole number from 0 to 0`,
		"head ../etc":                                "/id",
		"decide sessions=all -> same":                `"all" is no whole number`,
		"head a max_in_flight=lots":                  `"lots" is no whole number`,
		"head a\nreport a in_flight=-1":              `"-1" is no whole number`,
	} {
		if err := run(t, script); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", script, err, says)
		}
	}
}

func TestAScriptHasALastLine(t *testing.T) {
	if _, err := scenario.Parse("test", strings.NewReader(strings.Repeat("# nothing\n", 10_000))); err != nil {
		t.Errorf("10,000 lines: %v", err)
	}
	if _, err := scenario.Parse("test", strings.NewReader(strings.Repeat("# nothing\n", 10_001))); err == nil || !strings.Contains(err.Error(), "test:10001") {
		t.Errorf("10,001 lines: %v", err)
	}
}

func TestARunIsTheSameEachTime(t *testing.T) {
	script := "policy\n  default_strategy: random\nend\nhead a\nhead b\n" +
		strings.Repeat("decide 1 -> order a\n", 40)
	first := run(t, script)
	for range 3 {
		if again := run(t, script); first == nil || again == nil || again.Error() != first.Error() {
			t.Fatalf("got %v after %v", again, first)
		}
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	for _, script := range []string{"advance 24h", "decide 1000000 -> a"} {
		s, err := scenario.Parse("test", strings.NewReader("head a\n"+script))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = scenario.Run(ctx, s, 0)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", script, err)
		}
	}
}

func TestTimePassesOverAHeadOfAnyName(t *testing.T) {
	if err := run(t, "head nobody\nadvance 1s\nroutable nobody"); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	scripts, err := filepath.Glob("../routing/testdata/*.scenario")
	if err != nil || len(scripts) == 0 {
		f.Fatalf("no scripts to begin with: %v", err)
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(three + "decide 3 -> a=1 b=1 c=1 # spread")
	f.Add("policy\nend\nhead a label.x=1 models=m,n\nadvance 1s")
	f.Add("-> -> ->")
	f.Fuzz(func(t *testing.T, script string) {
		s, err := scenario.Parse("f", strings.NewReader(script))
		if (s == nil) == (err == nil) {
			t.Errorf("script %v, error %v", s, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("the error names no line: %v", err)
		}
	})
}
