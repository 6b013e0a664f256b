package engine

import "time"

// foreseen is a sequence of a foreseen run.
type foreseen struct {
	computed, target, output int
	pages                    int // that it holds, or needs
}

// Foresee is when the first token of a request would come that is submitted now, if
// nothing else was. Memory is taken to suffice, so that nothing is preempted.
func (e *Engine) Foresee(now time.Duration, r Request) time.Duration {
	e.run(now)
	var batch, queue []foreseen
	room := e.cache.available()
	for _, s := range e.running {
		f := foreseen{s.computed + s.chunk, s.target, s.request.OutputTokens - s.generated, s.pages + len(s.held)*blockPages}
		if s.chunk > 0 && f.computed >= f.target {
			if f.output--; f.output == 0 {
				room += f.pages
				continue
			}
		}
		batch = append(batch, f)
	}
	for _, s := range e.waiting {
		resident, tiered := e.cache.match(s.reusable())
		queue = append(queue, foreseen{(resident + tiered) * BlockTokens, s.target, s.request.OutputTokens - s.generated, pagesFor(s.target - resident*BlockTokens)})
	}
	if whole := r.PromptTokens / BlockTokens; len(r.Blocks) > whole {
		r.Blocks = r.Blocks[:whole]
	}
	own := Sequence{request: r, target: r.PromptTokens}
	resident, tiered := e.cache.match(own.reusable())
	queue = append(queue, foreseen{(resident + tiered) * BlockTokens, r.PromptTokens, r.OutputTokens, pagesFor(r.PromptTokens - resident*BlockTokens)})
	at := now
	if e.took > 0 {
		at = e.until
	}
	for {
		var w work
		budget := e.profile.StepTokens
		for i := range batch {
			if f := &batch[i]; f.computed >= f.target {
				w.decode(f.computed)
				budget--
			}
		}
		chunks := make([]int, 0, 8)
		mine := false
		plan := func(f *foreseen) int {
			chunk := min(budget, f.target-f.computed)
			w.prefill(chunk, f.computed)
			budget -= chunk
			return chunk
		}
		for i := range batch {
			if f := &batch[i]; f.computed < f.target && budget > 0 {
				chunks = append(chunks, i, plan(f))
			}
		}
		for len(queue) > 0 && budget > 0 && len(batch) < e.profile.MaxSequences && (queue[0].pages <= room || len(batch) == 0) {
			room -= queue[0].pages
			batch = append(batch, queue[0])
			queue = queue[1:]
			i := len(batch) - 1
			chunks = append(chunks, i, plan(&batch[i]))
			mine = mine || len(queue) == 0
		}
		at += max(1, e.profile.duration(&w))
		last := -1
		if len(queue) == 0 {
			last = len(batch) - 1
		}
		kept := batch[:0]
		for i := range batch {
			f := batch[i]
			decoded := f.computed >= f.target
			for c := 0; c < len(chunks); c += 2 {
				if chunks[c] == i {
					f.computed += chunks[c+1]
					decoded = f.computed >= f.target
				}
			}
			if i == last && decoded {
				return at
			}
			if decoded {
				if f.output--; f.output == 0 {
					room += f.pages
					continue
				}
				f.computed++
				f.target = min(f.target, f.computed)
			}
			kept = append(kept, f)
		}
		batch = kept
	}
}
