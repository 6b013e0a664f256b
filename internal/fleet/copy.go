package fleet

// copy returns the numbers of l as they are now.
func (l *Live) copy() *Live {
	c := new(Live)
	c.load.Store(l.load.Load())
	c.beyond.Store(l.beyond.Load())
	c.picks.Store(l.picks.Load())
	c.tokens.Store(l.tokens.Load())
	c.ends.Store(l.ends.Load())
	c.report.Store(l.report.Load())
	c.start.Store(l.start.Load())
	c.away.Store(l.away.Load())
	c.pending.Store(l.pending.Load())
	c.sent.Store(l.sent.Load())
	c.aside.Store(l.aside.Load())
	c.kv.Store(l.kv.Load())
	c.unsent.Store(l.unsent.Load())
	c.unsure.Store(l.unsure.Load())
	c.asked.Store(l.asked.Load())
	c.passed.Store(l.passed.Load())
	c.shown.Store(l.shown.Load())
	c.skipped.Store(l.skipped.Load())
	c.ordered.Store(l.ordered.Load())
	c.capacity.Store(l.capacity.Load())
	c.unseen.Store(l.unseen.Load())
	c.others.Store(l.others.Load())
	return c
}
