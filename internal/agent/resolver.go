package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// The bounds of a resolver's work.
const (
	DefaultResolveEvery = 30 * time.Second

	lookupLimit   = 10 * time.Second // of one lookup, its repetitions included
	retryResolver = 5 * time.Second  // after a lookup that failed, if the interval is not less
	jitter        = 0.1              // of a wait, either way, so that replicas do not ask in step
)

// Name is a DNS name whose addresses are engines.
type Name struct {
	Key      string                                           // of the name within its set; the first in order has an engine that two list
	Same     any                                              // what it was made of, not nil; compared with reflect.DeepEqual
	Lookup   func(ctx context.Context) ([]string, error)      // host:port of each engine
	Interval time.Duration                                    // between lookups
	Most     int                                              // heads
	Head     func(hostPort string) (head Head, refused error) // of one engine
}

// resolver looks a name up again and again.
type resolver struct {
	Name
	gone chan struct{} // closed: the name is gone from the configuration, or replaced

	// Guarded by the mutex of the set.
	heads    []Head
	refused  int
	resolved bool // the name, not the one that it replaces

	// Of run's goroutine.
	absent  int // answers in a row that there is no such name, or no address of it
	trouble string
}

// newResolver makes the resolver of a name, with the heads of the one that it
// replaces.
func newResolver(n Name, before *resolver) *resolver {
	r := &resolver{Name: n, gone: make(chan struct{})}
	if before != nil {
		r.heads, r.refused = before.heads, before.refused
	}
	return r
}

// run looks the name up until ctx ends or it is gone. When a lookup fails, the heads are as
// before. That a name has no address counts once it was said three times in a row:
// a server that is starting says so, too.
func (r *resolver) run(ctx context.Context, s *Set) {
	log := s.o.Log.With("name", r.Key)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.gone:
			return
		case <-timer.C:
		}
		wait := min(r.Interval, retryResolver)
		switch found, err := r.lookup(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.absent = 0
			r.note(log, "the name cannot be resolved; its heads are as before", err)
		case len(found) == 0 && r.absent < tooMany-1:
			r.absent++
			r.note(log, "the name has no address", errors.New("its heads are as before until that was said three times in a row"))
		default:
			if len(found) > 0 {
				r.absent = 0
			}
			wait = r.Interval
			r.take(log, s, found)
		}
		timer.Reset(time.Duration(float64(wait) * (1 - jitter + 2*jitter*rand.Float64())))
	}
}

// lookup is what the name resolves to; a name without an address is no error.
func (r *resolver) lookup(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	found, err := r.Lookup(ctx)
	if no, ok := errors.AsType[*net.DNSError](err); ok && no.IsNotFound {
		return nil, nil
	}
	return found, err
}

// take has the set follow what was found. Above the bound those that it follows
// already come first.
func (r *resolver) take(log *slog.Logger, s *Set, found []string) {
	followed := map[string]bool{}
	for _, h := range r.heads { // only resolved, which this goroutine calls, changes them
		followed[h.Registration.ID] = true
	}
	var old, other []Head
	var refused []string
	for _, hostPort := range found {
		h, err := r.Head(hostPort)
		switch {
		case err != nil:
			refused = append(refused, err.Error())
		case followed[h.Registration.ID]:
			old = append(old, h)
		default:
			other = append(other, h)
		}
	}
	heads := append(old, other...)
	most := min(r.Most, len(heads))
	for _, h := range heads[most:] {
		refused = append(refused, h.Registration.ID+" is one more than max_heads allows")
	}
	var trouble error
	if len(refused) > 0 {
		trouble = errors.New(strings.Join(refused[:min(len(refused), 10)], "; "))
	}
	r.note(log, "not all addresses of the name are followed", trouble)
	s.resolved(r, heads[:most], len(refused))
}

// note logs what is wrong with the name when that changes.
func (r *resolver) note(log *slog.Logger, what string, err error) {
	text := ""
	if err != nil {
		text = what + err.Error()
	}
	if text == r.trouble {
		return
	}
	r.trouble = text
	if err != nil {
		log.Warn(what, "error", err)
	} else {
		log.Info("the name is resolved again")
	}
}
