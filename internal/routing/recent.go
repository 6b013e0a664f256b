package routing

import (
	"strconv"
	"strings"
	"sync"
)

// maxFailed is how many of the decisions that found no head are kept: callers
// can make as many as they like, and they must not push out those that did.
const maxFailed = 1024

// failedBit tells the id of a decision that found no head from the others.
const failedBit = 1 << 63

// failed keeps the newest decisions that found no head.
type failed struct {
	mu    sync.Mutex
	count uint64
	ring  [maxFailed]*Decision
}

// add numbers d and keeps it; made is the sequence of the newest decision that
// found a head.
func (f *failed) add(d *Decision, made uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	d.sequence, d.failed = made, f.count
	f.ring[d.failed%maxFailed] = d
}

// find returns the decision of that number, or nil.
func (f *failed) find(number, nonce uint64) *Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.ring[number%maxFailed]; d != nil && d.failed == number && d.nonce == nonce {
		return d
	}
	return nil
}

// recent returns those that q selects, newest first.
func (f *failed) recent(q RecentQuery) (found []*Decision) {
	if q.Head != "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := f.count; n > 0 && n+maxFailed > f.count && len(found) < q.Limit; n-- {
		d := f.ring[n%maxFailed]
		if (q.Before == Place{} || d.Place().before(q.Before)) && (q.ModelType == "" || q.ModelType == d.ModelType) {
			found = append(found, d)
		}
	}
	return found
}

// Place is where a decision stands among the recent ones, which are ordered by
// it. The zero value is the end.
type Place struct{ made, failed uint64 }

// Place is the decision's place.
func (d *Decision) Place() Place { return Place{d.sequence, d.failed} }

func (p Place) before(o Place) bool {
	return p.made < o.made || p.made == o.made && p.failed < o.failed
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

// merge puts two lists in the order of their places, newest first, and keeps at
// most limit.
func merge(made, failed []*Decision, limit int) []*Decision {
	if len(failed) == 0 {
		return made
	}
	list := make([]*Decision, 0, min(len(made)+len(failed), limit))
	for len(list) < limit && len(made)+len(failed) > 0 {
		from := &made
		if len(made) == 0 || len(failed) > 0 && made[0].Place().before(failed[0].Place()) {
			from = &failed
		}
		list = append(list, (*from)[0])
		*from = (*from)[1:]
	}
	return list
}

// RecentQuery selects among the recent decisions.
type RecentQuery struct {
	Limit     int    // at most this many, at least 1
	ModelType string // "": any
	Head      string // id, "": any
	Before    Place  // only decisions that stand before it; zero: from the newest on
}

// recent returns decisions that q selects, newest first.
func (r *reservations) recent(q RecentQuery) []*Decision {
	newest := r.sequence.Load()
	from := newest
	switch {
	case q.Before.failed > 0:
		from = min(from, q.Before.made)
	case q.Before.made > 0:
		from = min(from, q.Before.made-1)
	}
	oldest := uint64(1)
	if newest > uint64(len(r.slots)) {
		oldest = newest - uint64(len(r.slots)) + 1
	}
	var found []*Decision
	for s := from; s >= oldest && len(found) < q.Limit; s-- {
		d := r.slot(s).Load()
		if d == nil || d.sequence != s {
			continue
		}
		if (q.ModelType == "" || d.ModelType == q.ModelType) && (q.Head == "" || d.Head.ID == q.Head) {
			found = append(found, d)
		}
	}
	return found
}

// Newest is the sequence of the newest decision, 0 before the first.
func (r *Router) Newest() uint64 { return r.recent.sequence.Load() }

// Since appends to list the decisions after the one with the given sequence,
// oldest first and at most limit of them. It returns the sequence up to which
// it looked, and how many decisions before that it could not give: those that
// the ring no longer has.
func (r *Router) Since(sequence uint64, limit int, list []*Decision) (_ []*Decision, seen, lost uint64) {
	newest := r.recent.sequence.Load()
	if size := uint64(len(r.recent.slots)); newest > size && sequence < newest-size {
		lost = newest - size - sequence
		sequence = newest - size
	}
	for n := 0; sequence < newest && n < limit; n++ {
		d := r.recent.slot(sequence + 1).Load()
		if d == nil || d.sequence < sequence+1 {
			break // numbered, and about to be stored
		}
		sequence++
		if d.sequence > sequence {
			lost++ // overwritten while we looked
			continue
		}
		list = append(list, d)
	}
	return list, sequence, lost
}
