package strategy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"headway/internal/fleet"
)

// large is a tier of so many heads with numbers of their own.
func large(n int) []Tier {
	t := tier("us", 0, slices.Repeat([]head{{weight: 1}}, n))
	heads := make([]fleet.Step, n)
	for i, h := range t.Heads {
		h.Number = n - 1 - i
		heads[i] = fleet.Step{Next: h}
	}
	snapshot, _ := new(fleet.Snapshot).With(heads)
	t.Ranked = snapshot.Pools["m"].All.Active
	return []Tier{t}
}

// chosen counts which heads are chosen first, and checks what is chosen beside them.
func chosen(t *testing.T, name string, tiers []Tier, draws int, m Memory, req *Request) map[*fleet.Head]int {
	t.Helper()
	s, times := chooser(t, name), map[*fleet.Head]int{}
	in := new(Input)
	for seed := range uint64(draws) {
		in.Begin(req, "m", noon, Mix(seed, 1), m, 0)
		in.Tiers = tiers
		var picks [1 + MaxAlternatives]Pick
		if n := s.Choose(in, picks[:]); n != len(picks) {
			t.Fatalf("%s names %d heads of %d", name, n, len(tiers[0].Heads))
		}
		for i, p := range picks {
			if !in.Takes(p.Head) || slices.ContainsFunc(picks[:i], func(q Pick) bool { return q.Head == p.Head }) {
				t.Fatalf("%s names %s twice, or it takes nothing", name, p.Head.ID)
			}
		}
		times[picks[0].Head]++
	}
	return times
}

var byTokens = []string{"adaptive", "least_tokens", "prefix_aware", "slo"}

// In a large tier some heads are compared: each as often as another, of those that are
// loaded few, and all before none is found.
func TestALargeTierIsSampled(t *testing.T) {
	const heads, draws = 3 * fleet.LargeRank, 20_000
	for _, name := range byTokens {
		tiers := large(heads)
		parts := [8]int{}
		for h, n := range chosen(t, name, tiers, draws, nil, &Request{InputTokens: 100}) {
			if n > 4*draws/heads {
				t.Errorf("%s chooses %s %d times of %d, one of %d equal heads", name, h.ID, n, draws, heads)
			}
			parts[tiers[0].Places[h.Number]*8/heads] += n
		}
		for i, n := range parts {
			if n < draws/8*9/10 || n > draws/8*11/10 {
				t.Errorf("%s chooses from eighth %d of equal heads %d times of %d", name, i, n, draws)
			}
		}
		for i, h := range tiers[0].Heads {
			if i%4 != 0 {
				h.Live.TryAcquire(0, fleet.Work{Tokens: 5000, Pending: 5000})
			}
		}
		for h := range chosen(t, name, tiers, 1000, nil, &Request{InputTokens: 100}) {
			if h.Live.InFlight() > 0 {
				t.Errorf("%s chooses %s, which has work, of a tier of which a quarter is idle", name, h.ID)
			}
		}
		for i, h := range tiers[0].Heads {
			limit := int64(min(i/4, 1))
			if h.MaxInFlight, tiers[0].Limits[i] = limit, limit; i%4 == 0 && i > 0 {
				h.Live.TryAcquire(0, fleet.Work{})
			}
		}
		if found := chosen(t, name, tiers, 50, nil, &Request{InputTokens: 100}); len(found) == 0 || len(found) > 4 {
			t.Errorf("%s finds %d heads of the four that have a place", name, len(found))
		}
	}
}

// A head of a large tier that has the prompt is found where it stands.
func TestAWarmHeadOfALargeTierIsFound(t *testing.T) {
	for _, name := range []string{"adaptive", "prefix_aware"} {
		tiers, known := large(3*fleet.LargeRank), NewKnown(KnownOptions{})
		for _, at := range []int{0, 1, 400, 3*fleet.LargeRank - 1} {
			warm := tiers[0].Heads[at]
			req := &Request{PrefixHashes: []uint64{uint64(at) + 7, 2, 3, 4}, BlockTokens: 500, InputTokens: 2000}
			in := new(Input)
			in.Begin(req, "m", noon, 1, known, 0)
			in.Tiers = tiers
			in.RecallPrompt()
			known.Placed(in, warm, fleet.Work{Tokens: 2000, New: 2000})
			if found := chosen(t, name, tiers, 100, known, req); found[warm] != 100 {
				t.Errorf("%s: the head at %d, which has the prompt, is chosen %d times of 100", name, at, found[warm])
			}
		}
	}
}

