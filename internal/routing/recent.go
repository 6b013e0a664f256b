package routing

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// ring keeps the newest decisions by their numbers. Its size is a power of two.
type ring []atomic.Pointer[Decision]

// newRing rounds size up to a power of two.
func newRing(size int) ring {
	n := 1
	for n < size {
		n *= 2
	}
	return make(ring, n)
}

func (r ring) slot(number uint64) int { return int(number & uint64(len(r)-1)) }

func (r ring) at(number uint64) *atomic.Pointer[Decision] { return &r[r.slot(number)] }

// oldest is the oldest number that is kept.
func (r ring) oldest(newest uint64) uint64 {
	size := uint64(len(r))
	return max(newest, size) - size + 1
}

// find returns the decision of that number, or nil.
func (r ring) find(number, nonce uint64) *Decision {
	if d := r.at(number).Load(); d != nil && d.number() == number && d.nonce == nonce {
		return d
	}
	return nil
}

// recent returns the decisions that q selects, from a number on down.
func (r ring) recent(from, oldest uint64, q RecentQuery) (found []*Decision) {
	for n := from; n >= oldest && len(found) < q.Limit; n-- {
		if d := r.at(n).Load(); d != nil && d.number() == n && q.selects(d) {
			found = append(found, d)
		}
	}
	return found
}

// maxFailures is how many of the decisions that found no head are kept: callers
// can make as many as they like, and they must not push out those that did.
const maxFailures = 1024

// failureBit tells the number of a decision that found no head from the others.
const failureBit = 1 << 63

// failures keeps the newest decisions that found no head.
type failures struct {
	ring
	mu    sync.Mutex // one is added at a time, so that their places are in order
	count atomic.Uint64
}

// add numbers d and keeps it; made is the number of the newest decision that
// found a head.
func (f *failures) add(d *Decision, made *atomic.Uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.origin == nil {
		d.origin = new(origin)
	}
	d.sequence, d.origin.failed = made.Load(), f.count.Load()+1
	f.at(d.origin.failed).Store(d)
	f.count.Store(d.origin.failed)
}

// RecentQuery selects among the recent decisions.
type RecentQuery struct {
	Limit     int    // at most this many, at least 1
	ModelType string // "": any
	Head      string // id, "": any
	RequestID string // "": any
	Result    string // one of Results, "": any
	Before    Place  // only decisions that stand before it; zero: from the newest on
}

func (q *RecentQuery) selects(d *Decision) bool {
	return (q.Before == Place{} || d.Place().compare(q.Before) < 0) && (q.ModelType == "" || q.ModelType == d.ModelType) &&
		(q.Head == "" || d.Head != nil && q.Head == d.Head.ID) && (q.RequestID == "" || q.RequestID == d.RequestID()) && q.ended(d)
}

// The results of decisions that are no Result: one that is open, and one that found no
// head.
const (
	resultOpen   = "open"
	resultFailed = "failed"
)

// Results lists what RecentQuery.Result may be.
func Results() []string {
	return append(slices.Clone(resultNames[ResultOK:]), resultOpen, resultFailed)
}

// ended reports whether a decision ended as the query wants.
func (q *RecentQuery) ended(d *Decision) bool {
	o, over := d.Outcome()
	switch {
	case q.Result == "":
		return true
	case d.Head == nil:
		return q.Result == resultFailed
	case !over:
		return q.Result == resultOpen
	}
	return q.Result == o.Result.String()
}

// Place is where a decision stands among the recent ones, which are ordered by
// it. The zero value is the end.
type Place struct{ made, failed uint64 }

// Place is the decision's place.
func (d *Decision) Place() Place { return Place{d.sequence, d.failed()} }

func (p Place) compare(o Place) int {
	return cmp.Or(cmp.Compare(p.made, o.made), cmp.Compare(p.failed, o.failed))
}

// String writes the place for ParsePlace.
func (p Place) String() string {
	text := strconv.FormatUint(p.made, 10)
	if p.failed > 0 {
		text += "." + strconv.FormatUint(p.failed, 10)
	}
	return text
}

// ParsePlace reads what String writes.
func ParsePlace(text string) (p Place, ok bool) {
	made, number, two := strings.Cut(text, ".")
	var err, err2 error
	p.made, err = strconv.ParseUint(made, 10, 64)
	if two {
		p.failed, err2 = strconv.ParseUint(number, 10, 64)
	}
	return p, err == nil && err2 == nil && p != Place{} && p.String() == text
}

// Decision returns a recent decision, also one that found no head, or
// ErrDecisionNotFound.
func (r *Router) Decision(id string) (*Decision, error) {
	if number, nonce, ok := parseID(id); ok && number&failureBit != 0 {
		if d := r.failures.find(number, nonce); d != nil {
			return d, nil
		}
	}
	return r.made(id)
}

// made returns a recent decision that found a head, or ErrDecisionNotFound.
func (r *Router) made(id string) (*Decision, error) {
	if number, nonce, ok := parseID(id); ok {
		if d := r.recent.find(number, nonce); d != nil {
			return d, nil
		}
	}
	return nil, ErrDecisionNotFound
}

// Recent returns the recent decisions that q selects, newest first, those that
// found no head among them.
func (r *Router) Recent(q RecentQuery) []*Decision {
	newest, failed := r.recent.newest.Load(), r.failures.count.Load()
	from := newest
	if (q.Before != Place{}) {
		from = min(from, q.Before.made)
	}
	list := r.recent.recent(from, r.recent.oldest(newest), q)
	n := len(list)
	list = append(list, r.failures.recent(failed|failureBit, r.failures.oldest(failed)|failureBit, q)...)
	if n < len(list) {
		slices.SortFunc(list, func(a, b *Decision) int { return b.Place().compare(a.Place()) })
	}
	return list[:min(len(list), q.Limit)]
}

// Newest is the number of the newest decision that found a head, 0 before the
// first.
func (r *Router) Newest() uint64 { return r.recent.newest.Load() }

// Since appends to list the decisions after the one with the given number, oldest
// first and at most limit of them. It returns the number up to which it looked,
// and how many before that the ring no longer has.
func (r *Router) Since(number uint64, limit int, list []*Decision) (_ []*Decision, seen, lost uint64) {
	newest := r.recent.newest.Load()
	if before := r.recent.oldest(newest) - 1; number < before {
		number, lost = before, before-number
	}
	for n := 0; number < newest && n < limit; n++ {
		d := r.recent.at(number + 1).Load()
		if d == nil || d.sequence < number+1 {
			break // numbered, and about to be stored
		}
		number++
		if d.sequence > number {
			lost++ // overwritten meanwhile
			continue
		}
		list = append(list, d)
	}
	return list, number, lost
}
