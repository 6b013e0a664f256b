package sim

import (
	"container/heap"
	"time"
)

// events are what is due, the earliest first; of equals that which was added first.
type events struct {
	due   dueHeap
	added uint64
}

type due struct {
	at time.Duration
	n  uint64
	do func()
}

func (e *events) add(at time.Duration, do func()) {
	e.added++
	heap.Push(&e.due, due{at, e.added, do})
}

func (e *events) next() due {
	next, _ := heap.Pop(&e.due).(due)
	return next
}

func (e *events) len() int { return len(e.due) }

type dueHeap []due

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].n < h[j].n
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { e, _ := x.(due); *h = append(*h, e) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = due{}
	*h = old[:len(old)-1]
	return last
}
