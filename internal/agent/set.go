package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Head is an engine as a configuration names it.
type Head struct {
	Options
	Same any // what it was made of, not nil; compared with reflect.DeepEqual
}

// SetOptions are what a Set is made of.
type SetOptions struct {
	Metrics prometheus.Registerer // required
	Log     *slog.Logger          // required
}

// Set keeps a changing list of engines registered: those that a configuration
// names, and those that DNS names have as addresses. It is safe for concurrent
// use.
type Set struct {
	o       SetOptions
	running sync.WaitGroup                    // agents and resolvers
	keys    atomic.Pointer[map[string]*Agent] // by endpoint
	whole   chan struct{}                     // closed: each name was resolved
	settled sync.Once                         // closes whole

	mu        sync.Mutex
	ctx       context.Context      // of Run; nil: it has not begun
	over      bool                 // nothing is begun any more
	static    []Head               //
	resolvers map[string]*resolver // by the key of the name
	members   map[string]*member   // by id, those that leave included
}

// member is one agent of a set.
type member struct {
	agent *Agent
	same  any           // nil: it leaves
	leave chan struct{} // closed: it drains its head
	done  chan struct{} // closed: it has deregistered it
}

// NewSet makes an empty set.
func NewSet(o SetOptions) (*Set, error) {
	switch {
	case o.Metrics == nil:
		return nil, errors.New("make a set of agents: Metrics is missing")
	case o.Log == nil:
		return nil, errors.New("make a set of agents: Log is missing")
	}
	s := &Set{o: o, whole: make(chan struct{}), resolvers: map[string]*resolver{}, members: map[string]*member{}}
	s.keys.Store(&map[string]*Agent{})
	count := func(of func(*resolver) int) func() float64 {
		return func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			n := 0
			for _, r := range s.resolvers {
				n += of(r)
			}
			return float64(n)
		}
	}
	for state, of := range map[string]func(*resolver) int{
		"followed": func(r *resolver) int { return len(r.heads) },
		"refused":  func(r *resolver) int { return r.refused },
	} {
		promauto.With(o.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_discovered_heads", ConstLabels: prometheus.Labels{"state": state},
			Help: "Addresses of the names of discovery, as last resolved, by state: followed, or refused since their address is not allowed or the name has more than max_heads.",
		}, count(of))
	}
	return s, nil
}

