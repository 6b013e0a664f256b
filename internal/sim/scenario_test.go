package sim

import (
	"errors"
	"strings"
	"testing"
	"time"

	"headway/internal/routing"
)

// Each scenario does what it says, and every request ends.
func TestScenarios(t *testing.T) {
	usual := measure(t, study(t, "adaptive"))
	share := func(m *Measured, head int) float64 {
		sum := int64(0)
		for _, n := range m.Computed {
			sum += n
		}
		return float64(m.Computed[head]) / float64(sum)
	}
	slower := func(m *Measured) bool { return mean(m.TTFT) > 1.02*mean(usual.TTFT) }
	for name, holds := range map[string]func(m *Measured) bool{
		"speeds=1:4":     func(m *Measured) bool { return share(m, 1) > 2*share(m, 0) },
		"brownout=0.2":   func(m *Measured) bool { return share(m, 0) < 0.95*share(usual, 0) && m.Failed == 0 },
		"death=2":        func(m *Measured) bool { return m.Failed > 0 && m.Failed < 60 && slower(m) },
		"region-loss=80": func(m *Measured) bool { return m.Failed > 0 && m.Failed < 100 && slower(m) },
		"fail-fast=2":    func(m *Measured) bool { return m.Failed < 10 && share(m, 0) < 0.9*share(usual, 0) },
		"slow-join=2": func(m *Measured) bool {
			return m.Failed == 0 && share(m, 0) < 0.9*share(usual, 0) && share(m, 0) > 0.02
		},
		"stale-reports=10":  func(m *Measured) bool { return m.Failed == 0 },
		"blind":             func(m *Measured) bool { return m.Failed == 0 },
		"stale-reports=0.1": func(m *Measured) bool { return m.Failed == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			m := measure(t, study(t, "adaptive").scenario(t, name))
			if m.Requests != 600 || !holds(m) {
				t.Errorf("%d requests, %d failed, %.0f ms (usually %.0f), tokens by head %d (usually %d)", m.Requests, m.Failed, mean(m.TTFT), mean(usual.TTFT), m.Computed, usual.Computed)
			}
		})
	}
}

