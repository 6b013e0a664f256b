package routing

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
	"headway/internal/strict"
)

// Strategy orders the heads that may serve a request. A strategy is pure: what
// it knows of the moment comes in the Input, time and randomness too, and it
// keeps nothing between calls. It is safe for concurrent use.
type Strategy interface {
	// Choose writes the best available heads into picks, best first and each
	// once, and returns how many it wrote; 0 means that no head of the tier is
	// available. Ties are broken at random. It must not allocate.
	Choose(in *Input, picks []Pick) int
	// Score writes the cost of each of in.Heads() into scores, which has the
	// same length: lower is better, +Inf is not available, NaN is a strategy
	// that does not compare. It serves explanations, so it may be slower than
	// Choose.
	Score(in *Input, scores []float64)
}

// Spec registers a strategy under its name. All specs stand in Specs.
type Spec struct {
	Name       string
	Summary    string // one sentence
	Formula    string // one line
	Parameters []Parameter
	// AcrossRegions says that Choose looks at all of in.Tiers itself. For
	// other strategies the router goes from tier to tier.
	AcrossRegions bool
	// New makes the strategy from values, which are complete and within the
	// bounds that Parameters declare. Faults have pointers relative to the
	// parameters object. build makes strategies that this one delegates to.
	New func(values Values, build Build) (Strategy, []strict.Fault)
}

// Build makes the named strategy from a parameters object as a policy has it.
type Build func(name string, parameters map[string]any) (Strategy, []strict.Fault)

// Parameter describes one parameter of a strategy.
type Parameter struct {
	Name    string
	Kind    Kind
	Default any // float64 or string; nil for a KindList that may be left out
	Min     float64
	Max     float64
	OneOf   []string // for KindString: the allowed values; empty: any
	Unit    string   // "ms", "s", "requests", "" for a ratio
	Summary string
}

// Kind is the JSON type of a parameter.
type Kind string

// The kinds of parameters.
const (
	KindNumber Kind = "number"
	KindString Kind = "string"
	KindList   Kind = "array"
)

// Values are the parameters of a strategy by name: float64, string or []any.
type Values map[string]any

// Number is the value of a KindNumber parameter.
func (v Values) Number(name string) float64 { f, _ := v[name].(float64); return f }

// Text is the value of a KindString parameter.
func (v Values) Text(name string) string { s, _ := v[name].(string); return s }

// List is the value of a KindList parameter, nil when left out.
func (v Values) List(name string) []any { l, _ := v[name].([]any); return l }

// Specs returns every strategy there is, ordered by name.
func Specs() []Spec { return slices.Clone(specs) }

// Pick is one head that a strategy chose and the cost it saw; NaN when the
// strategy does not compare costs.
type Pick struct {
	Head *fleet.Head
	Cost float64
}

// Tier is a set of candidates of equal rank: the routable heads of one region
// that report the same status, or its ejected ones. Tiers are ordered from near
// to far and, within a region, active before degraded.
type Tier struct {
	fleet.Ranked
	Region   string  // fleet.AnyRegion when the request names none
	Distance float64 // ms from the request's region; 0 when it is the same or none was named; NaN when the policy has no distance
	Degraded bool
	Ejected  bool
	shared   *shared
	trials   []*fleet.Head
}

// shared is what a tier keeps from one decision to the next, and from one set of
// candidates to the next of the same criteria.
type shared struct {
	turns       atomic.Uint64
	mean, share atomic.Uint64 // of a field, as bits; 0 before the first scan
}

// usual is what the last scan of the tier found; see field.
func (s *shared) usual() (mean, share float64) {
	if bits := s.share.Load(); bits != 0 {
		return math.Float64frombits(s.mean.Load()), math.Float64frombits(bits)
	}
	return 0, 1
}

// learn keeps what a scan found, unless it is nearly what was known: a write
// takes the cache line from all others who decide.
func (s *shared) learn(mean, share float64) {
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
	At        int // the tier to choose from

	last           []Tier // the last resort: tiers of ejected heads
	clock          uint32 // Now, for the ages of reports
	resort         bool   // only heads that are full by their own word are available, else only others
	passed         bool   // such a head was passed over
	keyless        bool   // a strategy looked for a session key and found none
	sessions       *sessionTable
	session        uint64 // hash of the session key and the model, 0: no session
	lookup         lookup
	rememberedHead *fleet.Head
	more           [MaxAlternatives]Pick
}

