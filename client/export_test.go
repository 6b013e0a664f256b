package client

import "time"

// WithRandom replaces the chance in waits; random gives 0 to 1.
func WithRandom(random func() float64) Option {
	return func(s *settings) error { s.random = random; return nil }
}

// RetryAfter reads the header.
func RetryAfter(text string, now time.Time) time.Duration { return retryAfter(text, now) }

// The budget and bounds that tests hold it to.
const (
	MaxBudget       = maxBudget
	BudgetPerCall   = budgetPerCall
	BudgetPerSecond = budgetPerSecond
	MaxAnswer       = maxAnswer
)
