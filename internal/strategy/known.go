package strategy

import (
	"cmp"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"headway/internal/fleet"
	"headway/internal/prefix"
)

// usualBlocks is how many blocks of prompts are remembered: those of about 100
// million tokens in prompts of a few thousand each.
const usualBlocks = 1 << 18

// conversations tells the block of a conversation from those of prompts.
const conversations = 0x636f6e7665727365

// KnownOptions are what a Known is made of.
type KnownOptions struct {
	Blocks int      // of prompts that are remembered, in 64 bytes each; 0: 262,144
	Secret [16]byte // of the keys of blocks; routers that share what they know of blocks share it
}

// Known is the Memory of a router.
type Known struct {
	Sessions *Sessions
	Prompts  *prefix.Index

	keys  *prefix.Keys
	mu    sync.Mutex
	paces atomic.Pointer[map[string]*Pace] // by model type
}

// NewKnown makes a memory that knows nothing yet.
func NewKnown(o KnownOptions) *Known {
	k := &Known{Sessions: NewSessions(), Prompts: prefix.NewIndex(cmp.Or(o.Blocks, usualBlocks)), keys: prefix.NewKeys(o.Secret)}
	k.paces.Store(&map[string]*Pace{})
	return k
}

// Recall implements Memory.
func (k *Known) Recall(in *Input, what Recall) {
	if what == RecallSession {
		k.Sessions.recall(in)
		return
	}
	in.Recalled.Prompt = true
	in.Recalled.Pace = k.Pace(in.ModelType)
	in.blocks = append(in.blocks[:0], in.Request.PrefixHashes...)
	if in.byConversation() {
		in.blocks = append(in.blocks, Mix(xxhash.Sum64String(in.Request.SessionID), conversations))
	}
	k.apply(in.blocks, in.ModelType, in.Request.Scope, &in.scratch)
	k.Prompts.Match(in.blocks, &in.found)
}

func (k *Known) apply(hashes []uint64, modelType string, scope uint64, scratch *prefix.Scratch) {
	if len(hashes) > 0 {
		k.keys.Apply(hashes, Mix(xxhash.Sum64String(modelType), scope), scratch)
	}
}

// Keys replaces the hashes of a prompt's blocks by their keys, which are those of no
// other model type and scope.
func (k *Known) Keys(hashes []uint64, modelType string, scope uint64) {
	k.apply(hashes, modelType, scope, new(prefix.Scratch))
}

// Placed implements Memory.
func (k *Known) Placed(in *Input, h *fleet.Head, w fleet.Work) {
	k.Sessions.placed(in, h)
	if !in.Recalled.Prompt {
		return
	}
	in.Recalled.Pace.placed(h, w, in.Now)
	k.add(h, in.Recalled.Pace, in.blocks, w.New)
}

func (k *Known) add(h *fleet.Head, p *Pace, blocks []uint64, computed int32) {
	if len(blocks) > 0 {
		k.Prompts.Open(h.Number, h.Instance, uint64(p.cache(h)))
		k.Prompts.Add(blocks, h.Number, h.Instance, uint64(computed))
	}
}

// Heard notes that another router placed a prompt of so many tokens at the head,
// with the keys of its blocks.
func (k *Known) Heard(h *fleet.Head, modelType string, blocks []uint64, tokens int32) {
	var f prefix.Found
	k.Prompts.Match(blocks, &f)
	had := int64(tokens) * int64(f.Blocks(h.Number, h.Instance)) / int64(max(len(blocks), 1))
	k.add(h, k.Pace(modelType), blocks, tokens-int32(had))
}

// FirstToken implements Memory.
func (k *Known) FirstToken(h *fleet.Head, modelType string, w fleet.Work, after time.Duration, at time.Time) {
	if p := (*k.paces.Load())[modelType]; p != nil {
		if w.Tokens > 0 {
			p.firstToken(h, w, after, at)
		}
		p.answered(h, after, 0, at)
	}
}

// Ended implements Memory.
func (k *Known) Ended(h *fleet.Head, modelType string, w fleet.Work, e End) {
	p := (*k.paces.Load())[modelType]
	if p == nil || e.How != fleet.EndedWell {
		return
	}
	p.answered(h, e.First, e.Took, e.At)
	if e.FirstReported && w.Tokens > 0 {
		p.learnRate(w, e.Cached, e.First)
	}
	if e.Cached != fleet.Unknown && p.delivered(h, w, e.Cached) {
		k.Prompts.Clear(h.Number, h.Instance)
	}
}

// Keep forgets what is known of the model types that no head serves any more, and how
// fast heads were whose numbers others have now.
func (k *Known) Keep(heads func(modelType string) []*fleet.Head) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := *k.paces.Load()
	next := maps.Clone(old)
	if maps.DeleteFunc(next, func(model string, p *Pace) bool { return !p.keep(heads(model)) }); len(next) < len(old) {
		k.paces.Store(&next)
	}
}

// Paces are those of the model types that requests came for.
func (k *Known) Paces() map[string]*Pace { return *k.paces.Load() }

// Speed is how fast the head computes prompts of the model type, 1 as fast as its heads
// do in the mean, and whether that is known of this epoch of the head.
func (k *Known) Speed(h *fleet.Head, modelType string) (speed float64, known bool) {
	if p := (*k.paces.Load())[modelType]; p != nil {
		return p.speed(h)
	}
	return 0, false
}

// Pace is that of the heads of a model type.
func (k *Known) Pace(modelType string) *Pace {
	if p := (*k.paces.Load())[modelType]; p != nil {
		return p
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	old := *k.paces.Load()
	if p := old[modelType]; p != nil {
		return p
	}
	next := maps.Clone(old)
	next[modelType] = newPace()
	k.paces.Store(&next)
	return next[modelType]
}
