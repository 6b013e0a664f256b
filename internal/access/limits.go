package access

import (
	"math"
	"net/netip"
	"time"

	"headway/internal/address"

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
