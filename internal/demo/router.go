package demo

import (
	"context"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"

	"headway/api"
)

// routerView is what the router holds of the heads.
type routerView struct {
	words map[string]string // by id
	err   bool              // it did not answer
}

const maxHeadList = 8 << 20

// word is what the router says of a head.
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

// look asks the router for its heads.
func (d *display) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	v := &routerView{words: make(map[string]string)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.options.Server+"/api/v1/heads?limit=1000", http.NoBody)
	if err == nil {
		err = d.lookAt(req, v)
	}
	v.err = err != nil
	d.seen.Store(v)
}

func (d *display) lookAt(req *http.Request, v *routerView) error {
	resp, err := d.router.Do(req) //nolint:gosec // the operator names the router
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxHeadList))
	if err != nil {
		return err
	}
	var list api.List[api.Head]
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	for _, h := range list.Data {
		v.words[h.ID] = h.Health.State
	}
	return nil
}
