package audit

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Bounds on single records of denied attempts per folding window.
const (
	foldPerAddress = 8
	foldInAll      = 128
)

// notes are the records without a waiting caller, in order of arrival.
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

// foldKey groups denied attempts. With only an address it stands for the rest
// of that address; the zero key for all others.
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

// size estimates p in memory.
func (p *pending) size() int {
	return 512 + len(p.entry.Reason) + len(p.entry.Before) + len(p.entry.After) + len(p.entry.Source.UserAgent) + len(p.entry.Target.ID)
}

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

// next returns up to most notes, oldest first, and leaves them queued.
func (n *notes) next(most int) []*pending {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*pending(nil), n.waiting[:min(most, len(n.waiting))]...)
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.waiting)
}

func (n *notes) remove(written int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.waiting[:written] {
		n.bytes -= p.size()
	}
	n.waiting = append([]*pending(nil), n.waiting[written:]...)
}

func (n *notes) delay() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.waiting {
		p.late = true
	}
}

// close drops queued and later notes, and returns how many it dropped.
func (n *notes) close() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := len(n.waiting)
	n.closed, n.waiting, n.bytes = true, nil, 0
	n.dropped += uint64(left)
	return left
}

// fold reports whether e was counted in an existing fold of this window.
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

// crowd returns the overflow fold: one per address that has tried many things,
// one for all other addresses.
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

// unfold ends a window that is over, or any if all is set, and returns a record
// per fold that counted more than one.
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

// due returns the end of the folding window, zero if none, and whether notes
// wait.
func (n *notes) due() (window time.Time, waiting bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ends, len(n.waiting) > 0
}

// network is an IPv4 address, or the /64 of an IPv6 address, which one machine
// owns.
func network(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || !a.Is6() || a.Is4In6() {
		return ip
	}
	p, _ := a.WithZone("").Prefix(64) // 64 fits
	return p.String()
}