// lookup is what became of the question for the session's head.
type lookup uint8

const (
	notLooked lookup = iota
	missed
	found
)

// Tier is the tier to choose from.
func (in *Input) Tier() *Tier { return &in.Tiers[in.At] }

// Heads are the candidates of the tier to choose from.
func (in *Input) Heads() []*fleet.Head { return in.Tiers[in.At].Heads }

// Turn is the tier's next turn, for strategies that rotate: each call, from
// whichever goroutine, gets the next number.
func (in *Input) Turn() uint64 { return in.Tiers[in.At].shared.turns.Add(1) }

// field is what a comparison begins with.
func (in *Input) field(mean, share float64) field {
	return field{mean: mean, share: share, clock: in.clock, dither: in.Rand.Uint64()}
}

// Session is a hash of the request's session key that is the same on every
// instance of the router; ok is false when the request has none.
func (in *Input) Session() (hash uint64, ok bool) {
	in.keyless = in.session == 0
	return in.session, !in.keyless
}

// Remembered is the head that last served the request's session, if it is
// still a candidate of the tier; else nil.
func (in *Input) Remembered() *fleet.Head {
	if in.session == 0 || in.sessions == nil {
		return nil
	}
	in.rememberedHead = in.sessions.lookup(in.session, in.Heads())
	switch {
	case in.rememberedHead != nil:
		in.lookup = found
	case in.lookup == notLooked:
		in.lookup = missed
	}
	return in.rememberedHead
}

// Available reports whether the head has a place, is not full by its own word,
// and the caller did not exclude it. Where no other head is left the router asks
// again for those that are full by their own word; they alone are available then.
func (in *Input) Available(h *fleet.Head) bool {
	own := h.Live.InFlight()
	if h.MaxInFlight > 0 && own >= h.MaxInFlight || in.excluded(h) {
		return false
	}
	return in.takes(h.Live, h.Live.Beyond(), own, h.MaxInFlight)
}

// fits is Available for head i of r, which it looks at only if it has to.
func (in *Input) fits(r *fleet.Ranked, i int) bool {
	l := r.Lives[i]
	own, limit := l.InFlight(), r.Limits[i]
	if limit > 0 && own >= limit || in.excluded(r.Heads[i]) {
		return false
	}
	return in.takes(l, l.Beyond(), own, limit)
}

// takes reports whether a head with so many of our requests is not passed over
// for being full by its own word, or for not being so where only those are looked
// for.
func (in *Input) takes(l *fleet.Live, b fleet.Beyond, own, limit int64) bool {
	if !b.MayFill(own, limit) {
		return !in.resort
	}
	return in.takesFull(l, own, limit)
}

func (in *Input) takesFull(l *fleet.Live, own, limit int64) bool {
	full := l.Full(own, limit, in.Now)
	in.passed = in.passed || full && !in.resort && (limit == 0 || own < limit)
	return full == in.resort
}

// excluded reports whether the caller excluded the head.
func (in *Input) excluded(h *fleet.Head) bool {
	return len(in.Request.Exclude) > 0 && slices.Contains(in.Request.Exclude, h.ID)
}

// Rand is a small, fast random source (wyrand) of one decision. The zero value
// is a valid, constant seed.
type Rand struct{ state uint64 }

// NewRand returns a source with the given seed.
func NewRand(seed uint64) Rand { return Rand{seed} }

// Uint64 returns 64 random bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0xa0761d6478bd642f
	hi, lo := bits.Mul64(r.state, r.state^0xe7037ed1a0b428db)
	return hi ^ lo
}

// IntN returns a number from 0 to n-1; n is at least 1. Its bias is below
// n/2^64 (Lemire's multiplication without rejection).
func (r *Rand) IntN(n int) int {
	hi, _ := bits.Mul64(r.Uint64(), uint64(n))
	return int(hi)
}

// Float64 returns a number in [0, 1).
func (r *Rand) Float64() float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// Mix hashes two words into one (the finalizer of MurmurHash3 over their
// combination); equal on every machine.
func Mix(a, b uint64) uint64 {
	x := a ^ bits.RotateLeft64(b, 32) ^ b*0x9e3779b97f4a7c15
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
