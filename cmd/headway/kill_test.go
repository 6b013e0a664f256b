package main

import (
	"bufio"
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
	label    int      // the last that was answered
	sent     int      // the last that was asked for
	keys     []string // ids
}

// change makes administrative changes until the service is gone.
func (c *changed) change(p *process, life int) {
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
//	go test ./cmd/headway -run Killed -kills 1000
func TestKilledDuringAdministrativeChanges(t *testing.T) {
	dir := t.TempDir()
	c := &changed{}
	for life := range *kills {
		p := serve(t, dir)
		if life == 0 {
			if status, body, err := p.do(http.MethodPost, "/api/v1/heads", headBody("gpu")); err != nil || status != http.StatusCreated {
				t.Fatal(status, string(body), err)
			}
			if status, body, err := p.do(http.MethodPost, "/api/v1/keys", `{"name":"admin","role":"admin"}`); err != nil || status != http.StatusCreated {
				t.Fatal(status, string(body), err)
			}
		}
		var changing sync.WaitGroup
		changing.Go(func() { c.change(p, life) })
		<-time.After(time.Duration(rand.IntN(30)) * time.Millisecond)
		p.signal(syscall.SIGKILL)
		changing.Wait()
		<-p.exited
		if t.Failed() {
			return
		}
	}
	p := serve(t, dir)
	defer p.stop()
	s := &shell{TB: t, dir: dir, env: []string{"HEADWAY_DATA_DIR=" + dir}}
	out, _ := s.cli(exitOK, "heads", "get", "gpu", "-o", "json")
	var head api.Head
	if err := json.Unmarshal([]byte(out), &head); err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(head.Labels["n"]); err != nil || n < c.label || n > c.sent {
		t.Errorf("the label is %q, %v; answered was %d, asked for %d", head.Labels["n"], err, c.label, c.sent)
	}
	out, _ = s.cli(exitOK, "keys", "list", "-o", "json")
	for _, id := range c.keys {
		if !strings.Contains(out, id) {
			t.Errorf("key %s was answered and is not there", id)
		}
	}
	s.cli(exitOK, "audit", "verify")
	c.checkTrail(t, filepath.Join(dir, "audit.log"))
}

// checkTrail looks for each answered change, and for how each intent ended.
func (c *changed) checkTrail(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	succeeded, intents, ended := map[string]bool{}, map[string]bool{}, map[string]bool{}
	marked := map[string]bool{}
	for scan := bufio.NewScanner(f); scan.Scan(); {
		var r api.AuditRecord
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
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
	t.Logf("killed %d times: %d changes answered, %d intents, of which %d were cut off and are marked", *kills, len(c.answered), len(intents), unfinished)
}
