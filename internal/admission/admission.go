// Package admission decides when a request of the data plane may be placed. It
// bounds the requests and tokens of each caller by the minute, and has requests
// that find no place wait: a bounded number for each pool and for a bounded time,
// by priority, and fairly between callers.
package admission

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are what an Admission is made of.
type Options struct {
	Metrics    prometheus.Registerer // required
	MaxWaiting int                   // requests that wait for one pool; 0: none does
	MaxWait    time.Duration         // of one request; required with MaxWaiting
	Requests   int64                 // a minute, of callers without a limit of their own; 0: no limit
	Tokens     int64                 // a minute, likewise
	Now        func() time.Time      // nil: time.Now
}

// Caller is whose requests are limited and share places.
type Caller struct {
	ID       string // unique among all callers
	Weight   int64  // share of the places relative to others that wait; 0: 1
	Requests int64  // a minute; 0: Options.Requests, negative: no limit
	Tokens   int64  // a minute, likewise
}

// Priority is the class of a request: one of a higher class is placed first.
type Priority uint8

// The priorities.
const (
	High Priority = iota
	Normal
	Low
	priorities = iota
)

var priorityNames = [priorities]string{"high", "normal", "low"}

// ParsePriority reads high, normal or low.
func ParsePriority(s string) (Priority, bool) {
	for p, name := range priorityNames {
		if name == s {
			return Priority(p), true
		}
	}
	return Normal, false
}

func (p Priority) String() string { return priorityNames[p] }

// Errors of Wait, beside those of its context.
var (
	// ErrFull says that as many requests wait for the pool as may.
	ErrFull = errors.New("the queue of the model is full")
	// ErrTimeout says that a request waited for as long as it may.
	ErrTimeout = errors.New("no place came free in time")
)

// Admission is the gate of the data plane. All methods are safe for concurrent use.
type Admission struct {
	o       Options
	metrics *metrics
	waiting [priorities]atomic.Int64 // in all pools
	total   atomic.Int64             // sum of waiting

	mu    sync.Mutex
	pools map[string]*pool // those that requests wait for
	order uint64           // of the last request that joined

	accounts accounts
}

// New makes an Admission.
func New(o Options) (*Admission, error) {
	if o.Metrics == nil || o.MaxWaiting > 0 && o.MaxWait <= 0 {
		return nil, errors.New("admission: Metrics, and with MaxWaiting MaxWait, are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Admission{o: o, pools: map[string]*pool{}, accounts: accounts{byID: map[string]*account{}}}
	a.metrics = newMetrics(a)
	return a, nil
}
