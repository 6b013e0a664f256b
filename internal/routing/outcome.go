package routing

import (
	"slices"
	"time"
)

// Result is how a request ended.
type Result uint8

// The results a caller can report; ResultExpired is what the router writes
// when the reservation's time ran out first, ResultEvicted when it had to make
// room for newer ones.
const (
	ResultNone Result = iota
	ResultOK
	ResultError
	ResultCancelled
	ResultExpired
	ResultEvicted
)

var resultNames = [...]string{"", "ok", "error", "cancelled", "expired", "evicted"}

func (r Result) String() string { return resultNames[r] }

// ParseResult reads ok, error or cancelled.
func ParseResult(s string) (Result, bool) {
	i := slices.Index(resultNames[1:1+ResultCancelled], s)
	return Result(i + 1), i >= 0
}

// Outcome is what a caller reports of a request. Numbers that it left out are
// fleet.Unknown.
type Outcome struct {
	Result       Result
	StatusCode   int64
	TTFT         float64 // ms to the first token
	Duration     float64 // ms
	InputTokens  int64
	OutputTokens int64
	CachedTokens int64
	At           time.Time
}
