package strategy

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
	"headway/internal/prefix"
)

// Tier is a set of candidates of equal rank: the routable heads of one region
// that report the same status, or its ejected ones. Tiers are ordered from near
// to far and, within a region, active before degraded.
type Tier struct {
	fleet.Ranked
	Region   string  // fleet.AnyRegion when the request names none
	Distance float64 // ms from the request's region; 0 when it is the same or none was named; NaN when the policy has no distance
	Degraded bool
	Ejected  bool
	State    *State
}

// State is what a tier keeps from one decision to the next, and from one set of
// candidates to the next of the same criteria.
type State struct {
	turns       [1 + MaxShadows]atomic.Uint64 // of the strategy that decides, and of its shadows
	over        [1 + MaxShadows]atomic.Bool   // requests of the nearest tier go here, since they would wait longer there
	mean, share atomic.Uint64                 // of others, as bits; 0 before the first scan
}

// NewState begins a rotation at a turn.
func NewState(turn uint64) *State {
	s := new(State)
	for i := range s.turns {
		s.turns[i].Store(turn)
	}
	return s
}

// usual is what the last scan of the tier found; see others.
func (s *State) usual() (mean, share float64) {
	if bits := s.share.Load(); bits != 0 {
		return math.Float64frombits(s.mean.Load()), math.Float64frombits(bits)
	}
	return 0, 1
}

// learn keeps what a scan found, unless that is nearly known: a write takes the
// cache line from all who decide.
func (s *State) learn(mean, share float64) {
	const near = 1. / 64
	m, sh := s.usual()
	if math.Abs(mean-m) > near*m || math.Abs(share-sh) > near*sh {
		s.mean.Store(math.Float64bits(mean))
		s.share.Store(math.Float64bits(share))
	}
}

// Input is what a strategy sees of one decision. Its methods allocate nothing.
type Input struct {
	Request   *Request
	ModelType string // of the pool, after aliases
	Now       time.Time
	Rand      Rand
	Tiers     []Tier
	At        int  // the tier to choose from
	FullOnly  bool // only heads that report that they are full are available, else only others
	Passed    bool // such a head was passed over
	Keyless   bool // a strategy looked for a session key and found none
	Recalled  Recalled
	Exclude   []string // ids of heads not to take: those of the request, and those tried before

	memory   Memory
	shadow   int    // which of those that are asked beside decides, 0: none
	session  uint64 // hash of the session key and the model type, 0: no session
	clock    uint32 // Now, for the ages of reports
	scores   []float64
	weighing weighing
	among    []int32
	warm     []int32
	blocks   []uint64     // Request.PrefixHashes by their keys, if Recalled.Prompt
	found    prefix.Found // of those
	scratch  prefix.Scratch
}

// Begin makes in the input of a decision at its first tier. A nil memory knows
// nothing. session is what SessionHash returns.
func (in *Input) Begin(req *Request, modelType string, now time.Time, seed uint64, m Memory, session uint64) {
	// One by one: making an Input and copying it takes longer.
	in.Request, in.Exclude, in.ModelType, in.Now, in.clock = req, req.Exclude, modelType, now, fleet.Clock(now)
	in.Rand, in.memory, in.session = Rand{seed}, m, session
	in.At, in.FullOnly, in.Passed, in.Keyless, in.Recalled, in.shadow = 0, false, false, false, Recalled{}, 0
	in.Reweigh()
}

// Tier is the tier to choose from.
func (in *Input) Tier() *Tier { return &in.Tiers[in.At] }

// Heads are the candidates of the tier to choose from.
func (in *Input) Heads() []*fleet.Head { return in.Tiers[in.At].Heads }

// Turn is the tier's next turn, for strategies that rotate: each call from any
// goroutine gets the next number.
func (in *Input) Turn() uint64 { return in.Tiers[in.At].State.turns[in.shadow].Add(1) }

// others is what a comparison begins with.
func (in *Input) others(mean, share float64) others {
	return others{mean: mean, share: share, clock: in.clock, dither: in.Rand.Uint64()}
}

