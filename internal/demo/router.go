package demo

import (
	"context"
	"fmt"
	"time"

	"headway/api"
	"headway/client"
)

// routerView is the router's state of the heads.
type routerView struct {
	words map[string]string // by id
	err   bool              // it did not answer
}

func (v *routerView) word(id string) string {
	switch {
	case v == nil:
		return ""
	case v.err:
		return badStyle.Render("?")
	}
	switch w := v.words[id]; w {
	case "":
		return labelStyle.Render("unknown")
	case "fresh":
		return goodStyle.Render(w)
	case "stale":
		return badStyle.Render(w)
	default:
		return warnStyle.Render(w)
	}
}

func (d *display) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	v := &routerView{words: make(map[string]string)}
	for h, err := range d.router.Heads(ctx, client.HeadQuery{PageSize: 1000}) {
		if err != nil {
			v.err = true
			break
		}
		v.words[h.ID] = h.Health.State
	}
	d.seen.Store(v)
}

// regret is what the service says of its placements.
type regret struct {
	ms        float64 // the mean
	decisions int64   // 0: none was compared
	reliable  bool
}

// judge asks how well the service placed requests since the demo began. Where it does
// not answer, what it said before stands.
func (d *display) judge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	list, err := d.router.Effectiveness(ctx, client.EffectivenessQuery{Window: window(d.stats.start, time.Now())})
	if err == nil {
		d.regret.Store(meanRegret(list.Data))
	}
}

// window is the least that has all since then. A window begins with a minute.
func window(start, now time.Time) time.Duration {
	return min(now.Truncate(time.Minute).Sub(start.Truncate(time.Minute))+time.Minute, time.Hour)
}

func meanRegret(list []api.Strategy) *regret {
	r := &regret{reliable: true}
	for i := range list {
		e := &list[i].Effectiveness
		if e.RegretMs == nil || e.Decisions == 0 {
			continue
		}
		r.decisions += e.Decisions
		r.ms += (*e.RegretMs - r.ms) * float64(e.Decisions) / float64(r.decisions)
		r.reliable = r.reliable && e.RegretReliable
	}
	return r
}

func (r *regret) String() string {
	switch {
	case r == nil || r.decisions == 0:
		return "–"
	case !r.reliable:
		return fmt.Sprintf("%.2f ms?", r.ms)
	}
	return fmt.Sprintf("%.2f ms", r.ms)
}
