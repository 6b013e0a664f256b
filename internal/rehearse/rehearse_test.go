package rehearse_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/policy"
	"headway/internal/rehearse"
)

func named(t testing.TB, strategy string) *policy.Policy {
	t.Helper()
	p, faults := policy.Compile(policy.Document{DefaultStrategy: strategy})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func number(v float64) *float64 { return &v }

// logged is a log of conversations at n heads, of which the last takes three times as
// long; each token of a prompt takes 0.05 ms there, each of an answer 20 ms.
func logged(requests, n int, each time.Duration, share float64) *rehearse.Log {
	l := rehearse.NewLog(100_000)
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range requests {
		session := uint64(i%40) + 1
		tokens := int64(2000 + 500*(i/40))
		d := api.LoggedDecision{
			At: begin.Add(time.Duration(i) * each), DecisionID: "dec", ModelType: "m", Region: "us", Share: share, InputTokens: tokens, BlockTokens: 512,
			Session: "s" + string(rune('a'+session%26)) + string(rune('a'+session/26)), Head: "head-1", Candidates: n,
		}
		for b := range tokens / 512 {
			const digits = "0123456789abcdef"
			d.Blocks = append(d.Blocks, "00000000000"+string(digits[session/16])+string(digits[session%16])+string(digits[b/16])+string(digits[b%16])+"1")
		}
		for h := range n {
			ahead, slower := float64(random.IntN(20_000)), 1.
			if h == n-1 {
				slower = 3
			}
			d.Heads = append(d.Heads, api.LoggedHead{
				ID: "head-" + string(rune('1'+h)), Region: "us", AheadTokens: ahead, UncachedTokens: float64(tokens), KVUse: float64(tokens) / 300_000,
				Slower: slower, PredictedMs: number(slower * (5 + 0.05*(ahead+float64(tokens)))),
			})
		}
		output := int64(21)
		d.Outcome = &api.LoggedOutcome{Result: "ok", TTFTMs: number(250), DurationMs: number(650), OutputTokens: &output}
		l.Add(&d)
	}
	return l
}

func play(t testing.TB, l *rehearse.Log, run rehearse.Run) rehearse.Result {
	t.Helper()
	pools, _ := l.Pools()
	r, unknown, err := l.Play(t.Context(), pools[0], run)
	if err != nil {
		t.Fatalf("%v, unknown is %q", err, unknown)
	}
	return r
}

// A policy that knows caches and speeds does better on a log where both matter, and a
// play is the same each time.
func TestAnotherPolicyIsCompared(t *testing.T) {
	l := logged(800, 4, 80*time.Millisecond, 1)
	before := play(t, l, rehearse.Run{Policy: named(t, "round_robin")})
	after := play(t, l, rehearse.Run{Policy: named(t, "adaptive")})
	if before.Requests != 800 || after.Requests != 800 || before.Failed+after.Failed > 0 {
		t.Fatalf("%+v and %+v", before, after)
	}
	if after.MeanMs > before.MeanMs*0.8 || after.HitRate < 0.5 || after.P50Ms > after.P95Ms || after.Goodput < before.Goodput {
		t.Errorf("round_robin: %+v, adaptive: %+v", before, after)
	}
	if again := play(t, l, rehearse.Run{Policy: named(t, "adaptive")}); again != after {
		t.Errorf("again: %+v, before that %+v", again, after)
	}
	pools, _ := l.Pools()
	if r, ok := pools[0].Measured(); !ok || r.MeanMs != 250 || r.P50Ms != 250 || r.P95Ms != 250 {
		t.Errorf("measured is %+v", r)
	}
}

// The model of the heads has the times of the log: an idle head takes for a prompt what
// was predicted of it.
func TestHeadsAreFittedToTheLog(t *testing.T) {
	l := logged(100, 1, 10*time.Second, 1) // the one head takes three times as long
	r := play(t, l, rehearse.Run{Policy: named(t, "round_robin")})
	if want := 3 * 0.05 * 2000; math.Abs(r.P50Ms-want) > 0.5*want {
		t.Errorf("a prompt of 2,000 tokens takes %v ms, want about %v", r.P50Ms, want)
	}
}

// Without a head the others have its requests, those that are gone aside.
func TestAHeadIsDrained(t *testing.T) {
	drain := func(l *rehearse.Log, gone ...string) (api.RehearsedPool, error) {
		d := rehearse.Drain{Log: l, Policy: named(t, "adaptive"), Head: "head-1", Has: func(id string) bool {
			return id != "head-1" && !slices.Contains(gone, id) // it is being drained already
		}}
		all, err := d.Play(t.Context())
		if err != nil {
			return api.RehearsedPool{}, err
		}
		return all[0], nil
	}
	l := logged(800, 4, 50*time.Millisecond, 1)
	r, err := drain(l)
	if err != nil || r.HeadsLeft != 3 || *r.After.P95TTFTMs < *r.Before.P95TTFTMs*1.1 || r.Before.Requests != 800 || r.After.Requests != 800 || !r.CarriesLoad {
		t.Errorf("%+v, %v", r, err)
	}
	fewer, err := drain(l, "head-2")
	if err != nil || fewer.HeadsLeft != 2 || *fewer.Before.P95TTFTMs <= *r.Before.P95TTFTMs {
		t.Errorf("without a head that is gone: %+v, with it %+v, %v", fewer, r, err)
	}
	if crowded, err := drain(logged(800, 3, 60*time.Millisecond, 1)); err != nil || crowded.CarriesLoad {
		t.Errorf("two heads carry what three do not: %+v, %v", crowded, err)
	}
	if only, err := drain(logged(100, 1, time.Second, 1)); err != nil || only.HeadsLeft != 0 || only.After.Failed != 100 || only.CarriesLoad {
		t.Errorf("without the only head: %+v, %v", only, err)
	}
	if r, err := drain(logged(49, 2, time.Second, 1)); !errors.Is(err, rehearse.ErrTooLittle) {
		t.Errorf("of 49 requests is said %+v, %v", r, err)
	}
}

// The newest requests are played where there are more than may be, and the heads that
// they had.
func TestTheNewestArePlayed(t *testing.T) {
	l := rehearse.NewLog(200)
	begin := time.Unix(1e9, 0)
	add := func(i int, share float64, blocks int) {
		l.Add(&api.LoggedDecision{
			At: begin.Add(time.Duration(i) * time.Second), DecisionID: "d", ModelType: "m", Share: share, InputTokens: 512 * int64(blocks+1), BlockTokens: 512,
			Blocks: slices.Repeat([]string{"0000000000000001"}, blocks), Heads: []api.LoggedHead{{ID: "h" + strconv.Itoa(i/180), Slower: 1}},
		})
	}
	played := func() (n int, heads []string) {
		pools, _ := l.Pools()
		for _, p := range pools {
			n, heads = n+play(t, l, rehearse.Run{Policy: named(t, "round_robin")}).Requests, p.Heads()
		}
		return n, heads
	}
	for i := range 200 {
		add(i, 1, 1)
	}
	if n, heads := played(); n != 200 || !l.Since.IsZero() || len(heads) != 2 {
		t.Errorf("of 200 requests %d are played, since %v, at %q", n, l.Since, heads)
	}
	for i := 200; i < 400; i++ {
		add(i, 1, 1)
	}
	if n, heads := played(); n < 100 || n > 200 || l.Since.Before(begin.Add(200*time.Second)) || len(heads) != 2 {
		t.Errorf("of 400 requests %d are played, since %v, at %q", n, l.Since, heads)
	}
	for i := 400; i < 600; i++ {
		add(i, 0.5, 1) // each stands for two
	}
	if n, _ := played(); n < 100 || n > 200 || l.Since.Before(begin.Add(400*time.Second)) {
		t.Errorf("%d are played, since %v", n, l.Since)
	}
	for i := 600; i < 800; i++ {
		add(i, 1, 32) // twice as many blocks as are usual
	}
	if n, _ := played(); n < 50 || n > 100 {
		t.Errorf("%d long prompts are played", n)
	}
}

// A request that stands for others is played as often.
func TestAShareStandsForAll(t *testing.T) {
	r := play(t, logged(400, 4, 100*time.Millisecond, 0.4), rehearse.Run{Policy: named(t, "random")})
	if r.Requests < 900 || r.Requests > 1100 {
		t.Errorf("400 requests, which are a share of 0.4, are played %d times", r.Requests)
	}
}

// engines is a log of one head, on which 20 conversations take turns with prompts of 5,000
// tokens that are always the same, and of which so much is known.
func engines(kvUse, perToken float64) *rehearse.Log {
	l := rehearse.NewLog(10_000)
	for i := range 200 {
		blocks := make([]string, 10)
		for b := range blocks {
			blocks[b] = strconv.FormatInt(int64(1+i%20*100+b), 16)
		}
		l.Add(&api.LoggedDecision{
			At: time.Unix(int64(3*i), 0), DecisionID: "d", ModelType: "m", Share: 1, InputTokens: 5000, BlockTokens: 512, Blocks: blocks,
			Heads:   []api.LoggedHead{{ID: "a", Slower: 1, KVUse: kvUse}},
			Outcome: &api.LoggedOutcome{Result: "ok", TTFTMs: number(200), DurationMs: number(200 + 20*perToken), OutputTokens: new(int64(21))},
		})
	}
	return l
}

// Heads hold as much in their caches as those of the log, and write answers as fast.
func TestHeadsHaveTheCachesAndTheSpeedOfTheLog(t *testing.T) {
	of := func(kvUse, perToken float64) rehearse.Result {
		return play(t, engines(kvUse, perToken), rehearse.Run{Policy: named(t, "round_robin")})
	}
	if large, small := of(0.01, 20), of(0.25, 20); large.HitRate < 0.8 || small.HitRate > 0.1 {
		t.Errorf("of 100 prompts that return after 20 others %.2f is cached where 100 fit, and %.2f where 4 do", large.HitRate, small.HitRate)
	}
	if fast, slow := of(0.01, 20), of(0.01, 150); fast.Goodput < 0.9 || slow.Goodput > 0.1 {
		t.Errorf("goodput is %.2f with 20 ms a token, %.2f with 150 ms, of which at most 100 are good", fast.Goodput, slow.Goodput)
	}
}

// What stands for others that were not logged shares nothing with them: it may be that
// they were of other conversations.
func TestWhatARequestStandsForIsOfOtherConversations(t *testing.T) {
	l := rehearse.NewLog(10_000)
	for i := range 100 {
		l.Add(&api.LoggedDecision{
			At: time.Unix(int64(10*i), 0), DecisionID: "d", ModelType: "m", Share: 0.25, InputTokens: 2000, BlockTokens: 512,
			Blocks: []string{strconv.Itoa(4*i + 1), strconv.Itoa(4*i + 2), strconv.Itoa(4*i + 3)}, Heads: []api.LoggedHead{{ID: "a", Slower: 1}},
		})
	}
	if r := play(t, l, rehearse.Run{Policy: named(t, "round_robin")}); r.Requests != 400 || r.HitRate > 0.01 {
		t.Errorf("of prompts that share nothing %.2f is cached in %d requests", r.HitRate, r.Requests)
	}
}

// Heads have the weights of the log, 1 where a line has none: of two, one of which takes
// ten times as long, the slow one has few requests if its weight is small.
func TestHeadsHaveTheirWeights(t *testing.T) {
	mean := func(weight float64) float64 {
		l := rehearse.NewLog(1000)
		for i := range 200 {
			l.Add(&api.LoggedDecision{
				At: time.Unix(int64(5*i), 0), DecisionID: "d", ModelType: "m", Share: 1, InputTokens: 2000,
				Heads: []api.LoggedHead{{ID: "a", Slower: 1}, {ID: "b", Slower: 10, Weight: weight}},
			})
		}
		return play(t, l, rehearse.Run{Policy: named(t, "weighted_round_robin")}).MeanMs
	}
	equal, small := mean(0), mean(0.1)
	if ratio := small / equal; math.Abs(ratio-(10./11+10./11)/5.5) > 0.05 {
		t.Errorf("the mean is %v ms with equal weights, %v ms with a tenth for the slow head: %v times", equal, small, ratio)
	}
	if mean(1) != equal {
		t.Error("a weight that is left out is not 1")
	}
}

func TestWhatIsNotKnownIsSaid(t *testing.T) {
	l := rehearse.NewLog(200)
	for i := range 100 {
		l.Add(&api.LoggedDecision{
			At: time.Unix(int64(i), 0), DecisionID: "d", ModelType: "m", Share: 1, InputTokens: 100, Heads: []api.LoggedHead{{ID: "a", Slower: 1}},
		})
	}
	pools, _ := l.Pools()
	_, unknown, err := l.Play(t.Context(), pools[0], rehearse.Run{Policy: named(t, "adaptive")})
	if err != nil || len(unknown) != 3 || !strings.Contains(unknown[0], "llama8b-h100") {
		t.Errorf("unknown is %q, %v", unknown, err)
	}
	if r, ok := pools[0].Measured(); ok {
		t.Errorf("of no outcome is measured %+v", r)
	}
	few := rehearse.NewLog(9)
	few.Add(&api.LoggedDecision{DecisionID: "d", ModelType: "m", Share: 1, InputTokens: 1})
	if pools, names := few.Pools(); len(pools) != 0 || len(names) != 1 {
		t.Errorf("%d pools of one request, %q", len(pools), names)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.Play(ended, pools[0], rehearse.Run{Policy: named(t, "adaptive")}); !errors.Is(err, context.Canceled) {
		t.Errorf("a play that was ended: %v", err)
	}
}
