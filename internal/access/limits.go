package access

import (
	"math"
	"net/netip"
	"time"

	"headway/internal/address"
	"headway/internal/strict"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// bucket is a token bucket of one key or one address; nil has no limit.
type bucket struct{ *rate.Limiter }

// newBucket allows perSecond requests, and as many at once as five seconds
// have, at least 5; 0 is no limit.
func newBucket(perSecond float64) *bucket {
	if perSecond <= 0 {
		return nil
	}
	return &bucket{rate.NewLimiter(rate.Limit(perSecond), int(math.Max(5, math.Ceil(5*perSecond))))}
}

// take takes a token, or returns how long to wait for the next.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	if b == nil || b.AllowN(now, 1) {
		return 0, true
	}
	return b.wait(now), false
}

// wait is how long to wait for a token; 0 or less: there is one.
func (b *bucket) wait(now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	return time.Duration((1 - b.TokensAt(now)) / float64(b.Limit()) * float64(time.Second))
}

// addresses has a bucket for each address, made for its first request.
type addresses struct {
	perSecond float64
	buckets   *cache[netip.Addr, *bucket]
}

func newAddresses(perSecond float64, forgotten prometheus.Counter) *addresses {
	return &addresses{perSecond, newCache[netip.Addr, *bucket](forgotten)}
}

// of returns the bucket of an address, nil without a limit.
func (t *addresses) of(a netip.Addr, now time.Time) *bucket {
	if t.perSecond <= 0 {
		return nil
	}
	return t.buckets.getOrMake(address.Site(a), now, func() *bucket { return newBucket(t.perSecond) })
}

// known returns the bucket of an address that has one.
func (t *addresses) known(a netip.Addr, now time.Time) (*bucket, bool) {
	return t.buckets.get(address.Site(a), now)
}

// Limits are what a key may use of the data plane.
type Limits struct {
	RequestsPerMinute int64 `json:"requests_per_minute,omitzero"` // 0: as the settings say, -1: no limit
	TokensPerMinute   int64 `json:"tokens_per_minute,omitzero"`   // likewise
	Weight            int64 `json:"weight,omitzero"`              // share of the places relative to others that wait; 0: 1
}

// Bounds of limits.
const (
	MaxPerMinute = 1_000_000_000
	MaxWeight    = 1000
)

func (l *Limits) check() (faults strict.Faults) {
	perMinute := func(at string, v int64) {
		if v < -1 || v > MaxPerMinute {
			faults.Add(at, "want 1 to %d, 0 for the limit of the settings, or -1 for none", MaxPerMinute)
		}
	}
	perMinute("/requests_per_minute", l.RequestsPerMinute)
	perMinute("/tokens_per_minute", l.TokensPerMinute)
	if l.Weight < 0 || l.Weight > MaxWeight {
		faults.Add("/weight", "want 1 to %d", MaxWeight)
	}
	return faults
}
