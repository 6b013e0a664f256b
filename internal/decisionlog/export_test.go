package decisionlog

import "time"

// Drain does what Run does with the decisions that ended until now.
func (l *Log) Drain() {
	for len(l.ended) > 0 {
		l.write(<-l.ended)
	}
}

// Flush makes a chunk of the lines there are.
func (l *Log) Flush() { l.flush(0) }

// Sampling is which of the decisions of a rate are logged.
func Sampling(rate float64) func(now time.Time, chance float64) (float64, bool) {
	return (&share{rate: rate}).takes
}

// Figures is figures.
func Figures(v float64) float64 { return figures(v) }
