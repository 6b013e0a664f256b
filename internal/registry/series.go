package registry

import "time"

// named is who has series of its own, of those that would have one if there
// were room. A name that has series keeps them: others that come do not push it
// into the sum, and it stays for a time after its last head.
type named[K comparable] struct {
	limit  int
	forget time.Duration   // after its last head
	last   map[K]time.Time // when it had heads
}

func newNamed[K comparable](limit int, forget time.Duration) named[K] {
	return named[K]{limit: limit, forget: forget, last: map[K]time.Time{}}
}

// update takes the names that have heads now, and returns how many of them have
// no series.
func (n *named[K]) update(now time.Time, present []K) (folded int) {
	for _, name := range present {
		if _, held := n.last[name]; held {
			n.last[name] = now
		}
	}
	for name, last := range n.last {
		if now.Sub(last) > n.forget {
			delete(n.last, name)
		}
	}
	for _, name := range present {
		switch _, held := n.last[name]; {
		case held:
		case len(n.last) < n.limit:
			n.last[name] = now
		default:
			folded++
		}
	}
	return folded
}

func (n *named[K]) has(name K) bool {
	_, held := n.last[name]
	return held
}

// drop forgets names at once.
func (n *named[K]) drop(names []K) {
	for _, name := range names {
		delete(n.last, name)
	}
}
