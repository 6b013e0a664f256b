package demo

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"pgregory.net/rapid"

	"headway/api"
	"headway/internal/engine"
)

// A quantile is exact up to a bound, and then that of a sample.
func TestQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Int64Range(2_000, int64(10*time.Minute)), 1, 200).Draw(t, "durations")
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		var sorted []time.Duration
		for _, d := range list {
			sorted = append(sorted, time.Duration(d))
		}
		slices.Sort(sorted)
		got := quantile(sorted, q)
		atMost := 0
		for _, d := range sorted {
			if d <= got {
				atMost++
			}
		}
		if share := float64(atMost) / float64(len(sorted)); share < q || !slices.Contains(sorted, got) {
			t.Fatalf("quantile %v is %v, which %v are at most", q, got, share)
		}
	})
	var s samples
	if p50, p95, p99 := s.quantiles(); p50 != 0 || p95 != 0 || p99 != 0 {
		t.Errorf("of nothing: %v %v %v", p50, p95, p99)
	}
	const more = 10 * maxSamples
	for i := range more {
		s.add(time.Duration(i + 1))
	}
	if len(s.kept) != maxSamples || s.total != more {
		t.Errorf("%d of %d are kept", len(s.kept), s.total)
	}
	if p50, p95, p99 := s.quantiles(); !near(p50, more/2) || !near(p95, more*95/100) || !near(p99, more*99/100) {
		t.Errorf("of a sample: %v %v %v", p50, p95, p99)
	}
}

func near(got, want time.Duration) bool { return math.Abs(float64(got)/float64(want)-1) <= 0.1 }

func TestStatsForgetWhatIsOldButNotTheTotals(t *testing.T) {
	start := time.Unix(1000, 0)
	s := newStats(start)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for range 5 {
		s.begun(at(500*time.Millisecond), "h", "random", time.Millisecond)
	}
	s.begun(at(1500*time.Millisecond), "h", "random", time.Millisecond)
	s.failed(failNoHead)
	p := s.picture(at(2100 * time.Millisecond))
	if fmt.Sprint(p.perSecond) != "[5 1]" || p.rate != 1 || p.overhead.total != 6 {
		t.Errorf("after 2 s: %v, %v a second, %d in the window", p.perSecond, p.rate, p.overhead.total)
	}
	p = s.picture(at(3 * time.Minute))
	if p.rate != 0 || p.overhead.total != 0 || len(p.perSecond) != sparklineSeconds-1 {
		t.Errorf("after 3 min: %v a second, %d in the window, %d seconds", p.rate, p.overhead.total, len(p.perSecond))
	}
	if p.all.requests != 6 || p.heads["h"].requests != 6 || p.fails[0] != (count{failNoHead, 1}) {
		t.Errorf("totals %d, head %+v, failures %v", p.all.requests, p.heads["h"], p.fails)
	}
}

