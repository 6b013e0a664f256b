package main

import (
	"math"
	"testing"
)

// What was reached stays reached: the figures that take a minute.
func TestRoutingFigures(t *testing.T) {
	if raceEnabled {
		t.Skip("ten times slower, and there is nothing to find here; make test-norace runs it")
	}
	l, err := newLab(t.Context(), t.TempDir(), func(text string) { t.Log(text) })
	if err != nil {
		t.Fatal(err)
	}
	var quick []figure
	for _, f := range figures() {
		if f.quick {
			quick = append(quick, f)
		}
	}
	if err := l.all(func() { values(l, quick) }); err != nil {
		t.Fatal(err)
	}
	for _, f := range quick {
		for i, v := range f.value(l) {
			if !f.reached(i, v) {
				t.Errorf("%s at %s is %.3f, and was to be %v", f.what, f.at[i], v, f.goals[i])
			}
		}
	}
}

func TestSpearman(t *testing.T) {
	a := []float64{1, 2, 3, 4, 5}
	for _, c := range []struct {
		b    []float64
		want float64
	}{{[]float64{2, 4, 6, 8, 10}, 1}, {[]float64{5, 4, 3, 2, 1}, -1}, {[]float64{1, 2, 3, 5, 4}, 0.9}} {
		if got := spearman(a, c.b); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v: %v, want %v", c.b, got, c.want)
		}
	}
}

func TestPagesAreWrittenBetweenTheirMarks(t *testing.T) {
	got, err := between([]byte("a\n<!-- x -->\nold\n<!-- /x -->\nb\n"), "x", "new\n")
	if want := "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := between([]byte("a"), "x", ""); err == nil {
		t.Error("missing marks are no error")
	}
}

// Every rule names its source and is a contender.
func TestEveryContenderRuns(t *testing.T) {
	names, titles := contenders()
	if len(names) != len(titles) || len(names) < 15 {
		t.Fatalf("%d contenders, %d titles", len(names), len(titles))
	}
	for _, name := range append(names, ranked()...) {
		if _, err := contender(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
