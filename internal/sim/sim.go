// Package sim plays a workload on a simulated fleet in virtual time. The heads are
// models of inference engines; the registry, the policy, the router and its
// strategies are those of production.
package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"headway/internal/engine"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/workload"
)

// UsualModel is the model type of requests that name none.
const UsualModel = "simulated"

// Head is a simulated head of the fleet.
type Head struct {
	Profile engine.Profile
	Speed   float64 // how many times faster than its profile; 0: 1
	Weight  float64 // 0: 1
	Region  string  // "": the only one
	Absent  bool    // until Fleet.Start
}

// Options say what is simulated. Source, Heads and Policy are required.
type Options struct {
	Source   workload.Source
	Heads    []Head
	Policy   *policy.Policy
	Model    string            // model type of all requests, for policies that have rules; "": UsualModel
	Seed     uint64            // of all randomness; 0: 1
	Routers  int               // over the one fleet, each with a part of the requests; 0: 1
	Reports  time.Duration     // between two status reports of a head; 0: 1 s
	Blind    bool              // callers report how requests ended, and not their first token, as with the decision API
	Window   time.Duration     // after which routers send one another what they count and placed; 0: they don't
	Loss     float64           // share of that which is lost, 0 to 1
	Events   []Event           // what happens to the fleet
	Watchers []routing.Watcher // of all routers
	Progress func(done int)

	// Pick names the head for a request in place of the policy's strategy, for
	// rules that see what no router can; nil: the strategy chooses. The policy must
	// let callers exclude heads.
	Pick func(*Fleet, *workload.Arrival) (head int)
}

// Event is something that happens to the fleet.
type Event struct {
	At time.Duration
	Do func(*Fleet) error
}

func (o *Options) complete() error {
	switch {
	case o.Source == nil || o.Policy == nil || len(o.Heads) == 0:
		return errors.New("sim: Source, Heads and Policy are required")
	case o.Routers < 0 || o.Reports < 0 || o.Window < 0:
		return errors.New("sim: Routers, Reports and Window must not be negative")
	case !(o.Loss >= 0 && o.Loss <= 1):
		return errors.New("sim: Loss must be 0 to 1")
	}
	o.Model = cmp.Or(o.Model, UsualModel)
	o.Seed = max(o.Seed, 1)
	o.Routers = max(o.Routers, 1)
	if o.Reports == 0 {
		o.Reports = time.Second
	}
	return nil
}

// Run plays the whole source, and returns what was measured. Equal options give
// equal results.
func Run(ctx context.Context, o Options) (*Measured, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	w := &world{o: o, ctx: ctx, measured: newMeasured(len(o.Heads))}
	if err := w.build(); err != nil {
		return nil, fmt.Errorf("build the simulated fleet: %w", err)
	}
	w.arrive()
	for n := 0; w.events.len() > 0 && !w.idle(); n++ {
		if n&0xfff == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		e := w.events.next()
		w.at = e.at
		e.do()
		if w.err != nil {
			return nil, w.err
		}
	}
	return w.measured.complete(), nil
}