// A cost is explained with what it was made of, not with what has changed since: the
// tier is weighed once for all its heads.
func TestTermsAreOfWhatWasScored(t *testing.T) {
	for _, spec := range Specs() {
		s, _ := plain(spec.Name, nil)
		if _, ok := s.(Explainer); !ok {
			continue
		}
		explained := func(meanwhile fleet.Work) (said string) {
			in := input([]Tier{tier("us", 0, []head{{weight: 1, inFlight: 1}, {weight: 2}, {weight: 1, inFlight: 3}})}, &Request{InputTokens: 900}, 1)
			costs := make([]float64, len(in.Heads()))
			s.Score(in, costs)
			for i, h := range in.Heads() {
				if meanwhile != (fleet.Work{}) {
					h.Live.TryAcquire(0, meanwhile)
				}
				for _, term := range Terms(s, in, costs, i) {
					if term.Name != "wait" { // that of one head, looked at for it alone
						said += fmt.Sprint(term, " ")
					}
				}
			}
			return said
		}
		if was, is := explained(fleet.Work{}), explained(fleet.Work{Tokens: 7000, New: 7000, Pending: 7000}); was != is {
			t.Errorf("%s explains costs with\n%s, which it made of\n%s", spec.Name, is, was)
		}
	}
}

// Strategies that are asked about the same request see the same of the same tier, until
// that is said to have changed.
func TestATierIsWeighedOnceForARequest(t *testing.T) {
	for _, name := range byTokens {
		in := input([]Tier{tier("us", 0, slices.Repeat([]head{{weight: 1}}, 3))}, &Request{InputTokens: 900}, 1)
		idle, scores, work := in.Heads()[1], make([]float64, 3), fleet.Work{Tokens: 7000, New: 7000, Pending: 7000}
		for _, h := range in.Heads() {
			for range 5 {
				if h != idle {
					h.Live.TryAcquire(0, work)
				}
			}
		}
		chosen := func() *fleet.Head {
			var picks [1]Pick
			chooser(t, name).Choose(in, picks[:])
			return picks[0].Head
		}
		chooser(t, "adaptive").Score(in, scores)
		for range 20 {
			idle.Live.TryAcquire(0, work)
		}
		if chosen() != idle {
			t.Errorf("%s weighs again what adaptive weighed for the same request", name)
		}
		if in.Reweigh(); chosen() == idle {
			t.Errorf("%s chooses the head that has work by now", name)
		}
		for range 20 {
			idle.Live.Release(work)
		}
		if in.Begin(in.Request, "m", noon, 2, nil, 0); chosen() != idle {
			t.Errorf("%s goes by what was weighed for another request", name)
		}
	}
}

// A head that starts slowly has as much ahead as was sent to it, where first tokens are
// seen: where prompts take some milliseconds, a traffic that needs it cannot wait for half
// a minute. Where they are not, all that is in flight seems to be ahead.
func TestAHeadThatStartsSlowlyTakesPromptsThatOthersWouldDelay(t *testing.T) {
	for _, name := range []string{"adaptive", "least_tokens"} {
		for _, seen := range []bool{true, false} {
			tiers := []Tier{tier("us", 0, slices.Repeat([]head{{weight: 1}}, 4))}
			starts := tiers[0].Heads[0]
			starts.Live.StartSlowly(noon, time.Minute, 10)
			work := fleet.Work{Tokens: 150, New: 150, Pending: 150}
			for _, h := range tiers[0].Heads[1:] {
				h.Live.TryAcquire(0, work)
				h.Live.Answers(work.Pending, !seen)
				h.Live.Release(fleet.Work{Tokens: work.Tokens})
				for range 10 {
					h.Live.TryAcquire(0, work)
				}
			}
			got := 0
			for seed := range uint64(40) {
				in := input(tiers, &Request{InputTokens: 150}, seed)
				var picks [1]Pick
				chooser(t, name).Choose(in, picks[:])
				if picks[0].Head == starts {
					got++
				}
				picks[0].Head.Live.TryAcquire(0, work)
			}
			least, most := 10, 10 // as many as each other
			if seen {
				least, most = 15, 20 // so many that it has as many ahead
			}
			if got < least || got > most {
				t.Errorf("%s, first tokens are seen: %v; a head that starts is chosen for %d of 40 prompts, want %d to %d", name, seen, got, least, most)
			}
		}
	}
}
