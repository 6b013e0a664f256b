package engine

import "time"

// foresight is what an engine would do from now on, if nothing else was submitted.
type foresight struct {
	engine *Engine
	batch  []foreseen
	queue  []foreseen // the last of them is the request that is asked about
	room   int        // pages
	budget int        // tokens that the step has left
	work   work       // of the step
}

// foreseen is a sequence in a foresight.
type foreseen struct {
	computed, target, output int
	pages                    int // that it holds, or needs
	chunk                    int // of the prompt, in the step
}

// Foresee is when the first token of a request would come that is submitted now, if
// nothing else was. Memory is taken to suffice, so that nothing is preempted.
func (e *Engine) Foresee(now time.Duration, r Request) time.Duration {
	e.run(now)
	f := foresight{engine: e, room: e.cache.available()}
	for _, s := range e.running {
		f.join(s)
	}
	for _, s := range e.waiting {
		f.wait(s, s.request.OutputTokens-s.generated)
	}
	if whole := r.PromptTokens / BlockTokens; len(r.Blocks) > whole {
		r.Blocks = r.Blocks[:whole]
	}
	f.wait(&Sequence{request: r, target: r.PromptTokens}, r.OutputTokens)
	at := now
	if e.took > 0 {
		at = e.until
	}
	for {
		f.plan()
		at += max(1, e.profile.duration(&f.work))
		if f.step() {
			return at
		}
	}
}

// join adds a sequence that runs, as it is after the step under way.
func (f *foresight) join(s *Sequence) {
	q := foreseen{computed: s.computed + s.chunk, target: s.target, output: s.request.OutputTokens - s.generated, pages: s.pages + len(s.held)*blockPages}
	if s.chunk > 0 && q.computed >= q.target {
		if q.output--; q.output == 0 {
			f.room += q.pages
			return
		}
	}
	f.batch = append(f.batch, q)
}

// wait adds a sequence that waits, with so many tokens of output to come.
func (f *foresight) wait(s *Sequence, output int) {
	resident, tiered := f.engine.cache.match(s.reusable())
	f.queue = append(f.queue, foreseen{computed: (resident + tiered) * BlockTokens, target: s.target, output: output, pages: pagesFor(s.target - resident*BlockTokens)})
}

// plan fills the next step: decodes first, then prompts in their order.
func (f *foresight) plan() {
	f.work, f.budget = work{}, f.engine.profile.StepTokens
	for i := range f.batch {
		if q := &f.batch[i]; q.computed >= q.target {
			f.work.decode(q.computed)
			f.budget--
		}
	}
	for i := range f.batch {
		f.prefill(&f.batch[i])
	}
	for len(f.queue) > 0 && f.budget > 0 && len(f.batch) < f.engine.profile.MaxSequences && (f.queue[0].pages <= f.room || len(f.batch) == 0) {
		f.room -= f.queue[0].pages
		f.batch = append(f.batch, f.queue[0])
		f.queue = f.queue[1:]
		f.prefill(&f.batch[len(f.batch)-1])
	}
}

// prefill gives the sequence what is left of the step.
func (f *foresight) prefill(q *foreseen) {
	if q.chunk = 0; q.computed >= q.target || f.budget <= 0 {
		return
	}
	q.chunk = min(f.budget, q.target-q.computed)
	f.work.prefill(q.chunk, q.computed)
	f.budget -= q.chunk
}

// step ends the step, and reports whether the request that is asked about has its
// first token.
func (f *foresight) step() bool {
	asked := -1
	if len(f.queue) == 0 {
		asked = len(f.batch) - 1
	}
	kept := f.batch[:0]
	for i, q := range f.batch {
		q.computed += q.chunk
		if decoded := q.computed >= q.target; decoded {
			if i == asked {
				return true
			}
			if q.output--; q.output == 0 {
				f.room += q.pages
				continue
			}
			q.computed++
		}
		kept = append(kept, q)
	}
	f.batch = kept
	return false
}
