package workload

import (
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// all takes every request of a play that comes by the clock.
func all(t *testing.T, traffic *Traffic, p Play) (list []Arrival) {
	t.Helper()
	s, err := traffic.Play(p)
	if err != nil {
		t.Fatal(err)
	}
	for a, ok := s.Next(); ok; a, ok = s.Next() {
		if n := len(list); n > 0 && a.At < list[n-1].At {
			t.Fatalf("request %d comes before the one before it", n)
		}
		list = append(list, a)
	}
	return list
}

func open(t *testing.T, name string, requests int) *Traffic {
	t.Helper()
	traffic, err := Open(name, requests)
	if err != nil {
		t.Fatal(err)
	}
	return traffic
}

func rateOf(list []Arrival) float64 { return float64(len(list)) / list[len(list)-1].At.Seconds() }

// gapsOf are the mean and the coefficient of variation of the times between requests.
func gapsOf(list []Arrival) (mean, cv float64) {
	var sum, squares float64
	for i := 1; i < len(list); i++ {
		gap := (list[i].At - list[i-1].At).Seconds()
		sum += gap
		squares += gap * gap
	}
	n := float64(len(list) - 1)
	mean = sum / n
	return mean, math.Sqrt(squares/n-mean*mean) / mean
}

func near(got, want, by float64) bool { return math.Abs(got/want-1) <= by }

func TestTracesAreCutAndRepeated(t *testing.T) {
	for _, n := range []int{0, 100, 6000} {
		traffic := open(t, Sample, n)
		list := all(t, traffic, Play{Rate: 20, Seed: 1})
		want := n
		if n == 0 {
			want = 2800
		}
		if len(list) != want || traffic.Requests != want || n != 100 && !near(rateOf(list), 20, 0.05) {
			t.Errorf("%d requests of %d at %.2f a second", len(list), want, rateOf(list))
		}
		if span := traffic.Span(20); span != time.Duration(want)*time.Second/20 {
			t.Errorf("%d requests take %v", want, span)
		}
	}
	if r := open(t, Sample, 0).Rate; r < 2 || r > 5 {
		t.Errorf("the sample has %v requests/s of its own", r)
	}
}

// Requests with coarse times are spread by the seed of the play.
func TestPlaysOfOneSeedAreEqual(t *testing.T) {
	for _, name := range []string{Sample, "poisson:", "gamma:", "diurnal:"} {
		traffic := open(t, name, 500)
		same := func(a, b Arrival) bool {
			return a.At == b.At && a.Input == b.Input && slices.Equal(a.Blocks(), b.Blocks()) && a.Region == b.Region
		}
		one := Play{Rate: 5, Seed: 1, Regions: []string{"a", "b"}}
		first := all(t, traffic, one)
		if !slices.EqualFunc(first, all(t, traffic, one), same) {
			t.Errorf("%s: two plays of one seed differ", name)
		}
		one.Seed = 2
		if another := all(t, traffic, one); slices.EqualFunc(first[1:], another[1:], func(a, b Arrival) bool { return a.At == b.At }) {
			t.Errorf("%s: another seed leaves the times as they are", name)
		}
		if slices.EqualFunc(first, all(t, traffic, one), same) {
			t.Errorf("%s: another seed changes nothing", name)
		}
		if of := func(region string) int {
			return len(slices.DeleteFunc(slices.Clone(first), func(a Arrival) bool { return a.Region != region }))
		}; of("a") < 100 || of("b") < 100 {
			t.Errorf("%s: %d requests from one region, %d from the other", name, of("a"), of("b"))
		}
	}
}

func TestGeneratorsKeepTheirShape(t *testing.T) {
	const n = 40_000
	for name, cv := range map[string]float64{"poisson:": 1, "gamma:cv=3": 3, "gamma:cv=0.5": 0.5} {
		list := all(t, open(t, name, n), Play{Rate: 50, Seed: 3})
		mean, is := gapsOf(list)
		if len(list) != n || !near(mean, 0.02, 0.05) || !near(is, cv, 0.08) {
			t.Errorf("%s: %d requests, one each %.4f s, variation %.2f; want %.2f", name, len(list), mean, is, cv)
		}
	}
	list := all(t, open(t, "diurnal:depth=0.8,days=2", n), Play{Rate: 50, Seed: 3})
	if end := list[n-1].At.Seconds(); !near(end, n/50, 0.7) {
		t.Errorf("%d requests in %.0f s", n, end)
	}
	took := func(day float64) float64 { // of the requests around a part of the play
		i := int(day * n)
		return (list[i+n/50].At - list[i-n/50].At).Seconds()
	}
	if quiet, busy := took(0.5), took(0.25); quiet < 5*busy {
		t.Errorf("as many requests take %.0f s at night and %.0f s by day", quiet, busy)
	}
}

func TestGeneratedLengths(t *testing.T) {
	list := all(t, open(t, "poisson:input=2000,output=100,shared=1024,prefixes=3", 20_000), Play{Rate: 50, Seed: 3})
	var input, output float64
	first := map[uint64]int{}
	for _, a := range list {
		input += float64(a.Input)
		output += float64(a.Output)
		blocks := a.Blocks()
		if a.Input < 1025 || len(blocks) != (a.Input+BlockTokens-1)/BlockTokens {
			t.Fatalf("%d tokens in %d blocks", a.Input, len(blocks))
		}
		first[blocks[1]]++
	}
	n := float64(len(list))
	if !near(input/n, 2000, 0.05) || !near(output/n, 100, 0.05) {
		t.Errorf("%.0f tokens in and %.0f out on average", input/n, output/n)
	}
	if counts := slices.Sorted(maps.Values(first)); len(counts) != 3 || counts[2] < 2*counts[0] {
		t.Errorf("requests by system prompt: %v", counts)
	}
}

// A session goes on when its request ends, sends what it sent before, and is as long as
// was asked for.
func TestAgentsGoOnWithWhatTheySent(t *testing.T) {
	traffic := open(t, "agents:sessions=40,turns=10", 0)
	s, err := traffic.Play(Play{Rate: 2, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	var open []Arrival
	last := map[string][]uint64{}
	var requests, shared, blocks int
	for a, ok := s.Next(); ok; a, ok = s.Next() {
		open = append(open, a)
	}
	if len(open) != 40 {
		t.Fatalf("%d sessions", len(open))
	}
	for len(open) > 0 {
		a := open[0]
		open = open[1:]
		requests++
		now := a.Blocks()
		for i := range min(len(now), len(last[a.Session])) {
			if now[i] == last[a.Session][i] {
				shared++
			}
		}
		blocks += len(now)
		last[a.Session] = now
		end := a.At + time.Second
		for _, next := range s.Ended(&a, end) {
			if next.At <= end {
				t.Errorf("the next turn comes at %v, and the last one ended at %v", next.At, end)
			}
			open = append(open, next)
		}
	}
	if !near(float64(requests), float64(traffic.Requests), 0.35) || float64(shared) < 0.7*float64(blocks) {
		t.Errorf("%d requests of about %d; %d of %d blocks were sent before", requests, traffic.Requests, shared, blocks)
	}
	another, err := Open("agents:", 370)
	if err != nil {
		t.Fatal(err)
	}
	if n := another.Requests; !near(float64(n), 370, 0.1) {
		t.Errorf("%d requests of 370", n)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a:b")
	if err := os.WriteFile(odd, []byte(azure), 0o600); err != nil {
		t.Fatal(err)
	}
	if traffic := open(t, odd, 0); traffic.Requests != 2 {
		t.Errorf("%d requests of a file with a colon in its name", traffic.Requests)
	}
	for name, want := range map[string]string{
		"agent:":                 `did you mean "agents"?`,
		"agents:session=3":       `did you mean "sessions"?`,
		"agents:sessions=0":      "agents: sessions=0: want a number from 1 to",
		"poisson:input=many":     "poisson: input=many: want a number from",
		"gamma:cv":               "gamma: cv=: want a number",
		dir + "/no/such":         "no such file",
		"diurnal:depth=2,days=1": "depth=2: want a number from 0 to 1",
	} {
		_, err := Open(name, 0)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", name, err, want)
		}
		if is := errors.Is(err, ErrName); is == strings.HasPrefix(name, dir) {
			t.Errorf("%s: %v is ErrName: %v", name, err, is)
		}
	}
	if _, err := open(t, Sample, 0).Play(Play{}); err == nil {
		t.Error("a rate of 0 is taken")
	}
}

func TestGeneratorsAreDescribed(t *testing.T) {
	text := strings.Join(Generators(), "\n")
	for name, g := range generators {
		if !strings.Contains(text, name+":") {
			t.Errorf("%s is not described", name)
		}
		for _, p := range g.parameters {
			if !strings.Contains(text, "  "+p.name+"=") {
				t.Errorf("%s of %s is not described", p.name, name)
			}
		}
	}
}
