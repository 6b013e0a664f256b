package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/policy"
	"headway/internal/strict"
	"headway/internal/workload"
)

// Scenario is what is special in a run: how its fleet is made, and what happens to it.
type Scenario struct {
	Name string // as it was given
	set  func(*Setup) error
}

// Setup is the fleet of a run, and what happens to it.
type Setup struct {
	Options
	Regions []string // that requests come from; none: one
	play    workload.Play
	span    time.Duration // of the play, about
}

// scenario is a kind of Scenario. value is what stands behind "=" in its name, or
// usual.
type scenario struct {
	name  string
	usual string
	does  string
	read  func(value string) (func(*Setup) error, error)
}

// at is the time after a part of the play.
func (s *Setup) at(part float64) time.Duration { return time.Duration(part * float64(s.span)) }

// happens adds an event.
func (s *Setup) happens(part float64, do func(*Fleet) error) {
	s.Events = append(s.Events, Event{s.at(part), do})
}

// scenarios are all that there are. What goes wrong begins after a third of the play
// and ends after two.
var scenarios = []scenario{
	{
		"speeds", "1:1.6:2.5", "heads of several speeds, in turn; the fleet together is as fast as with equal ones",
		readSpeeds,
	},
	{
		"brownout", "0.3", "the first head works at this part of its speed for a third of the play",
		number(0.01, 1, func(s *Setup, part float64) error {
			s.happens(1./3, func(f *Fleet) error { return f.Slow(0, part) })
			s.happens(2./3, func(f *Fleet) error { return f.Slow(0, 1) })
			return nil
		}),
	},
	{
		"death", "1", "so many heads die after a third of the play, and start again with empty caches after two",
		count((*Setup).stop),
	},
	{
		"region-loss", "80", "half of the heads and callers are in another region, so many ms away; its heads are lost for a third of the play",
		number(0, 10_000, loseRegion),
	},
	{
		"fail-fast", "1", "so many heads refuse each request at once, for a third of the play, and go on reporting that they are well",
		count(func(s *Setup, heads []int) {
			for _, i := range heads {
				s.happens(1./3, func(f *Fleet) error { return f.Break(i, true) })
				s.happens(2./3, func(f *Fleet) error { return f.Break(i, false) })
			}
		}),
	},
	{
		"slow-join", "1", "so many heads join after a third of the play, with empty caches",
		count(func(s *Setup, heads []int) {
			for _, i := range heads {
				s.Heads[i].Absent = true
				s.happens(1./3, func(f *Fleet) error { return f.Start(i) })
			}
		}),
	},
	{
		"stale-reports", "5", "heads report every so many seconds",
		number(0.01, 600, func(s *Setup, seconds float64) error {
			s.Reports = time.Duration(seconds * float64(time.Second))
			return nil
		}),
	},
	{
		"blind", "", "callers ask for a head by the decision API and report no first token",
		func(value string) (func(*Setup) error, error) {
			if value != "" {
				return nil, errors.New("it takes no value")
			}
			return func(s *Setup) error { s.Blind = true; return nil }, nil
		},
	},
}

// ScenarioNames are the names of all scenarios.
func ScenarioNames() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// Scenarios describes the scenarios, a line each, with the usual value.
func Scenarios() (lines []string) {
	for _, s := range scenarios {
		name := s.name
		if s.usual != "" {
			name += "=" + s.usual
		}
		lines = append(lines, fmt.Sprintf("%-20s %s", name, s.does))
	}
	return lines
}

// ParseScenario reads a name, or name=value.
func ParseScenario(text string) (Scenario, error) {
	name, value, given := strings.Cut(text, "=")
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return Scenario{}, errors.New(strict.Unknown("scenario", name, ScenarioNames()))
	}
	if !given {
		value = scenarios[i].usual
	}
	set, err := scenarios[i].read(value)
	if err != nil {
		return Scenario{}, fmt.Errorf("scenario %s: %s: %w", name, strict.Quote(value), err)
	}
	return Scenario{text, set}, nil
}

// number is for scenarios whose value is a number.
func number(least, most float64, set func(*Setup, float64) error) func(string) (func(*Setup) error, error) {
	return func(value string) (func(*Setup) error, error) {
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v >= least && v <= most) {
			return nil, fmt.Errorf("want a number from %v to %v", least, most)
		}
		return func(s *Setup) error { return set(s, v) }, nil
	}
}

// readSpeeds reads speeds that stand behind one another with colons.
func readSpeeds(value string) (func(*Setup) error, error) {
	var speeds []float64
	for part := range strings.SplitSeq(value, ":") {
		v, err := strconv.ParseFloat(part, 64)
		if err != nil || !(v >= 0.01 && v <= 100) {
			return nil, errors.New("want speeds from 0.01 to 100 with colons between them, such as 1:1.6:2.5")
		}
		speeds = append(speeds, v)
	}
	return func(s *Setup) error {
		sum := 0.
		for i := range s.Heads {
			s.Heads[i].Speed = speeds[i%len(speeds)]
			sum += s.Heads[i].Speed
		}
		for i := range s.Heads {
			s.Heads[i].Speed *= float64(len(s.Heads)) / sum
		}
		return nil
	}, nil
}

// ErrFleet reports a fleet that is too small for a scenario.
var ErrFleet = errors.New("too few heads")

// count reads how many of the first heads something happens to. At least one head is
// left as it is.
func count(set func(s *Setup, heads []int)) func(string) (func(*Setup) error, error) {
	return func(value string) (func(*Setup) error, error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 1000 {
			return nil, errors.New("want a whole number from 1 to 1000")
		}
		return func(s *Setup) error {
			if n >= len(s.Heads) {
				return fmt.Errorf("%w: want more than %d", ErrFleet, n)
			}
			heads := make([]int, n)
			for i := range heads {
				heads[i] = i
			}
			set(s, heads)
			return nil
		}, nil
	}
}

// stop has heads be down for the middle third of the play.
func (s *Setup) stop(heads []int) {
	for _, i := range heads {
		s.happens(1./3, func(f *Fleet) error { return f.Stop(i) })
		s.happens(2./3, func(f *Fleet) error { return f.Start(i) })
	}
}

// regions are those of loseRegion.
var regions = []string{onlyRegion, "there"}

// loseRegion puts every second head into another region, and loses that.
func loseRegion(s *Setup, distance float64) error {
	if len(s.Heads) < len(regions) {
		return fmt.Errorf("%w: want one in each of %d regions", ErrFleet, len(regions))
	}
	s.Regions = regions
	var lost []int
	for i := range s.Heads {
		if s.Heads[i].Region = regions[i%2]; i%2 == 1 {
			lost = append(lost, i)
		}
	}
	s.stop(lost)
	doc := s.Policy.Document
	if len(doc.Regions) == 0 {
		doc.Regions = map[string]policy.RegionDoc{regions[0]: {DistancesMs: map[string]float64{regions[1]: distance}}}
	}
	var faults []strict.Fault
	if s.Policy, faults = policy.Compile(doc); len(faults) > 0 {
		return strict.Invalid(faults)
	}
	return nil
}
