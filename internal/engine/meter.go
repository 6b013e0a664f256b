package engine

import (
	"math"
	"time"
)

// meter averages tokens and busy time with an exponential decay.
type meter struct {
	window       float64       // time constant in seconds
	at           time.Duration // of the sums
	tokens, busy float64       // decayed sums; busy in seconds
}

func (m *meter) add(now, took time.Duration, tokens int) {
	m.decay(now)
	m.tokens += float64(tokens)
	m.busy += took.Seconds()
}

func (m *meter) decay(now time.Duration) {
	f := math.Exp(-(now - m.at).Seconds() / m.window)
	m.tokens *= f
	m.busy *= f
	m.at = now
}

// rates are the averages at now. Early on they cover the elapsed time only.
func (m *meter) rates(now time.Duration) (tokensPerSecond, utilization float64) {
	m.decay(now)
	weight := m.window * (1 - math.Exp(-now.Seconds()/m.window))
	if weight <= 0 {
		return 0, 0
	}
	return m.tokens / weight, min(1, m.busy/weight)
}
