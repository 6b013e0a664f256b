package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/local"
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

// pages passes on what is written, one page for each write.
type pages chan string

func (p pages) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

// A fleet that changes all the time is drawn all the same, and the reader of its
// events ends with the command.
func TestAFleetThatChangesAllTheTimeIsDrawn(t *testing.T) {
	left := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(redrawEvery / 10)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "id: %d\nevent: head.registered\ndata: {\"id\":\"%d\",\"type\":\"head.registered\",\"head\":\"gpu-7\",\"data\":{}}\n\n", n, n)
			w.(http.Flusher).Flush()
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &remote{Target: local.Target{Server: server.URL, Timeout: time.Minute}}
	shown := make(pages)
	c := &call{Command: &cobra.Command{}, w: shown}
	c.SetContext(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.connected(c, func(c *call) error { return drawHeads(c, api.Subscription{}) }) }()
	drawn := false
	for {
		select {
		case page := <-shown:
			if strings.Contains(page, "gpu-7") {
				drawn = true
				cancel()
			}
		case err := <-ended:
			if err != nil || !drawn {
				t.Errorf("drawn: %v, %v", drawn, err)
			}
			<-left
			return
		}
	}
}

// What an event has is shown as text, and what is nested in it as JSON; of an alert its
// name and what it means, once.
func TestEventsAreShownAsText(t *testing.T) {
	for _, c := range []struct{ kind, data, want string }{
		{
			"head.registered", `{"status":"active","epoch":12000000,"routable":true,"none":null,"empty":"","labels":{"a": "b c"},"models":["x", 2]}`,
			`epoch=12000000 labels={"a":"b c"} models=["x",2] routable=true status=active`,
		},
		{
			"alert.firing", `{"alert":"LowActiveHeads","severity":"critical","labels":{"alertname":"LowActiveHeads"},"annotations":{"summary":"Few heads","description":"1 head\n  is active","runbook_url":"u"}}`,
			"LowActiveHeads (critical): Few heads: 1 head is active",
		},
		{"alert.resolved", `{"alert":"Own","labels":{},"annotations":{"summary":"Few heads","description":"Few heads are active"}}`, "Own: Few heads are active"},
		{"alert.resolved", `{"alert":"Own","labels":{},"annotations":{"summary":"The same","description":"The same"}}`, "Own: The same"},
		{"alert.firing", `{"alert":"Bare","labels":{"a":"b"},"annotations":{}}`, "Bare"},
	} {
		if got := aboutEvent(&api.Event{Type: c.kind, Data: json.RawMessage(c.data)}); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.data, got, c.want)
		}
	}
}
