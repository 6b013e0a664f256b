package workload

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func play(t *testing.T, rows []Row, rate float64) *Workload {
	t.Helper()
	w, err := New(Options{Rows: rows, Rate: rate, Models: []string{"small", "large"}, Regions: []string{"a", "b", "c"}, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWorkloadKeepsItsRateAndConversations(t *testing.T) {
	trace, err := ReadTraceFile("", 1)
	if err != nil {
		t.Fatal(err)
	}
	rows := trace.Rows
	w := play(t, rows, 40)
	again := play(t, rows, 40)
	places := make(map[uint64]string)
	models, regions := make(map[string]int), make(map[string]int)
	passOf, sessions := make(map[uint64]uint64), make(map[uint64]string)
	var last Arrival
	n := 2 * len(rows)
	for i := range n {
		a := w.Next()
		if b := again.Next(); a.At != b.At || a.key != b.key || a.Model != b.Model {
			t.Fatalf("arrival %d differs between equal workloads", i)
		}
		if a.At < last.At {
			t.Fatalf("arrival %d at %v after %v", i, a.At, last.At)
		}
		place := a.Model + a.Region
		if p, known := places[a.key]; known && p != place {
			t.Fatalf("a conversation moved from %s to %s", p, place)
		}
		if s, known := sessions[a.key]; known && s != a.Session || a.Session == "" {
			t.Fatalf("a conversation has the sessions %q and %q", s, a.Session)
		}
		sessions[a.key] = a.Session
		if p, known := passOf[a.key]; known && p != a.pass {
			t.Fatal("a conversation is the same in two passes")
		}
		places[a.key], passOf[a.key] = place, a.pass
		models[a.Model]++
		regions[a.Region]++
		last = a
	}
	if rate := float64(n) / last.At.Seconds(); !(math.Abs(rate/40-1) <= 0.02) {
		t.Errorf("%.1f requests a second, want 40", rate)
	}
	for _, m := range models {
		if share := float64(m) / float64(n); !(math.Abs(share-0.5) <= 0.05) {
			t.Errorf("models %v, want halves", models)
		}
	}
	for _, r := range regions {
		if share := float64(r) / float64(n); !(math.Abs(share-1./3) <= 0.05) {
			t.Errorf("regions %v, want thirds", regions)
		}
	}
}

func TestBlocksAreSharedAsTheTraceSays(t *testing.T) {
	rows := rowsOf(t, mooncake)
	w := play(t, rows, 10)
	blocks := make(map[int][]uint64) // by tokens of the prompt
	for range rows {
		a := w.Next()
		blocks[a.Input] = a.Blocks()
	}
	first, other, later := blocks[1200], blocks[600], blocks[1300]
	if len(first) != 3 || len(other) != 2 || len(later) != 3 {
		t.Fatalf("%d, %d and %d blocks, want 3, 2 and 3", len(first), len(other), len(later))
	}
	if !slices.Equal(first[:2], later[:2]) || first[2] == later[2] {
		t.Error("the next prompt of a conversation does not begin with the last one, or is equal to it")
	}
	if first[0] != other[0] || first[1] == other[1] {
		t.Error("two conversations share more or less than the first block")
	}
	for range rows {
		a := w.Next()
		if again := a.Blocks(); a.Input == 1200 && (again[0] != first[0] || again[1] == first[1]) {
			t.Error("the second pass repeats the prompts of the first, or does not share the first block")
		}
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	rows := []Row{{}, {At: 1}}
	full := Options{Rows: rows, Rate: 1, Models: []string{"m"}, Regions: []string{"r"}}
	for name, spoil := range map[string]func(*Options){
		"Rows":    func(o *Options) { o.Rows = rows[:1] },
		"Rate":    func(o *Options) { o.Rate = math.NaN() },
		"Models":  func(o *Options) { o.Models = nil },
		"Regions": func(o *Options) { o.Regions = nil },
	} {
		o := full
		spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := New(full); err != nil {
		t.Error(err)
	}
}
