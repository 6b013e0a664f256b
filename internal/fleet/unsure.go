package fleet

// A caller of the decision API may never say how its request went, nor whether it was
// sent at all. Such a request is unsure: its prompt is ahead of others until its head
// shows that it passed it. Engines take prompts in the order in which they come, so the
// first token of one shows that those placed before it are computed, or never came.

// Place is where a request stands at its head: the weight of the unsure prompts that
// were placed there until then, its own with it if it is one. It wraps.
type Place uint32

// patience is for how many ms a sign of life is awaited before the clock counts.
const patience = 5000

// Place is that of a request that is placed now and is sure to give a sign of life.
func (l *Live) Place() Place { return Place(l.asked.Load()) }

// Unsure reports whether the head has unsure prompts.
func (l *Live) Unsure() bool { return l.unsure.Load() > 0 }

// Ask notes that the prompt of a place that was taken is unsure. By the clock the head
// computes so many tokens of such prompts a ms while no sign of life shows more.
func (l *Live) Ask(pending int32, clock uint32, rate float64) Place {
	for {
		word, asked := l.passed.Load(), l.asked.Load()
		if behind(asked, word, clock, rate) > 0 || l.passed.CompareAndSwap(word, passed(Place(asked), clock)) {
			break
		}
	}
	l.unsure.Add(int64(pending))
	return Place(l.asked.Add(int64(pending)))
}

// GiveUp notes that an unsure prompt is pending no longer.
func (l *Live) GiveUp(pending int32) { l.unsure.Add(-int64(pending)) }

// Pass notes that the head began to answer a request of that place, of which so many
// tokens were unsure.
func (l *Live) Pass(to Place, own int32, clock uint32) {
	l.order(to)
	if shown := Place(l.shown.Load()); after(to, shown) > 0 {
		if after(to, shown) > int64(own) && l.inOrder() {
			l.skipped.Add(1)
		}
		l.shown.Store(uint32(to))
	}
	for {
		word := l.passed.Load()
		if after(to, Place(word>>32)) <= 0 || l.passed.CompareAndSwap(word, passed(to, clock)) {
			return
		}
	}
}

// order notes whether a request whose answer begins had not been passed before.
func (l *Live) order(place Place) {
	target := int64(endsOne)
	if after(Place(l.passed.Load()>>32), place) > 0 {
		target = 0
	}
	step(&l.ordered, target)
}

// inOrder reports whether requests are seen to begin to be answered in the order in
// which they were placed. Where they are not, one says nothing of those before it.
func (l *Live) inOrder() bool { return l.ordered.Load() >= endsOne/16*15 }

// signless reports whether no request ever gave a sign of life, so that the clock alone
// says what is passed.
func (l *Live) signless() bool { return l.ordered.Load() == 0 }

// Rests notes that the head has nothing ahead of what comes now.
func (l *Live) Rests() { l.shown.Store(uint32(l.asked.Load())) }

// Skipped counts the signs of life that came after unsure prompts had none: the time
// until such a sign is also that of those prompts.
func (l *Live) Skipped() uint32 { return l.skipped.Load() }

// Passed is the weight of the pending unsure prompts that the head has passed, or has
// computed by the clock at so many tokens a ms.
func (l *Live) Passed(clock uint32, rate float64) int64 {
	unsure := l.unsure.Load()
	if unsure <= 0 || !l.inOrder() && !l.signless() {
		return 0
	}
	word := l.passed.Load()
	return max(unsure-int64(behind(l.asked.Load(), word, clock, rate)), 0)
}

// passed are the two parts of Live.passed.
func passed(place Place, clock uint32) uint64 { return uint64(place)<<32 | uint64(clock) }

// behind is the weight of what was asked for and is not passed.
func behind(asked int64, passed uint64, clock uint32, rate float64) float64 {
	since := max(int32(clock-uint32(passed))-patience, 0)
	return max(float64(after(Place(asked), Place(passed>>32)))-rate*float64(since), 0)
}

// after is by how much a place is after another.
func after(a, b Place) int64 { return int64(int32(a - b)) }
