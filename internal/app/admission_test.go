package app_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/config"
)

// A request that waits is placed when a place comes free, when a head joins, and when
// one comes back.
func TestWhatWaitsIsPlacedWhenThereIsAPlace(t *testing.T) {
	arrived, release := make(chan string, 10), map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
	heads := map[string]*httptest.Server{}
	for id := range release {
		heads[id] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/chat/completions" {
				http.NotFound(w, r)
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			arrived <- id + " " + r.Header.Get("X-Test")
			<-release[id]
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"1","choices":[{"message":{"content":"x"}}]}`)
		}))
		t.Cleanup(heads[id].Close)
	}
	url, stop := run(t, func(c *config.Config) { c.Monitor.Enabled, c.Queue.Mode = false, "off" })
	register := func(id string) {
		ask(t, 201, "POST", url+"/api/v1/heads", fmt.Sprintf(`{"id":%q,"endpoint":%q,"model_type":"m","region":"us","capacity":{"max_in_flight":1},"status":"active"}`, id, heads[id].URL))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Minute}
	var all sync.WaitGroup
	request := func(name string) {
		all.Go(func() {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[]}`))
			r.Header.Set("X-Test", name)
			res, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s %v", name, res.StatusCode, body, err)
			}
		})
	}
	places := func(name string) {
		t.Helper()
		if got := <-arrived; got != name {
			t.Fatalf("%q was placed, not %q", got, name)
		}
	}
	waits := func(name string) {
		t.Helper()
		request(name)
		for value(t, scrape(t, url), "headway_admission_waiting", "priority", "normal") != 1 {
			<-time.After(time.Millisecond)
		}
	}
	register("a")
	request("first")
	places("a first")
	waits("second")
	release["a"] <- struct{}{} // a place comes free
	places("a second")
	waits("third")
	register("b") // a head joins
	places("b third")
	ask(t, 200, "PATCH", url+"/api/v1/heads/b", `{"admin_state":"maintenance"}`)
	release["b"] <- struct{}{}
	waits("fourth")
	ask(t, 200, "PATCH", url+"/api/v1/heads/b", `{"admin_state":"enabled"}`) // it is back
	places("b fourth")
	close(release["a"])
	close(release["b"])
	all.Wait()
	if err := stop(); err != nil {
		t.Error(err)
	}
}
