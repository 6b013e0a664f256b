package sim

import (
	"testing"
	"time"

	"headway/internal/workload"
)

func TestGoodputIsWithinTheObjectives(t *testing.T) {
	w := &world{o: Options{Heads: []Head{{Profile: profile(t, "qwen32b-h100x2")}, {}}}}
	h := &head{w: w}
	second := time.Second
	for _, c := range []struct {
		what          string
		input, output int
		ttft, took    time.Duration
		good          bool
	}{
		{"a short prompt in 2 s", 100, 1, 2 * second, 2 * second, true},
		{"a short prompt in more", 100, 1, 2*second + 1, 2*second + 1, false},
		{"a long prompt in 3 times of alone", 100_000, 1, 30 * second, 30 * second, true},
		{"a long prompt in more", 100_000, 1, 60 * second, 60 * second, false},
		{"tokens in 100 ms each", 100, 11, second, 2 * second, true},
		{"tokens in more", 100, 11, second, 2*second + 1, false},
	} {
		m := newMeasured(2)
		m.answered(&request{arrival: workload.Arrival{Input: c.input, Output: c.output}, head: h}, c.took, c.ttft, c.took, 0)
		if (m.Good == 1) != c.good || m.Goodput() != float64(m.Good) {
			t.Errorf("%s: %d of 1 is good", c.what, m.Good)
		}
	}
}

func TestWhatIsMeasured(t *testing.T) {
	w := &world{o: Options{Heads: []Head{{Profile: profile(t, "qwen32b-h100x2")}, {Profile: profile(t, "qwen32b-h100x2")}}}}
	heads := []*head{{w: w}, {w: w, index: 1}}
	m := newMeasured(2)
	at := func(head int, session string, at, took time.Duration, cached int) {
		a := workload.Arrival{At: at, Input: 1000, Output: 1, Session: session}
		m.answered(&request{arrival: a, head: heads[head]}, at+took, took, took, cached)
	}
	at(0, "a", time.Second, time.Second, 0)
	at(1, "a", 5*time.Second, 2*time.Second, 500)
	at(0, "b", 2*time.Second, time.Second, 0)
	m.failed(&request{arrival: workload.Arrival{At: time.Minute}})
	m.complete()
	if m.Requests != 4 || m.Failed != 1 || m.HitRate() != 500./3000 || m.Imbalance() != 2000*2./2500 {
		t.Errorf("%d requests, %d failed, %v hits, imbalance %v", m.Requests, m.Failed, m.HitRate(), m.Imbalance())
	}
	if len(m.Sessions) != 2 || m.Sessions[0] != 1 || m.Sessions[1] != 6 {
		t.Errorf("sessions took %v s", m.Sessions)
	}
	if m.answeredBy(3*time.Second) != 2 || m.answeredBy(time.Minute) != 3 || m.answeredBy(0) != 0 {
		t.Errorf("%d by 3 s, %d by a minute", m.answeredBy(3*time.Second), m.answeredBy(time.Minute))
	}
	if mean(m.TTFT) != 4000./3 || quantile(m.TTFT, 0.5) != 1000 || quantile(m.TTFT, 1) != 2000 || quantile(nil, 0.5) != 0 || mean(nil) != 0 {
		t.Errorf("first tokens %v", m.TTFT)
	}
}
