package sim

import (
	"time"

	"headway/internal/engine"
	"headway/internal/workload"
)

// Fleet is the simulated fleet, for what happens to it and for rules that see all of
// it. Heads are numbered from 0 as in Options.
type Fleet struct{ w *world }

// Heads is how many heads there are, those that are down too.
func (f *Fleet) Heads() int { return len(f.w.heads) }

// Start has a head that is absent or was stopped register, with an empty cache.
func (f *Fleet) Start(head int) error {
	if h := f.w.heads[head]; h.down {
		return h.start()
	}
	return nil
}

// Stop has a head die: its requests are lost, and no report comes.
func (f *Fleet) Stop(head int) error {
	if h := f.w.heads[head]; !h.down {
		h.stop()
	}
	return f.w.err
}

// Slow has a head work at a part of its speed from its next step on; 1 is all of it.
func (f *Fleet) Slow(head int, part float64) error {
	h := f.w.heads[head]
	h.profile = h.full.Faster(part)
	if !h.down {
		h.engine.SetProfile(f.w.at, h.profile)
	}
	return nil
}

// Break has each new request at a head fail at once, until it is repaired. Its
// reports go on.
func (f *Fleet) Break(head int, broken bool) error {
	f.w.heads[head].broken = broken
	return nil
}

// Foresee is when the first token of a request would come that is sent to a head now,
// if no other request followed; ok is false if the head would refuse it.
func (f *Fleet) Foresee(head int, a *workload.Arrival) (at time.Duration, ok bool) {
	h := f.w.heads[head]
	if h.down || h.broken || a.Input+a.Output > h.engine.MaxTokens() {
		return 0, false
	}
	return h.engine.Foresee(f.w.at, engine.Request{PromptTokens: a.Input, OutputTokens: a.Output, Blocks: a.Blocks()}), true
}