// Apply makes the set that of heads and of what names resolve to: new heads are
// registered, gone ones drained and deregistered, changed ones both. What a
// changed name had stays until it is resolved. A fault in one of the heads changes
// nothing. Ids of heads and keys of names are unique. Apply does not wait for the
// heads, and before Run it only keeps the lists. It returns how they changed.
func (s *Set) Apply(heads []Head, names []Name) (ofHeads, ofNames Change, err error) {
	for _, h := range heads {
		if _, err := New(h.Options); err != nil {
			return Change{}, Change{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ofHeads = changeOf(madeOf(s.static), madeOf(heads))
	s.static = heads
	before := s.resolvers
	s.resolvers = map[string]*resolver{}
	was, is := map[string]any{}, map[string]any{}
	for key, r := range before {
		was[key] = r.Same
	}
	for _, n := range names {
		is[n.Key] = n.Same
		r := before[n.Key]
		if r == nil || !reflect.DeepEqual(r.Same, n.Same) {
			r = newResolver(n, r)
			s.begin(r)
		} else {
			delete(before, n.Key)
		}
		s.resolvers[n.Key] = r
	}
	for _, r := range before {
		close(r.gone)
	}
	s.follow()
	return ofHeads, changeOf(was, is), nil
}

// Run keeps the heads registered until ctx ends. They stay registered then until
// their leases expire, so that the service takes them over when it starts again.
// It is called once.
func (s *Set) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, r := range s.resolvers {
		s.begin(r)
	}
	s.follow()
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// idle reports whether nothing may be begun, not yet or no more; the mutex is
// held.
func (s *Set) idle() bool { return s.ctx == nil || s.over }

// begin runs a resolver; the mutex is held.
func (s *Set) begin(r *resolver) {
	if s.idle() {
		return
	}
	s.running.Go(func() { r.run(s.ctx, s) })
}

// list is all heads: the static ones, then those of each name by its key that are
// not among the earlier ones. The mutex is held.
func (s *Set) list() []Head {
	list := slices.Clone(s.static)
	known := map[string]bool{}
	for _, h := range list {
		known[h.Registration.ID], known[h.Registration.Endpoint] = true, true
	}
	for _, key := range slices.Sorted(maps.Keys(s.resolvers)) {
		for _, h := range s.resolvers[key].heads {
			if !known[h.Registration.ID] && !known[h.Registration.Endpoint] {
				list = append(list, h)
			}
			known[h.Registration.ID], known[h.Registration.Endpoint] = true, true
		}
	}
	return list
}

// follow has an agent for each head of the list, and none else; the mutex is held.
func (s *Set) follow() {
	if s.idle() {
		return
	}
	listed := map[string]bool{}
	for _, h := range s.list() {
		id := h.Registration.ID
		listed[id] = true
		before := s.members[id]
		if before != nil && reflect.DeepEqual(before.same, h.Same) {
			continue
		}
		a, err := New(h.Options)
		if err != nil {
			s.o.Log.Error("a head cannot be followed", "head", id, "error", err)
			continue
		}
		m := &member{agent: a, same: h.Same, leave: make(chan struct{}), done: make(chan struct{})}
		s.members[id] = m
		if before != nil {
			before.retire()
		}
		s.running.Go(func() { s.keep(before, m) })
	}
	for id, m := range s.members {
		if !listed[id] {
			m.retire()
		}
	}
	s.publish()
	s.settle()
}

// settle closes whole once each name was resolved; the mutex is held.
func (s *Set) settle() {
	for _, r := range s.resolvers {
		if !r.resolved {
			return
		}
	}
	s.settled.Do(func() { close(s.whole) })
}

// Whole is closed once the set runs and each of its names was resolved: from then on Listed
// is all that the configuration means.
func (s *Set) Whole() <-chan struct{} { return s.whole }

// Listed are the ids of the heads that the configuration names, and of those that its
// names resolved to last.
func (s *Set) Listed() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := map[string]bool{}
	for _, h := range s.list() {
		ids[h.Registration.ID] = true
	}
	return ids
}

// publish makes the keys of the members known; the mutex is held.
func (s *Set) publish() {
	keys := map[string]*Agent{}
	for _, m := range s.members {
		if m.agent.Key != nil {
			keys[m.agent.Registration.Endpoint] = m.agent
		}
	}
	s.keys.Store(&keys)
}

// KeyOf is the API key of the engine at an endpoint, as its agent last read it;
// "": it needs none. It takes no lock and reads no file.
func (s *Set) KeyOf(endpoint string) string {
	if a := (*s.keys.Load())[endpoint]; a != nil {
		if key := a.key.Load(); key != nil {
			return *key
		}
	}
	return ""
}

// retire has the member leave.
func (m *member) retire() {
	if m.same != nil {
		m.same = nil
		close(m.leave)
	}
}

// keep runs an agent once the one before it of the same id has left.
func (s *Set) keep(before, m *member) {
	id := m.agent.Registration.ID
	defer func() {
		s.mu.Lock()
		if s.members[id] == m {
			delete(s.members, id)
			s.publish()
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
	if err := m.agent.Run(s.ctx, m.leave); err != nil {
		s.o.Log.Error("a configured head is given up", "head", id, "error", err)
	}
}

// resolved takes what a name resolved to, unless the name is gone or another by
// now. refused is how many addresses more it has.
func (s *Set) resolved(r *resolver, heads []Head, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resolvers[r.Key] == r {
		r.heads, r.refused, r.resolved = heads, refused, true
		s.follow()
	}
}
