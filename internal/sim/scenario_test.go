package sim

import (
	"errors"
	"strings"
	"testing"
	"time"
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
