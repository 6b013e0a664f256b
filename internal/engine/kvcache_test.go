package engine

import "testing"

func smallCache(blocks, tier int) *kvCache {
	return newKVCache(&Profile{KVTokens: blocks * BlockTokens, CPUTokens: tier * BlockTokens})
}

// fill publishes blocks with these hashes and returns them, held.
func (c *kvCache) fill(t *testing.T, hashes ...uint64) (held []*block) {
	t.Helper()
	for _, h := range hashes {
		if !c.take(blockPages) {
			t.Fatalf("there is no room for block %d", h)
		}
		held = append(held, c.publish(h))
	}
	return held
}

// What is useful without the rest stays longest: the end of a prefix goes first.
func TestTheEndOfAPrefixGoesFirst(t *testing.T) {
	c := smallCache(3, 0)
	c.release(c.fill(t, 1, 2, 3))
	if !c.take(1) {
		t.Fatal("there is no room for a page")
	}
	if resident, _ := c.match([]uint64{1, 2, 3}); resident != 2 {
		t.Errorf("%d of the first blocks are left, want 2", resident)
	}
}

// Two sequences that compute one block take the room of one.
func TestABlockThatIsPublishedTwiceIsOne(t *testing.T) {
	c := smallCache(4, 0)
	first := c.fill(t, 1)
	second := c.fill(t, 1)
	if first[0] != second[0] || first[0].refs != 2 {
		t.Errorf("the blocks are %+v and %+v, want one that both hold", first[0], second[0])
	}
	if c.free+c.private+blockPages*c.resident != c.total || c.free != 3*blockPages {
		t.Errorf("%d pages are free and %d private, want %d and 0", c.free, c.private, 3*blockPages)
	}
}

func TestTheTierHoldsNoMoreThanItsSize(t *testing.T) {
	c := smallCache(1, 2)
	for h := uint64(1); h <= 4; h++ {
		c.release(c.fill(t, h))
	}
	if n := c.tier.n; n != 2 || len(c.blocks) != 3 || c.blocks[1] != nil || c.blocks[2].in != &c.tier || c.blocks[3].in != &c.tier {
		t.Errorf("the tier has %d blocks; want the two that went last, 2 and 3", n)
	}
}

func TestABatchHasNoMoreSequencesThanTheProfileAllows(t *testing.T) {
	p := Profile{
		Name: "small", T0: 1, W: 1, B: 0.01, C: 1e-6, E: 1e-5, D: 0.01,
		KVTokens: 64 * BlockTokens, StepTokens: 1024, MaxSequences: 2, MaxContext: 1 << 20,
	}
	e, err := New(Options{Profile: p, MaxWaiting: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := e.Submit(0, Request{PromptTokens: 10, OutputTokens: 3}); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if n := len(e.running); n > 2 {
			t.Fatalf("%d sequences run, want at most 2", n)
		}
		next, busy := e.Next()
		if !busy {
			break
		}
		e.Advance(next)
	}
}

// The sequence that made room goes on before those that came after it.
func TestWhoMadeRoomIsNext(t *testing.T) {
	e := &Engine{cache: smallCache(4, 0)}
	early, late := &Sequence{stage: stageRunning}, &Sequence{stage: stageWaiting}
	e.running, e.waiting = []*Sequence{{stage: stageRunning}, early}, []*Sequence{late}
	e.preempt()
	if len(e.waiting) != 2 || e.waiting[0] != early || e.waiting[1] != late {
		t.Error("who made room does not wait at the head of the queue")
	}
}
