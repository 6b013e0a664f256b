package demo

import (
	"context"

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
