package audit

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// The most records of denied attempts that one window of folding lets through
// one by one.
const (
	foldPerAddress = 8
	foldInAll      = 128
)

// notes are the records without a waiting caller, in the order of arrival.
type notes struct {
	mu      sync.Mutex
	waiting []*pending
	bytes   int
	closed  bool
	dropped uint64
	folded  uint64

	ends     time.Time // of the window of folding; zero: there is none
	folds    map[foldKey]*fold
	order    []*fold
	distinct map[string]int // what an address has tried in the window
}

// foldKey is what makes denied attempts alike. One with only an address stands
// for all else that the address tries, the zero one for all else.
type foldKey struct {
	address  string
	category Category
	action   string
	reason   string
	actor    Actor
	target   Target
}

type fold struct {
	entry Entry
	count uint64
	at    time.Time
}

// size is what p takes in memory, nearly.
func (p *pending) size() int {
	return 512 + len(p.entry.Reason) + len(p.entry.Before) + len(p.entry.After) + len(p.entry.Source.UserAgent) + len(p.entry.Target.ID)
}

// add queues p behind the others, or drops it.
func (n *notes) add(p *pending) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.waiting) >= maxNotes || n.bytes+p.size() > noteBytes {
		n.dropped++
		return
	}
	n.waiting = append(n.waiting, p)
	n.bytes += p.size()
}

// next returns up to most notes, the oldest first. They stay queued until they
// are removed.
func (n *notes) next(most int) []*pending {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*pending(nil), n.waiting[:min(most, len(n.waiting))]...)
}

// count is how many wait.
func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.waiting)
}

// remove takes the oldest notes away, which have been written.
func (n *notes) remove(written int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.waiting[:written] {
		n.bytes -= p.size()
	}
	n.waiting = append([]*pending(nil), n.waiting[written:]...)
}

// delay marks all that wait as late.
func (n *notes) delay() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.waiting {
		p.late = true
	}
}

// close drops what waits and all that comes, and returns how many were dropped.
func (n *notes) close() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := len(n.waiting)
	n.closed, n.waiting, n.bytes = true, nil, 0
	n.dropped += uint64(left)
	return left
}

// fold reports whether e, a denied attempt like one in this window, needs no
// record of its own.
func (n *notes) fold(e Entry, now time.Time) bool {
	if e.Outcome != Denied {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends.IsZero() {
		n.ends, n.folds, n.distinct = now.Add(foldFor), make(map[foldKey]*fold), make(map[string]int)
	}
	address := network(e.Source.IP)
	key := foldKey{address, e.Category, e.Action, e.Reason, e.Actor, e.Target}
	f := n.folds[key]
	switch {
	case f != nil:
	case len(n.folds) < foldInAll && n.distinct[address] < foldPerAddress:
		n.distinct[address]++
		e.Before, e.After = nil, nil
		n.begin(key, e)
		return false
	default:
		f = n.crowd(address, e)
	}
	f.count++
	f.at = now
	n.folded++
	return true
}

func (n *notes) begin(key foldKey, e Entry) *fold {
	f := &fold{entry: e.fit()}
	n.folds[key] = f
	n.order = append(n.order, f)
	return f
}

// crowd finds the fold for what is too various to be kept apart: one for each
// address that has tried many things, one for all other addresses.
func (n *notes) crowd(address string, e Entry) *fold {
	common := Entry{Category: e.Category, Action: "denied.various", Outcome: Denied, Actor: Actor{Type: "anonymous"}, Target: Target{Type: "route"}}
	var key foldKey
	if n.distinct[address] >= foldPerAddress {
		key.address = address
		common.Source.IP = address
		common.Reason = "various denied attempts of this address"
	} else {
		common.Reason = "denied attempts of many addresses"
	}
	if f := n.folds[key]; f != nil {
		return f
	}
	return n.begin(key, common)
}

// unfold ends the window if it is over, or at any time if all is set, and
// returns a record for each entry that has stood for others.
func (n *notes) unfold(now time.Time, all bool) []*pending {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends.IsZero() || now.Before(n.ends) && !all {
		return nil
	}
	var records []*pending
	for _, f := range n.order {
		if f.count > 0 {
			f.entry.Reason = fmt.Sprintf("%s [and %d more like it]", f.entry.Reason, f.count)
			records = append(records, newPending(Result, f.entry, f.at))
		}
	}
	n.ends, n.folds, n.order, n.distinct = time.Time{}, nil, nil, nil
	return records
}

// due is when the window of folding ends, zero if there is none, and whether
// notes wait.
func (n *notes) due() (window time.Time, waiting bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ends, len(n.waiting) > 0
}

// network is an address, and of one of IPv6 the /64, of which a single machine
// has all.
func network(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || !a.Is6() || a.Is4In6() {
		return ip
	}
	p, _ := a.WithZone("").Prefix(64) // 64 fits
	return p.String()
}
