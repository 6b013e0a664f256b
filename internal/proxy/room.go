package proxy

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	smallBody  = 1 << 20 // bytes of the longest body that the room kept for small ones is for
	smallShare = 4       // of all room, one part is kept for them
	ownShare   = 2       // of the rest, one part is the most that one caller gets
)

// room bounds the memory of bodies. Who finds none waits before it reads on: the
// kernel's window holds the client back meanwhile. Large bodies leave a part of the
// room to small ones, and those of one caller a part of the rest to others.
type room struct {
	small *semaphore.Weighted // that large bodies do not take
	rest  *semaphore.Weighted
	own   int64 // bytes of the rest that one caller gets

	mu     sync.Mutex
	shares map[string]*share // of callers that hold some of the rest, or wait for it
}

// share is what one caller may take of the rest.
type share struct {
	*semaphore.Weighted
	users int
}

// place is what one body holds of a room.
type place struct {
	of    *semaphore.Weighted // that it took; nil: nothing
	took  int64
	share *share // of its caller; nil: it has none
	owner string
}

func newRoom(l *Limits) room {
	small := min(l.MaxBodies/smallShare, l.MaxBodies-l.MaxBody)
	rest := l.MaxBodies - small
	return room{
		small: semaphore.NewWeighted(small), rest: semaphore.NewWeighted(rest),
		own: max(rest/ownShare, l.MaxBody), shares: map[string]*share{},
	}
}

// enter has a body hold so much of the rest, in place of what it held, if that is
// free. of is the caller.
func (r *room) enter(p *place, want int64, of string) bool {
	r.join(p, of)
	if r.try(p.share, want) {
		r.move(p, want)
		return true
	}
	return false
}

// await is enter that waits.
func (r *room) await(ctx context.Context, p *place, want int64, of string) bool {
	r.join(p, of)
	if p.share != nil && p.share.Acquire(ctx, want) != nil {
		return false
	}
	if r.rest.Acquire(ctx, want) != nil {
		if p.share != nil {
			p.share.Release(want)
		}
		return false
	}
	r.move(p, want)
	return true
}

// more has a body hold that much more of the rest, if it is free.
func (r *room) more(p *place, want int64) bool {
	if !r.try(p.share, want) {
		return false
	}
	p.took += want
	return true
}

func (r *room) try(s *share, want int64) bool {
	if s != nil && !s.TryAcquire(want) {
		return false
	}
	if r.rest.TryAcquire(want) {
		return true
	}
	if s != nil {
		s.Release(want)
	}
	return false
}

func (r *room) move(p *place, want int64) {
	if p.took > 0 {
		r.small.Release(p.took)
	}
	p.of, p.took = r.rest, want
}

// join counts the body for its caller's share.
func (r *room) join(p *place, of string) {
	if of == "" || p.share != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shares[of]
	if s == nil {
		s = &share{Weighted: semaphore.NewWeighted(r.own)}
		r.shares[of] = s
	}
	s.users++
	p.share, p.owner = s, of
}

// leave gives back what a body holds.
func (r *room) leave(p *place) {
	if p.took > 0 {
		p.of.Release(p.took)
	}
	if p.share == nil {
		return
	}
	if p.took > 0 && p.of == r.rest {
		p.share.Release(p.took)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.share.users--; p.share.users == 0 {
		delete(r.shares, p.owner)
	}
}