// Names that come from outside cannot grow the tables without bound.
func TestStatsAreBounded(t *testing.T) {
	s := newStats(time.Now())
	for i := range 5000 {
		s.begun(time.Now(), fmt.Sprint("head", i), fmt.Sprint("strategy", i), 0)
	}
	if len(s.heads) > 1000+maxNames+1 || len(s.choices) > maxNames+1 {
		t.Errorf("%d heads and %d strategies are kept", len(s.heads), len(s.choices))
	}
	if p := s.picture(time.Now()); p.all.requests != 5000 {
		t.Errorf("%d requests counted", p.all.requests)
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// What makes a head go wrong stays in sight, and names one that is up.
func TestTheScreenSaysHowToBreakAHead(t *testing.T) {
	now := time.Now()
	o := Options{Server: "http://127.0.0.1:8080", Faults: true}
	s := &screen{display: &display{options: &o, fleet: newHeads(&o, nil), traffic: &traffic{stats: newStats(now), slots: make(chan struct{}, 1)}}, width: 120, height: 30}
	s.refresh(now)
	s.units = []unitView{{id: "demo-1", state: stateDown}, {id: "demo-2", state: stateUp, url: "http://127.0.0.1:40217"}}
	want := `Faults       curl -d '{"kind":"stall","times":1}' http://127.0.0.1:40217/faults   demo-2`
	if text := escapes.ReplaceAllString(s.draw(), ""); !strings.Contains(text, want) {
		t.Errorf("the screen does not say %s:\n%s", want, text)
	}
}

// drawn is a screen of a given size with heads of which the second is down.
func drawn(width, height, heads int) string {
	now := time.Unix(1_000_000, 0)
	d := &display{options: &Options{Server: "http://127.0.0.1:8080", Speed: 10}, traffic: &traffic{stats: newStats(now), slots: make(chan struct{}, 1)}}
	s := &screen{display: d, width: width, height: height, now: now}
	for i := range heads {
		u := unitView{id: fmt.Sprintf("demo-%d", i+1), model: "llama-3.1-8b", region: "us-east", state: stateUp}
		u.load = engine.Load{Running: i, Waiting: 1, KVUsage: 0.25}
		if i == 1 {
			u.state = stateDown
		}
		s.units = append(s.units, u)
		s.stats.begun(now, u.id, "least_loaded", time.Millisecond)
	}
	s.stats.failed(failCut)
	s.notes = []note{{now, "demo-2 killed"}}
	s.picture = s.stats.picture(now.Add(1500 * time.Millisecond))
	s.history = []map[string]headStats{{}, s.picture.heads}
	d.regret.Store(&regret{ms: 0.416, decisions: 3})
	d.seen.Store(&routerView{words: map[string]string{"demo-1": "fresh", "demo-2": "stale"}})
	return escapes.ReplaceAllString(s.draw(), "")
}

func TestScreenShowsWhatMatters(t *testing.T) {
	text := drawn(120, 40, 3)
	for _, want := range []string{
		"3/s", "3 in all", "stream cut 1", "least_loaded 3 (100.0 %)", "33.3%", "0+1", "25%",
		"down     stale", "up       fresh", "up       unknown", "demo-2 killed", "q quit", "– of prompt tokens cached, mean regret 0.42 ms?\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the screen does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
}

func TestScreenFitsItsTerminal(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {100, 30}, {200, 60}, {40, 12}, {10, 5}, {1, 1}} {
		text := drawn(size[0], size[1], 40)
		lines := strings.Split(text, "\n")
		if len(lines) > size[1] {
			t.Errorf("%d lines in a terminal of %d", len(lines), size[1])
		}
		for _, l := range lines {
			if w := lipgloss.Width(l); w > size[0] {
				t.Errorf("a line of %d cells in a terminal of %d: %q", w, size[0], l)
			}
		}
		if size[1] >= 24 && (!strings.Contains(text, "more heads") == (size[1] < 60) || !strings.Contains(text, "q quit")) {
			t.Errorf("at %v heads are left out without a word, or the keys are missing:\n%s", size, text)
		}
	}
}

// The regret is of all strategies by their decisions, since the demo began, and in
// doubt where that of one of them is.
func TestTheMeanRegretIsOfAllDecisions(t *testing.T) {
	of := func(decisions int64, ms float64, reliable bool) api.Strategy {
		return api.Strategy{Effectiveness: api.StrategyEffectiveness{Decisions: decisions, RegretMs: &ms, RegretReliable: reliable}}
	}
	for want, list := range map[string][]api.Strategy{
		"–":        {{Effectiveness: api.StrategyEffectiveness{Decisions: 7}}, of(0, 5, false)},
		"0.00 ms":  {of(1, 0, true)},
		"4.00 ms":  {of(10, 1, true), of(30, 5, true), {}},
		"4.00 ms?": {of(10, 1, false), of(30, 5, true)},
	} {
		if got := meanRegret(list).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	start := time.Date(2026, 1, 1, 12, 0, 59, 0, time.UTC)
	for later, want := range map[time.Duration]time.Duration{
		0: time.Minute, time.Second: 2 * time.Minute, 90 * time.Second: 3 * time.Minute, 2 * time.Hour: time.Hour,
	} {
		if got := window(start, start.Add(later)); got != want {
			t.Errorf("after %v the window is %v, want %v", later, got, want)
		}
	}
}

func TestNumbersAreReadable(t *testing.T) {
	for want, got := range map[string]string{
		"–":                          span(0),
		"0.25 ms":                    span(250 * time.Microsecond),
		"12.3 ms":                    span(12345 * time.Microsecond),
		"123 ms":                     span(123456 * time.Microsecond),
		"1.23 s":                     span(1234 * time.Millisecond),
		"999":                        grouped(999),
		"1,234,567":                  grouped(1234567),
		"12.5 %":                     percent(1, 8),
		"a 3 (75.0 %), b 1 (25.0 %)": listed([]count{{"a", 3}, {"b", 1}}, 4),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSparklineIsAgainstItsLargest(t *testing.T) {
	if got := strings.TrimLeft(sparkline([]uint64{0, 5, 10}), " "); got != "▁▄█" {
		t.Errorf("got %q", got)
	}
	if got := len([]rune(sparkline(make([]uint64, 100)))); got != 30 {
		t.Errorf("%d cells, want 30", got)
	}
}

func TestKeysActOnTheFleet(t *testing.T) {
	now := time.Now()
	o := Options{Server: "http://127.0.0.1:8080"}
	d := &display{options: &o, fleet: newHeads(&o, nil), traffic: &traffic{stats: newStats(now), slots: make(chan struct{}, 1)}}
	s := &screen{ctx: t.Context(), display: d, width: 80, height: 24}
	s.refresh(now)
	press := func(key rune) tea.Cmd {
		_, cmd := s.Update(tea.KeyPressMsg{Code: key, Text: string(key)})
		return cmd
	}
	for key, want := range map[rune]string{'k': "killed", 'b': "damaged", 's': "started", 'd': "drained"} {
		if cmd := press(key); cmd != nil || !strings.HasSuffix(s.notes[len(s.notes)-1].text, want) {
			t.Errorf("%c without heads: %v", key, s.notes)
		}
	}
	if press('z') != nil || len(s.notes) != 4 {
		t.Error("another key did something")
	}
	if press('x') != nil || !d.fleet.armed {
		t.Error("x does not wait for a request")
	}
	if cmd := press('q'); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not quit")
	}
	s.Update(tea.WindowSizeMsg{Width: 40, Height: 10})
	if text := s.View().Content; strings.Count(text, "\n") != 9 {
		t.Errorf("%d lines after the terminal shrank to 10", strings.Count(text, "\n")+1)
	}
	for range 3 * maxNotes {
		press('k')
	}
	if len(s.notes) != maxNotes {
		t.Errorf("%d notes are kept, want %d", len(s.notes), maxNotes)
	}
}
