package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headway/api"
)

var kills = flag.Int("kills", 20, "how often the service is killed during administrative changes")

// changed is what was asked of the service and what it answered, over all its
// lives.
type changed struct {
	mu       sync.Mutex
	answered []string // request ids of changes that succeeded
	label    int      // of the head, the last that was answered
	distance int      // of the policy, the last that was answered
	sent     int      // of both, the last that was asked for
	keys     []string // ids
}

// change makes administrative changes until the service is gone. It calls enough
// when so many of them were answered, or there are no more.
func (c *changed) change(p *process, life, answers int, enough func()) {
	defer enough()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		c.mu.Lock()
		c.sent++
		n := c.sent
		c.mu.Unlock()
		for kind, r := range []struct{ method, path, body string }{
			{http.MethodPatch, "/api/v1/heads/gpu", fmt.Sprintf(`{"labels":{"n":"%d"}}`, n)},
			{http.MethodPatch, "/api/v1/policy", fmt.Sprintf(`{"strategies":{"least_loaded":null},"regions":{"eu":{"distances_ms":{"us":%d}}}}`, n)},
			{http.MethodPost, "/api/v1/keys", fmt.Sprintf(`{"name":"key %d","role":"viewer"}`, n)},
		} {
			id := fmt.Sprintf("life-%d-%d-%d", life, n, kind)
			if !c.ask(client, p, kind, n, id, r.method, r.path, r.body) {
				return
			}
			if answers--; answers <= 0 {
				enough()
			}
		}
	}
}

func (c *changed) ask(client *http.Client, p *process, kind, n int, id, method, path, body string) bool {
	req, err := http.NewRequestWithContext(p.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.Error(err)
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("If-Match", "*")
	req.Header.Set("X-Request-Id", id)
	req.Header.Set("Authorization", "Bearer "+p.token())
	res, err := client.Do(req)
	if err != nil {
		return false // killed
	}
	defer res.Body.Close()
	var key api.Key
	err = json.NewDecoder(res.Body).Decode(&key)
	if res.StatusCode >= 300 {
		p.Errorf("%s %s: %d", method, path, res.StatusCode)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = append(c.answered, id)
	switch kind {
	case 0:
		c.label = n
	case 1:
		c.distance = n
	case 2:
		if err == nil { // else the answer was cut off
			c.keys = append(c.keys, key.ID)
		}
	}
	return true
}

// token is the credential of the service's own user.
func (p *process) token() string {
	raw, err := os.ReadFile(filepath.Join(p.dataDir, "local.token"))
	if err != nil {
		p.Error(err)
	}
	return strings.TrimSpace(string(raw))
}

// TestKilledDuringAdministrativeChanges kills the service again and again while
// it is changed. What was answered is in the trail and in effect; what was
// announced and did not come to an end is marked; the trail is whole.
//
// make kills does it 1,000 times.
func TestKilledDuringAdministrativeChanges(t *testing.T) {
	dir := t.TempDir()
	c := &changed{}
	for life := range *kills {
		p := serve(t, dir)
		if life > 0 {
			c.inEffect(p)
		} else {
			if status, body, err := p.do(http.MethodPost, "/api/v1/heads", headBody("gpu")); err != nil || status != http.StatusCreated {
				t.Fatal(status, string(body), err)
			}
			if status, body, err := p.do(http.MethodPost, "/api/v1/keys", `{"name":"admin","role":"admin"}`); err != nil || status != http.StatusCreated {
				t.Fatal(status, string(body), err)
			}
		}
		var changing sync.WaitGroup
		due, enough := context.WithCancel(t.Context())
		changing.Go(func() { c.change(p, life, rand.IntN(10), enough) })
		<-due.Done()
		<-time.After(time.Duration(rand.IntN(10_000)) * time.Microsecond) // in the middle of any step of the next
		p.signal(syscall.SIGKILL)
		changing.Wait()
		<-p.exited
		if t.Failed() {
			return
		}
	}
	p := serve(t, dir)
	defer p.stop()
	c.inEffect(p)
	s := &shell{TB: t, dir: dir, env: []string{"HEADWAY_DATA_DIR=" + dir}}
	out, _ := s.cli(exitOK, "keys", "list", "-o", "json")
	var keys []api.Key
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, k := range keys {
		made[k.ID] = true
	}
	for _, id := range c.keys {
		if !made[id] {
			t.Errorf("key %s was answered and is not there", id)
		}
	}
	s.cli(exitOK, "audit", "verify")
	trail, _ := s.cli(exitOK, "audit", "export")
	c.checkTrail(t, trail)
}

// inEffect wants the last answered change of the head and of the policy to be in
// effect, or one that was asked for after it.
func (c *changed) inEffect(p *process) {
	p.Helper()
	p.client.Transport = bearer(p.token())
	var head api.Head
	var policy struct {
		Regions map[string]struct {
			Distances map[string]int `json:"distances_ms"`
		}
	}
	for path, to := range map[string]any{"/api/v1/heads/gpu": &head, "/api/v1/policy": &policy} {
		if err := json.Unmarshal(p.must(http.StatusOK, http.MethodGet, path, ""), to); err != nil {
			p.Fatal(err)
		}
	}
	label, _ := strconv.Atoi(head.Labels["n"]) // 0 before the first
	for _, change := range []struct {
		what          string
		now, answered int
	}{{"the head's label", label, c.label}, {"the policy's distance", policy.Regions["eu"].Distances["us"], c.distance}} {
		if change.now < change.answered || change.now > c.sent {
			p.Errorf("%s is %d; answered was %d, asked for %d", change.what, change.now, change.answered, c.sent)
		}
	}
}

// checkTrail looks for each answered change, and for how each intent ended.
func (c *changed) checkTrail(t *testing.T, trail string) {
	t.Helper()
	succeeded, intents, ended := map[string]bool{}, map[string]bool{}, map[string]bool{}
	marked := map[string]bool{}
	for line := range strings.Lines(trail) {
		var r api.AuditRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Stage == "intent":
			intents[r.ID] = true
		case r.Action == "audit.unfinished":
			marked[r.Target.ID] = true
		case r.Outcome == "success":
			succeeded[r.RequestID] = true
			fallthrough
		default:
			ended[strings.TrimSuffix(r.ID, ".result")] = true
		}
	}
	for _, id := range c.answered {
		if !succeeded[id] {
			t.Errorf("change %s was answered and is not in the trail", id)
		}
	}
	unfinished := 0
	for id := range intents {
		if ended[id] {
			continue
		}
		if unfinished++; !marked[id] {
			t.Errorf("intent %s did not end and is not marked", id)
		}
	}
	if len(c.answered) < *kills || c.label == 0 || c.distance == 0 || len(c.keys) == 0 {
		t.Errorf("too little was answered to show anything: %d changes", len(c.answered))
	}
	t.Logf("killed %d times: %d changes answered, %d intents, of which %d were cut off and are marked", *kills, len(c.answered), len(intents), unfinished)
}