func TestFleetsOfSeveralSpeedsAreAsFastAsEqualOnes(t *testing.T) {
	s := study(t, "adaptive").scenario(t, "speeds=1:1.6:2.5")
	setup, err := s.setup(&s.Contenders[0], s.Scenarios, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.
	for _, h := range setup.Heads {
		sum += h.Speed
	}
	if sum < 7.999 || sum > 8.001 || setup.Heads[2].Speed < 2.49*setup.Heads[0].Speed {
		t.Errorf("speeds %+v", setup.Heads)
	}
}

// What goes wrong begins after a third of the play, and the order of scenarios does not
// matter.
func TestScenariosAreOfOnePlay(t *testing.T) {
	s := study(t, "adaptive").scenario(t, "brownout", "speeds", "death", "region-loss=40", "blind", "stale-reports=7")
	setup, err := s.setup(&s.Contenders[0], s.Scenarios, 4, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	third := 50 * time.Second // 600 requests at 4 a second
	for _, e := range setup.Events {
		if e.At.Round(time.Millisecond) != third && e.At.Round(time.Millisecond) != 2*third {
			t.Errorf("an event at %v", e.At)
		}
	}
	if d := setup.Policy.Distance("here", "there"); d != 40 || !setup.Blind || setup.Reports != 7*time.Second || len(setup.Regions) != 2 {
		t.Errorf("distance %v, blind %v, reports each %v, regions %q", d, setup.Blind, setup.Reports, setup.Regions)
	}
}

// What goes wrong does so at the heads that the scenario names, for a third of the play,
// and is over after that.
func TestWhatGoesWrongIsOverAfterTwoThirds(t *testing.T) {
	for name, c := range map[string]struct {
		before, meanwhile, then string // down: d, broken: b, slow: s
	}{
		"brownout=0.5": {"", "s", ""},
		"death=2":      {"", "dd", ""},
		"region-loss":  {"", " d d d d", ""},
		"fail-fast=3":  {"", "bbb", ""},
		"slow-join=2":  {"dd", "", ""},
	} {
		s := study(t, "adaptive").scenario(t, name)
		setup, err := s.setup(&s.Contenders[0], s.Scenarios, s.Rates[0], 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		for part, want := range map[float64]string{0.3: c.before, 0.5: c.meanwhile, 0.9: c.then} {
			setup.happens(part, func(f *Fleet) error {
				state := ""
				for _, h := range f.w.heads {
					switch {
					case h.down:
						state += "d"
					case h.broken:
						state += "b"
					case h.profile != h.full:
						state += "s"
					default:
						state += " "
					}
				}
				if got := strings.TrimRight(state, " "); got != want {
					t.Errorf("%s: after %v of the play heads are %q, want %q", name, part, got, want)
				}
				return nil
			})
		}
		if _, err := Run(t.Context(), setup.Options); err != nil {
			t.Fatal(err)
		}
	}
}

// The way between the regions of a request and of its head is part of the time to its
// first token.
func TestTheWayToAnotherRegionTakesTime(t *testing.T) {
	means := map[string]float64{}
	for _, name := range []string{"region-loss=0", "region-loss=4000"} {
		s := study(t, "round_robin").scenario(t, name)
		setup, err := s.setup(&s.Contenders[0], s.Scenarios, 1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		setup.Events = nil
		for i := range setup.Heads { // so that requests from here have to go there
			setup.Heads[i].Region = "there"
		}
		m, err := Run(t.Context(), setup.Options)
		if err != nil {
			t.Fatal(err)
		}
		means[name] = mean(m.TTFT)
	}
	if further := means["region-loss=4000"] - means["region-loss=0"]; further < 1700 || further > 2300 {
		t.Errorf("where half of the requests go 4 s away, they take %.0f ms longer", further)
	}
}

// firstTokens counts the decisions that ended, and those of which a first token was
// reported before that.
type firstTokens struct{ ended, begun int }

func (*firstTokens) Sampled(*routing.Sample) {}

func (*firstTokens) Refused(string, string, time.Time) {}

func (f *firstTokens) Ended(d *routing.Decision, _ *routing.Outcome, _ bool) {
	f.ended++
	if !d.FirstTokenAt().IsZero() {
		f.begun++
	}
}

// Blind callers report how requests ended and nothing before that; heads report as often
// as the scenario says.
func TestWhatIsReportedIsThatOfTheScenario(t *testing.T) {
	for name, c := range map[string]struct {
		blind bool
		every time.Duration
	}{
		"blind":            {true, time.Second},
		"stale-reports=20": {false, 20 * time.Second},
	} {
		s := study(t, "adaptive").scenario(t, name)
		setup, err := s.setup(&s.Contenders[0], s.Scenarios, s.Rates[0], 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		var seen firstTokens
		setup.Watchers = []routing.Watcher{&seen}
		oldest := time.Duration(0)
		for i := 20; i < 100; i++ { // once each head has reported
			setup.happens(float64(i)/100, func(f *Fleet) error {
				for _, h := range f.w.routers[0].fleet.Snapshot().Sorted() {
					oldest = max(oldest, f.w.now().Sub(h.Live.Report().At))
				}
				return nil
			})
		}
		m, err := Run(t.Context(), setup.Options)
		if err != nil {
			t.Fatal(err)
		}
		if seen.ended != m.Requests || (seen.begun == 0) != c.blind {
			t.Errorf("%s: of %d requests %d ended, %d after a first token", name, m.Requests, seen.ended, seen.begun)
		}
		if oldest > c.every || oldest < c.every/2 {
			t.Errorf("%s: a report is %v old, want up to %v", name, oldest, c.every)
		}
	}
}

// A scenario that the fleet is too small for is refused before anything runs.
func TestAScenarioNeedsHeadsThatItLeavesAlone(t *testing.T) {
	for heads, names := range map[int][]string{1: {"death", "region-loss", "speeds"}, 2: {"fail-fast=2", "slow-join=3", "death"}} {
		for _, name := range names {
			s := study(t, "adaptive").scenario(t, name)
			s.Heads, s.Loads, s.Rates = heads, nil, nil
			_, err := s.Run(t.Context())
			if fits := name == "speeds" || name == "death" && heads == 2; fits != (err == nil) || !fits && !errors.Is(err, ErrFleet) {
				t.Errorf("%s of %d heads: %v", name, heads, err)
			}
		}
	}
}

func TestScenarioNamesAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"brown-out":        `did you mean "brownout"?`,
		"deaths":           `did you mean "death"?`,
		"nonsense":         "allowed are speeds, brownout, death, region-loss",
		"brownout=2":       "want a number from 0.01 to 1",
		"death=none":       "want a whole number from 1 to 1000",
		"fail-fast=1.5":    "want a whole number",
		"slow-join=0":      "want a whole number",
		"speeds=1:fast":    "want speeds from 0.01 to 100 with colons between them, such as 1:1.6:2.5",
		"speeds=":          "want speeds",
		"blind=yes":        "it takes no value",
		"stale-reports=-1": "want a number",
	} {
		if _, err := ParseScenario(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
	for _, line := range Scenarios() {
		if name, _, _ := strings.Cut(line, " "); name != "" {
			if _, err := ParseScenario(name); err != nil {
				t.Errorf("the usual value of %s: %v", name, err)
			}
		}
	}
}
