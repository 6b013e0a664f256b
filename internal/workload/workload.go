// Package workload turns traces of inference requests into a sequence of
// arrivals. It has no clock: the demo plays arrivals in real time, a simulation
// in virtual time.
package workload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Options say what is played. All but Seed are required.
type Options struct {
	Rows    []Row    // as [ReadTraceFile] returns them
	Rate    float64  // mean arrivals per second, above 0
	Models  []string // each conversation has one of them
	Regions []string // each conversation has one of them
	Seed    uint64   // of the choice of model and region
}

// Arrival is one request.
type Arrival struct {
	At     time.Duration // since the workload began
	Input  int           // prompt tokens
	Output int           // tokens to generate
	Model  string
	Region string

	// Session is the same for all requests of a conversation; empty if unknown.
	Session string
	Turn    int // of the session, from 1; 0: unknown

	hashes []uint64 // of blocks, where they are not made of the fields below
	key    uint64   // of the conversation, or of the request when there is none
	blocks []uint64
	pass   uint64 // how many times the trace has been repeated
}

// Workload repeats a trace at a mean rate. Each pass has its own conversations,
// so caches are no warmer than in reality. It is not safe for concurrent use.
type Workload struct {
	options Options
	scale   float64 // workload time per trace time
	pass    uint64
	next    int
	start   time.Duration // of this pass
}

// New makes a workload. Equal options give equal arrivals.
func New(o Options) (*Workload, error) {
	switch {
	case len(o.Rows) == 0 || o.Rows[len(o.Rows)-1].At <= 0:
		return nil, errors.New("make a workload: Rows must span some time")
	case !(o.Rate > 0):
		return nil, fmt.Errorf("make a workload: Rate is %v, want more than 0", o.Rate)
	case len(o.Models) == 0:
		return nil, errors.New("make a workload: Models is empty")
	case len(o.Regions) == 0:
		return nil, errors.New("make a workload: Regions is empty")
	}
	span := o.Rows[len(o.Rows)-1].At
	return &Workload{options: o, scale: float64(len(o.Rows)) / o.Rate / span.Seconds()}, nil
}

// Next returns the next arrival; times never decrease.
func (w *Workload) Next() Arrival {
	rows := w.options.Rows
	if w.next == len(rows) {
		w.start += w.scaled(rows[w.next-1].At)
		w.next = 0
		w.pass++
	}
	r := &rows[w.next]
	a := Arrival{
		At: w.start + w.scaled(r.At), Input: r.Input, Output: r.Output, blocks: r.Blocks, pass: w.pass,
	}
	// The first block of a trace is a shared prompt, the second identifies the
	// conversation.
	key, conversation := 1<<32+uint64(w.next), len(r.Blocks) > 1
	if conversation {
		key = r.Blocks[1]
	}
	a.key = mix(key, mix(w.pass, w.options.Seed))
	if conversation {
		a.Session = "conversation-" + strconv.FormatUint(a.key, 36)
	}
	if r.Session != "" {
		a.Session = r.Session + "." + strconv.FormatUint(w.pass, 10)
	}
	a.Model = w.options.Models[a.key%uint64(len(w.options.Models))]
	a.Region = w.options.Regions[(a.key>>32)%uint64(len(w.options.Regions))]
	w.next++
	return a
}

func (w *Workload) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * w.scale)
}

// Blocks returns a hash for each [BlockTokens] of the prompt; the last block
// may be shorter. Equal hashes mean equal text up to the block's end.
func (a *Arrival) Blocks() []uint64 {
	if a.hashes != nil {
		return a.hashes
	}
	list := make([]uint64, (a.Input+BlockTokens-1)/BlockTokens)
	for i := range list {
		switch {
		case i >= len(a.blocks):
			list[i] = mix(a.key, uint64(i))
		case i == 0: // shared by all, in every pass
			list[i] = a.blocks[0]
		default:
			list[i] = mix(a.blocks[i], a.pass)
		}
	}
	return list
}

func mix(a, b uint64) uint64 { return rand.NewPCG(a, b).Uint64() }
