package access

import (
	"math"
	"net/netip"
	"sync"
	"time"

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

// take takes a token, or says how long to wait for the next.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	if b == nil || b.AllowN(now, 1) {
		return 0, true
	}
	missing := 1 - b.TokensAt(now)
	return time.Duration(missing / float64(b.Limit()) * float64(time.Second)), false
}

// empty reports whether there is no token now.
func (b *bucket) empty(now time.Time) (wait time.Duration, yes bool) {
	if b == nil || b.TokensAt(now) >= 1 {
		return 0, false
	}
	return time.Duration((1 - b.TokensAt(now)) / float64(b.Limit()) * float64(time.Second)), true
}

// maxAddresses bounds the addresses that are remembered; beyond it the one that
// asked longest ago is forgotten.
const maxAddresses = 10_000

// addresses has a bucket for each address, made when it first asks.
type addresses struct {
	perSecond float64

	mu   sync.Mutex
	seen map[netip.Addr]*visitor
}

type visitor struct {
	bucket *bucket
	last   time.Time
}

func newAddresses(perSecond float64) *addresses {
	return &addresses{perSecond: perSecond, seen: map[netip.Addr]*visitor{}}
}

// site is who an address counts for: itself, or the 64 bits of an IPv6 one that
// a site gets.
func site(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() || a.IsLoopback() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// of returns the bucket of an address, nil without a limit.
func (t *addresses) of(a netip.Addr, now time.Time) *bucket {
	if t.perSecond <= 0 {
		return nil
	}
	a = site(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.seen[a]
	if v == nil {
		if len(t.seen) >= maxAddresses {
			t.evict()
		}
		v = &visitor{bucket: newBucket(t.perSecond)}
		t.seen[a] = v
	}
	v.last = now
	return v.bucket
}

// known returns the bucket of an address that has one.
func (t *addresses) known(a netip.Addr) *bucket {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.seen[site(a)]; v != nil {
		return v.bucket
	}
	return nil
}

// evict forgets the oldest of a few, which is old enough: a map's order is
// random.
func (t *addresses) evict() {
	var oldest netip.Addr
	var at time.Time
	looked := 0
	for a, v := range t.seen {
		if oldest == (netip.Addr{}) || v.last.Before(at) {
			oldest, at = a, v.last
		}
		if looked++; looked == 16 {
			break
		}
	}
	delete(t.seen, oldest)
}
