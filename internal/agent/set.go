package agent

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
)

// Head is an engine as a configuration names it.
type Head struct {
	Options
	Same any // what it was made of, not nil; compared with reflect.DeepEqual
}

// Set keeps a changing list of engines registered. It is safe for concurrent
// use.
type Set struct {
	log     *slog.Logger
	ctx     context.Context // of all agents
	cancel  context.CancelFunc
	running sync.WaitGroup // agents

	mu      sync.Mutex
	members map[string]*member // by id, those that leave included
}

// member is one agent of a set.
type member struct {
	same  any           // nil: it leaves
	leave chan struct{} // closed: it drains its head
	done  chan struct{} // closed: it has deregistered it
}

// NewSet makes an empty set.
func NewSet(log *slog.Logger) (*Set, error) {
	if log == nil {
		return nil, errors.New("make a set of agents: the log is missing")
	}
	s := &Set{log: log, members: map[string]*member{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Apply makes the set that of heads: new ones are registered, gone ones drained
// and deregistered, changed ones both. A fault in one of them changes nothing.
// Ids are unique. It does not wait for the heads.
func (s *Set) Apply(heads []Head) error {
	agents := map[string]*Agent{}
	for _, h := range heads {
		a, err := New(h.Options)
		if err != nil {
			return err
		}
		agents[h.Registration.ID] = a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil // it was closed
	}
	for id, m := range s.members {
		if agents[id] == nil {
			m.retire()
		}
	}
	for _, h := range heads {
		id := h.Registration.ID
		before := s.members[id]
		if before != nil && reflect.DeepEqual(before.same, h.Same) {
			continue
		}
		m := &member{same: h.Same, leave: make(chan struct{}), done: make(chan struct{})}
		s.members[id] = m
		if before != nil {
			before.retire()
		}
		s.running.Go(func() { s.run(agents[id], before, m) })
	}
	return nil
}

// retire has the member leave.
func (m *member) retire() {
	if m.same != nil {
		m.same = nil
		close(m.leave)
	}
}

// run runs an agent once the one before it of the same id has left.
func (s *Set) run(a *Agent, before, m *member) {
	defer func() {
		s.mu.Lock()
		if s.members[a.Registration.ID] == m {
			delete(s.members, a.Registration.ID)
		}
		s.mu.Unlock()
		close(m.done)
	}()
	if before != nil {
		select {
		case <-before.done:
		case <-s.ctx.Done():
			return
		}
	}
	if err := a.Run(s.ctx, m.leave); err != nil {
		s.log.Error("a configured head is given up", "head", a.Registration.ID, "error", err)
	}
}

// Close ends all agents at once. Their heads stay registered until their leases
// expire, so that the service takes them over when it starts again.
func (s *Set) Close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
}