// Session is a hash of the request's session key, the same on every router; ok is
// false when the request has none.
func (in *Input) Session() (hash uint64, ok bool) {
	in.Keyless = in.session == 0
	return in.session, !in.Keyless
}

// Remembered is the head of the tier that served the session last, or nil.
func (in *Input) Remembered() *fleet.Head {
	if in.session == 0 || in.memory == nil {
		return nil
	}
	in.memory.Recall(in, RecallSession)
	return in.Recalled.Head
}

// ForgetSession undoes that a strategy asked for the session's head.
func (in *Input) ForgetSession() {
	in.Recalled.Asked, in.Recalled.Found, in.Recalled.Head = false, false, nil
}

// Available reports whether the head has a place, does not report that it is full,
// and is not excluded. With FullOnly, which is for when no other head is left, it
// must report that it is full.
func (in *Input) Available(h *fleet.Head) bool { return in.available(h, h.Live, h.MaxInFlight) }

// fits is Available for head i of r, which is read only if it has to be.
func (in *Input) fits(r *fleet.Ranked, i int) bool {
	return in.available(r.Heads[i], r.Lives[i], r.Limits[i])
}

func (in *Input) available(h *fleet.Head, l *fleet.Live, limit int64) bool {
	own := l.InFlight()
	return (limit == 0 || own < limit) && !in.Excluded(h) && in.takes(l, l.Beyond(), own, limit)
}

// takes reports whether a head with so many of our requests is full by its report
// exactly if FullOnly asks for such heads.
func (in *Input) takes(l *fleet.Live, b fleet.Beyond, own, limit int64) bool {
	if !b.MayFill(own, limit) {
		return !in.FullOnly
	}
	return in.takesFull(l, own, limit)
}

func (in *Input) takesFull(l *fleet.Live, own, limit int64) bool {
	if in.skips(l) {
		return false
	}
	full := l.Full(own, limit, in.Now)
	in.Passed = in.Passed || full && !in.FullOnly && (limit == 0 || own < limit)
	return full == in.FullOnly
}

// Takes is Available for strategies that weigh how full a head is: only those that
// asked for a pause, and those with as many requests as they take at once, come last.
func (in *Input) Takes(h *fleet.Head) bool { return in.takesRoom(h, h.Live, h.MaxInFlight) }

// takesAt is Takes for head i of r, which is read only if it has to be.
func (in *Input) takesAt(r *fleet.Ranked, i int) bool {
	return in.takesRoom(r.Heads[i], r.Lives[i], r.Limits[i])
}

func (in *Input) takesRoom(h *fleet.Head, l *fleet.Live, limit int64) bool {
	own := l.InFlight()
	if limit > 0 && own >= limit || in.Excluded(h) {
		return false
	}
	if !l.Beyond().MayFill(own, limit) {
		return !in.FullOnly
	}
	if in.skips(l) {
		return false
	}
	full := !l.AwayUntil(in.Now).IsZero() || l.Crowded(own, limit, in.Now)
	in.Passed = in.Passed || full && !in.FullOnly
	return full == in.FullOnly
}

// spills reports whether a farther tier is to be chosen from, since all heads of this
// one are full and one of that is not.
func (in *Input) spills() bool {
	if in.FullOnly || in.At+1 >= len(in.Tiers) || in.anyAvailable(in.At) {
		return false
	}
	for at := in.At + 1; at < len(in.Tiers); at++ {
		if in.anyAvailable(at) {
			return true
		}
	}
	return false
}

func (in *Input) anyAvailable(tier int) bool {
	r := &in.Tiers[tier].Ranked
	for i := range r.Heads {
		if in.fits(r, i) {
			return true
		}
	}
	return false
}

// Skips reports whether the head asked for a pause, which the request respects.
func (in *Input) Skips(h *fleet.Head) bool { return in.skips(h.Live) }

func (in *Input) skips(l *fleet.Live) bool {
	return in.Request.SkipAway && !l.AwayUntil(in.Now).IsZero()
}

// Excluded reports whether the head is among those not to take.
func (in *Input) Excluded(h *fleet.Head) bool {
	return len(in.Exclude) > 0 && slices.Contains(in.Exclude, h.ID)
}
