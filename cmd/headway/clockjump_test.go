package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// jumpingClock is what the package time gets beside it: the wall clock goes off
// by what a file says, and the monotonic clock does not, as when an operator or
// a time server sets the clock.
const jumpingClock = `package time

import _ "unsafe"

// wallOffset is added to the seconds of each wall clock reading.
//
//go:linkname wallOffset
var wallOffset int64
`

// jumper sets the offset from the file whenever it changes.
const jumper = `package main

import (
	"os"
	"strconv"
	"strings"
	"time"
	_ "unsafe"
)

//go:linkname wallOffset time.wallOffset
var wallOffset int64

func init() {
	go func() {
		for ; ; time.Sleep(5 * time.Millisecond) {
			if b, err := os.ReadFile(os.Getenv("HEADWAY_TEST_CLOCK")); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
					wallOffset = n
				}
			}
		}
	}()
}
`

// withJumpingClock builds the program with a wall clock that can be set.
func withJumpingClock(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const reading = "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {\n"
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(source, []byte(reading)) != 1 {
		t.Fatalf("%s reads the clock otherwise than this test knows; see Now", at)
	}
	write(t, filepath.Join(dir, "time.go"), strings.Replace(string(source), reading, "	sec, nsec, mono := runtimeNow()\n	sec += wallOffset\n	if mono == 0 {\n", 1))
	write(t, filepath.Join(dir, "jumping.go"), jumpingClock)
	write(t, filepath.Join(dir, "jumper.go"), jumper)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		at: filepath.Join(dir, "time.go"),
		filepath.Join(filepath.Dir(at), "jumping.go"): filepath.Join(dir, "jumping.go"),
		filepath.Join(here, "jumper.go"):              filepath.Join(dir, "jumper.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), string(overlay))
	program := filepath.Join(dir, "headway")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags=-checklinkname=0", "-o", program, ".")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return program
}

// The wall clock may be set forward and back by an hour while the service runs:
// no lease ends, no caller is locked out or let in more often, nothing is refused.
func TestSoakClockJumps(t *testing.T) {
	if *soak == 0 {
		t.Skip("it compiles the program and the standard library with another clock, for minutes; make soak runs it")
	}
	program, dir := withJumpingClock(t), t.TempDir()
	clock := filepath.Join(dir, "clock")
	set := func(offset time.Duration) {
		t.Helper()
		write(t, clock+".new", fmt.Sprint(int(offset.Seconds())))
		if err := os.Rename(clock+".new", clock); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(t.Context(), program, "serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--audit-file", filepath.Join(data, "audit.log"),
		"--redis-mode", "off", "--queue-listen", "127.0.0.1:0", "--monitor-interval", "1s", "--http-lame-duck", "50ms", "--lease-base-interval", "1s", "--access-failures-per-address", "0.2")
	cmd.Env = append(os.Environ(), "HEADWAY_TEST_CLOCK="+clock)
	p := start(t, data, cmd)
	epochs := map[string]int{}
	for _, id := range []string{"a", "b"} {
		answer := string(p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody(id)))
		var epoch int
		if _, err := fmt.Sscanf(answer[strings.Index(answer, `"epoch":`):], `"epoch":%d`, &epoch); err != nil {
			t.Fatal(err)
		}
		epochs[id] = epoch
	}
	nc, err := nats.Connect(p.announced().QueueURL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	wrong := func() int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/api/v1/heads", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer hw_000000000000_guess")
		a, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		return a.StatusCode
	}
	now := func() time.Time {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/livez", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		a, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		at, err := http.ParseTime(a.Header.Get("Date"))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	sequence := 0
	// works reports, asks and sends for a while, longer than a lease lasts.
	works := func(what string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); pause(t.Context(), 200*time.Millisecond) {
			sequence++
			for id, epoch := range epochs {
				p.must(http.StatusOK, "PUT", "/api/v1/heads/"+id+"/status", fmt.Sprintf(`{"epoch":%d,"status":"active","sequence":%d}`, epoch, sequence))
			}
			var d struct {
				ID string `json:"decision_id"`
			}
			if err := json.Unmarshal(p.must(http.StatusOK, "POST", "/api/v1/decisions", `{"model_type":"m"}`), &d); err != nil {
				t.Fatal(err)
			}
			p.must(http.StatusNoContent, "POST", "/api/v1/decisions/"+d.ID+"/outcome", `{"result":"ok"}`)
			if status := p.ask(t.Context(), "/prometheus/api/v1/query?query=active_heads"); status != http.StatusOK {
				t.Fatalf("%s: the monitor answers with %d", what, status)
			}
			m, err := nc.Request("headway.v1.decisions.request", []byte(`{"model_type":"m"}`), 10*time.Second)
			if err != nil || !bytes.Contains(m.Data, []byte(`"decision_id"`)) {
				t.Fatalf("%s: over NATS: %v, %s", what, err, m.Data)
			}
		}
		if n := p.metric("headway_lease_expirations_total"); n != 0 {
			t.Errorf("%s: %v leases ended", what, n)
		}
		if n := p.metric("active_heads"); n != 2 {
			t.Errorf("%s: %v heads are active", what, n)
		}
		p.must(http.StatusOK, "GET", "/readyz", "")
		if page := string(p.must(http.StatusOK, "GET", "/prometheus/api/v1/query?query=active_heads", "")); !strings.Contains(page, `"2"]`) {
			t.Errorf("%s: the monitor says %s", what, page)
		}
	}
	works("before")
	for _, jump := range []struct {
		what string
		to   time.Duration
	}{{"an hour forward", time.Hour}, {"back", 0}, {"an hour back", -time.Hour}, {"forward again", 0}} {
		refused := 0
		for range 10 { // five at once, and one in five seconds
			if wrong() == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused < 4 {
			t.Errorf("before the jump %s: %d of 10 wrong keys are beyond the limit", jump.what, refused)
		}
		set(jump.to)
		for off := time.Duration(1 << 62); off.Abs() > 10*time.Minute; off = now().Sub(time.Now().Add(jump.to)) {
		}
		if status := wrong(); status != http.StatusTooManyRequests {
			t.Errorf("after the jump %s a wrong key gets %d; want the limit to hold", jump.what, status)
		}
		works(jump.what)
		if status := wrong(); status != http.StatusUnauthorized { // ten seconds later there is one
			t.Errorf("some time after the jump %s a wrong key gets %d; want no longer wait", jump.what, status)
		}
	}
	key := p.must(http.StatusCreated, "POST", "/api/v1/keys", `{"name":"me","role":"admin"}`)
	if !bytes.Contains(key, []byte(`"secret"`)) {
		t.Errorf("%s", key)
	}
	p.stop()
	if code, out, errs := here(t, "audit", "verify", "--file", filepath.Join(data, "audit.log")); code != exitOK {
		t.Errorf("the trail: exit %d: %s%s", code, out, errs)
	}
}
