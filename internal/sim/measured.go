package sim

import (
	"slices"
	"time"

	"headway/internal/workload"
)

// Goodput counts an answer whose first token comes within goodFirst or
// goodTimes what an idle head takes for the prompt, and whose further tokens come
// within goodToken each.
const (
	goodFirst = 2 * time.Second
	goodTimes = 3
	goodToken = 100 * time.Millisecond
)

// Measured is what a run shows.
type Measured struct {
	Requests int // that ended, failed ones too
	Failed   int
	Good     int // within the objectives
	Input    int64
	Cached   int64
	TTFT     []float64       // ms, of each that was answered, sorted
	Ends     []time.Duration // when each that was answered ended, sorted
	Sessions []float64       // s from the first request of a session to the end of its last, sorted
	Computed []int64         // prompt tokens that each head computed

	sessions map[string]*span
}

// span is the time that a session takes.
type span struct{ from, to time.Duration }

func newMeasured(heads int) *Measured {
	return &Measured{Computed: make([]int64, heads), sessions: map[string]*span{}}
}

func (m *Measured) answered(q *request, at, ttft, took time.Duration, cached int) {
	a := &q.arrival
	m.Requests++
	m.TTFT = append(m.TTFT, ms(ttft))
	m.Ends = append(m.Ends, at)
	m.Input += int64(a.Input)
	m.Cached += int64(cached)
	m.Computed[q.head.index] += int64(a.Input - cached)
	first := max(goodFirst, goodTimes*q.head.w.o.Heads[q.head.index].Profile.Prefill(a.Input))
	if ttft <= first && (a.Output < 2 || took-ttft <= time.Duration(a.Output-1)*goodToken) {
		m.Good++
	}
	m.visit(a, took)
}

func (m *Measured) failed(q *request) {
	m.Requests++
	m.Failed++
	m.visit(&q.arrival, 0)
}

func (m *Measured) visit(a *workload.Arrival, took time.Duration) {
	if a.Session == "" {
		return
	}
	s := m.sessions[a.Session]
	if s == nil {
		s = &span{from: a.At}
		m.sessions[a.Session] = s
	}
	s.from = min(s.from, a.At)
	s.to = max(s.to, a.At+took)
}

// complete sorts what was measured.
func (m *Measured) complete() *Measured {
	for _, s := range m.sessions {
		m.Sessions = append(m.Sessions, (s.to - s.from).Seconds())
	}
	slices.Sort(m.Sessions)
	slices.Sort(m.TTFT)
	slices.Sort(m.Ends)
	return m
}

// Goodput is the share of requests within the objectives.
func (m *Measured) Goodput() float64 { return share(m.Good, m.Requests) }

// answeredBy is how many requests were answered until then.
func (m *Measured) answeredBy(at time.Duration) int {
	n, _ := slices.BinarySearch(m.Ends, at+1)
	return n
}

// HitRate is the share of prompt tokens that were found in a cache.
func (m *Measured) HitRate() float64 { return share(m.Cached, m.Input) }

// Imbalance is how many times its mean share the busiest head computed.
func (m *Measured) Imbalance() float64 {
	var sum int64
	for _, n := range m.Computed {
		sum += n
	}
	if sum == 0 {
		return 1
	}
	return share(slices.Max(m.Computed)*int64(len(m.Computed)), sum)
}

// share is part of whole, 0 of nothing.
func share[N int | int64](part, whole N) float64 {
	return float64(part) / float64(max(whole, 1))
}

// mean of values; 0 of none.
func mean(values []float64) float64 {
	sum := 0.
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(len(values), 1))
}

// quantile q of sorted values; 0 of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
