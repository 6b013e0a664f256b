package rehearse

import (
	"context"
	"runtime"

	"headway/api"
	"headway/internal/policy"
)

// Drain is a drain that is played: the requests of a log with a head, and without it.
// All fields are required.
type Drain struct {
	Log    *Log
	Policy *policy.Policy
	Head   string
	Has    func(head string) bool // others that take requests: those of the log that are gone carry nothing
}

// inTime is the part of the requests answered in time with the head that must also be
// answered so without it.
const inTime = 0.95

// Play predicts what the drain leads to in each model type of the head. It fails with
// ErrTooLittle where the log has too few requests that had the head to choose from.
func (d *Drain) Play(ctx context.Context) (all []api.RehearsedPool, err error) {
	pools, _ := d.Log.Pools()
	for _, p := range pools {
		if p.heads[d.Head] == nil {
			continue
		}
		r, err := d.pool(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, ErrTooLittle
	}
	return all, nil
}

func (d *Drain) pool(ctx context.Context, p *Pool) (r api.RehearsedPool, err error) {
	others := func(id string) bool { return id != d.Head && d.Has(id) }
	with, unknown, err := d.play(ctx, p, func(id string) bool { return id == d.Head || others(id) })
	if err != nil {
		return r, err
	}
	without, _, err := d.play(ctx, p, others)
	if err != nil {
		return r, err
	}
	left := 0
	for id := range p.heads {
		if others(id) {
			left++
		}
	}
	return api.RehearsedPool{
		ModelType: p.Model, HeadsLeft: left, Before: figures(&with), After: figures(&without),
		CarriesLoad: left > 0 && without.InTime >= inTime*with.InTime, Assumed: append([]string{}, unknown...),
	}, nil
}

// play lets others have the processor with each request: what it plays beside is a
// service.
func (d *Drain) play(ctx context.Context, p *Pool, has func(string) bool) (Result, []string, error) {
	return d.Log.Play(ctx, p, Run{Policy: d.Policy, Has: has, Progress: func(int) { runtime.Gosched() }})
}

func figures(r *Result) api.RehearsedFigures {
	f := api.RehearsedFigures{Requests: r.Requests, Failed: r.Failed, Goodput: r.Goodput}
	if r.Requests > r.Failed {
		f.P50TTFTMs, f.P95TTFTMs, f.HitRate = &r.P50Ms, &r.P95Ms, &r.HitRate
	}
	return f
}
