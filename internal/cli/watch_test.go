package cli

import (
	"encoding/json"
	"testing"
	"time"

	"headway/api"
	"headway/client"
)

// The table of heads keeps what an event says nothing about.
func TestTheTableOfHeadsFollowsEvents(t *testing.T) {
	heads, changed := map[string]api.Head{}, map[string]time.Time{}
	take := func(kind, data string) {
		takeNotice(heads, changed, client.Notice{Event: &api.Event{Type: kind, Head: "a", Region: "us", Data: json.RawMessage(data)}})
	}
	take("head.registered", `{"status":"active","admin_state":"enabled","health":"fresh","routable":true,"epoch":3}`)
	take("head.unroutable", `{"reason":"health","detail":"stale"}`)
	if h := heads["a"]; h.Routable || h.Status != "active" || h.Epoch != 3 {
		t.Errorf("%+v", h)
	}
	take("head.routable", ``)
	if h := heads["a"]; !h.Routable || h.AdminState != "enabled" {
		t.Errorf("%+v", h)
	}
	if take("head.removed", `{}`); len(heads) != 0 {
		t.Errorf("%+v", heads)
	}
}
