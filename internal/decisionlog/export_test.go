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

// Look does what Run does from time to time.
func (l *Log) Look() { l.look() }

// Held is about how many bytes decisions take that are not written yet.
func (l *Log) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// Waiting is how many decisions wait for a late outcome.
func (l *Log) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unreported.Len()
}

// Hold lets those take so many.
func (l *Log) Hold(most int) { l.maxHeld = most }

// Sampling is which of the decisions of a rate are logged.
func Sampling(rate float64) func(now time.Time, chance float64) (float64, bool) {
	return (&share{rate: rate}).takes
}

// Figures is figures.
func Figures(v float64) float64 { return figures(v) }
