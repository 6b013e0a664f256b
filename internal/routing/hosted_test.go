package routing_test

import (
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// hosted are heads that begin to answer each request after their time, by its length and
// however many they have, such as hosted APIs.
type hosted struct {
	*world
	known  *strategy.Known
	firsts []time.Duration
	noise  float64 // of the logarithm of those times
	random *rand.Rand
	heads  []*fleet.Head // as far as they were chosen
	open   sync.WaitGroup
}

// playHosted runs test with such heads, on fake time.
func playHosted(t *testing.T, noise float64, test func(*hosted), firsts ...time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		known := strategy.NewKnown(strategy.KnownOptions{})
		w := &hosted{
			world: newWorld(t, func(o *routing.Options) { o.Memory = known }), known: known, firsts: firsts, noise: noise,
			random: rand.New(rand.NewPCG(1, 2)), heads: make([]*fleet.Head, len(firsts)),
		}
		for i := range firsts {
			w.head(strconv.Itoa(i), "us", nil)
		}
		test(w)
		w.open.Wait()
	})
}

// send sends so many requests at random times, and returns how many each head got and
// the calibration error of what was expected.
func (w *hosted) send(requests int, rate float64) (sent []int, off float64) {
	w.Helper()
	sent = make([]int, len(w.firsts))
	observed := 0.
	for range requests {
		time.Sleep(time.Duration(w.random.ExpFloat64() / rate * float64(time.Second)))
		tokens := 500 + w.random.Int64N(1000)
		d := w.decide(strategy.Request{InputTokens: tokens})
		i, err := strconv.Atoi(d.Head.ID)
		check(w, err)
		sent[i]++
		w.heads[i] = d.Head
		took := time.Duration(float64(w.firsts[i]) * (0.5 + float64(tokens)/2000) * math.Exp(w.noise*w.random.NormFloat64()))
		observed += took.Seconds()
		off += math.Abs(d.Predicted()/1000 - took.Seconds())
		w.open.Go(func() {
			time.Sleep(took)
			w.router.Begun(d)
			time.Sleep(2 * time.Second)
			w.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
		})
	}
	return sent, off / observed
}

// Before there is a model of the pool its heads cannot be compared: what the first of
// them took beyond a guess made them slow, so that they got nothing that could say
// otherwise.
func TestTheFirstRequestsMakeNoHeadSlow(t *testing.T) {
	const half = 500 * time.Millisecond
	playHosted(t, 0.1, func(w *hosted) {
		w.send(100, 2)
		sent, _ := w.send(600, 2)
		for i, h := range w.heads {
			if slower := w.known.Pace("m").Slower(h); sent[i] < 100 || sent[i] > 200 || slower < 0.9 || slower > 1.1 {
				t.Errorf("of 600 requests head %d of four equal ones got %d, and is taken to be %.2f times as slow", i, sent[i], slower)
			}
		}
	}, half, half, half, half)
}

// Heads that answer prompts in parallel are compared by how soon they begin, and not by
// how often they are asked; and when they begin is known, however many they have.
func TestHostedHeadsAreComparedByWhenTheyBegin(t *testing.T) {
	const quick, slow = 250 * time.Millisecond, time.Second
	for _, rate := range []float64{10, 30} {
		playHosted(t, 0.1, func(w *hosted) {
			w.send(int(60*rate), rate)
			sent, off := w.send(int(60*rate), rate)
			pace := w.known.Pace("m")
			if ratio := pace.Slower(w.heads[3]) / pace.Slower(w.heads[0]); ratio < 3 || ratio > 6 || off > 0.15 {
				t.Errorf("at %v/s a head that takes four times as long is taken to take %.1f times as long; what is expected is off by %.2f", rate, ratio, off)
			}
			if sent[0] < 2*sent[3] || sent[3] == 0 {
				t.Errorf("at %v/s %v requests went to heads of 1/4, 1/4, 1 and 1 s", rate, sent)
			}
		}, quick, quick, slow, slow)
		playHosted(t, 0.1, func(w *hosted) {
			w.send(int(60*rate), rate)
			sent, off := w.send(int(60*rate), rate)
			for i := range sent {
				if share := float64(sent[i]) / (15 * rate); share < 0.8 || share > 1.2 || off > 0.15 {
					t.Errorf("at %v/s %v requests went to equal heads; what is expected is off by %.2f", rate, sent, off)
				}
			}
		}, slow, slow, slow, slow)
	}
}
