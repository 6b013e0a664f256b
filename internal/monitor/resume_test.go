package monitor_test

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"headway/internal/monitor"
)

const waiting = `groups:
- name: test
  rules:
  - alert: LowHeads
    expr: active_heads < 2
    for: 5m
    labels: {severity: critical, tier: "t{{ $value }}"}
  - alert: NoHeads
    expr: active_heads == 0
    keep_firing_for: 2m
    labels: {severity: warning}
`

// life is a service that is killed and started again: each life has a monitor of
// its own with the files of the one before.
type life struct {
	*testing.T
	file    string
	now     time.Time
	rules   string
	changes []string
}

// start begins another life after the time without one.
func (l *life) start(down time.Duration) *world {
	l.Helper()
	l.now = l.now.Add(down)
	w := newWorld(l, func(o *monitor.Options) {
		o.Snapshot, o.Rules, o.Now = l.file, []byte(l.rules), func() time.Time { return l.now }
		o.Alerted = func(c monitor.AlertChange) {
			l.changes = append(l.changes, fmt.Sprint(c.Labels["alertname"], " ", c.Firing, " at ", l.now.Sub(start)))
		}
	})
	return w
}

// run lets time pass with so many heads; what comes then is a kill, since nothing
// is written at the end.
func (l *life) run(w *world, d time.Duration, heads float64) {
	l.Helper()
	w.heads.Set(heads)
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(15 * time.Second) {
		w.Step(w.Context())
	}
}

func (l *life) states(w *world) string {
	l.Helper()
	var all []string
	for _, state := range []string{"pending", "firing"} {
		data := string(w.get("/api/v1/alerts", nil).Data)
		for part := range strings.SplitSeq(data, `"alertname":"`) {
			if strings.Contains(part, `"state":"`+state) {
				name, _, _ := strings.Cut(part, `"`)
				all = append(all, name+" "+state)
			}
		}
	}
	return strings.Join(all, ", ")
}

// A service that is killed every four minutes alerts with "for: 5m" all the
// same, once, and the alert goes on over the next restarts.
func TestAnAlertWaitsOnOverRestarts(t *testing.T) {
	l := &life{T: t, file: filepath.Join(t.TempDir(), "monitor.history"), now: start, rules: waiting}
	for i := range 6 {
		w := l.start(30 * time.Second)
		l.run(w, 4*time.Minute, 1)
		want := "LowHeads firing"
		if i == 0 {
			want = "LowHeads pending"
		}
		if got := l.states(w); got != want {
			t.Errorf("in life %d the alerts are %q, want %q", i+1, got, want)
		}
	}
	// 30 s without service, 4 min waited, 30 s that do not count, 1 min waited;
	// each last step was 15 s before the kill.
	if len(l.changes) != 1 || l.changes[0] != "LowHeads true at 6m15s" {
		t.Errorf("what was published: %q", l.changes)
	}
	// An alert that ended while there was no service ends for receivers, too.
	l.run(l.start(time.Minute), time.Minute, 5)
	if len(l.changes) != 2 || !strings.HasPrefix(l.changes[1], "LowHeads false") {
		t.Errorf("what was published at the end: %q", l.changes)
	}
}

// What waited begins again if its reason was away; what fired is kept for as
// long as it would have been; and history of long ago resumes nothing.
func TestWhatIsNotResumed(t *testing.T) {
	for _, c := range []struct {
		name   string
		down   time.Duration
		before float64
		after  float64
		want   string
	}{
		{"waits on", 30 * time.Second, 1, 1, "LowHeads pending"},
		{"away at the start", 30 * time.Second, 1, 5, ""},
		{"an hour ago", 61 * time.Minute, 0, 5, ""},
		{"kept firing", 30 * time.Second, 0, 5, "NoHeads firing"},
		{"fires on", 30 * time.Second, 0, 0, "LowHeads pending, NoHeads firing"},
	} {
		l := &life{T: t, file: filepath.Join(t.TempDir(), "monitor.history"), now: start, rules: waiting}
		l.run(l.start(0), time.Minute, c.before)
		w := l.start(c.down)
		l.run(w, time.Second, c.after)
		if got := l.states(w); got != c.want {
			t.Errorf("%s: the alerts are %q, want %q", c.name, got, c.want)
		}
		if c.name == "kept firing" {
			l.run(w, 3*time.Minute, 5)
			if got := l.states(w); got != "" {
				t.Errorf("an alert that was kept is still there: %q", got)
			}
		}
	}
	// An alert of a rule whose labels were changed meanwhile is not its alert.
	l := &life{T: t, file: filepath.Join(t.TempDir(), "monitor.history"), now: start, rules: waiting}
	l.run(l.start(0), time.Minute, 0)
	l.rules = strings.Replace(waiting, "severity: warning", "severity: info", 1)
	w := l.start(0)
	l.run(w, time.Second, 5)
	if got := l.states(w); got != "" {
		t.Errorf("after the rule was changed the alerts are %q", got)
	}
	w.now = l.now
	if r := w.get("/api/v1/query", url.Values{"query": {"ALERTS"}}); string(r.Data) != `{"resultType":"vector","result":[]}` {
		t.Errorf("the series of an alert that is over goes on: %s", r.Data)
	}
}

// A kill in the middle of anything costs no step that was taken before.
func TestAKillCostsNoStepBefore(t *testing.T) {
	if file := os.Getenv("HEADWAY_KILLED"); file != "" {
		w := newWorld(t, func(o *monitor.Options) { o.Snapshot = file })
		begin, err := strconv.Atoi(os.Getenv("HEADWAY_KILLED_FROM"))
		if err != nil {
			t.Fatal(err)
		}
		w.now = start.Add(time.Duration(begin) * 15 * time.Second)
		for i := begin; ; i++ {
			w.heads.Set(float64(i))
			w.Step(t.Context())
			w.now = w.now.Add(15 * time.Second)
			fmt.Fprintln(os.Stdout, "step", i)
		}
	}
	file := filepath.Join(t.TempDir(), "monitor.history")
	next := 0
	for kill := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAKillCostsNoStepBefore$")
		cmd.Env = append(os.Environ(), "HEADWAY_KILLED="+file, fmt.Sprint("HEADWAY_KILLED_FROM=", next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, taken := bufio.NewScanner(out), 0
		for taken < 10+37*kill && lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "step %d", &next); err == nil {
				taken++
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w := newWorld(t, func(o *monitor.Options) { o.Snapshot = file })
		w.now = start.Add(time.Duration(next) * 15 * time.Second)
		w.near(`count_over_time(active_heads[1d])`, float64(next+1))
		w.near(`active_heads`, float64(next))
		w.near(`changes(active_heads[1d])`, float64(next))
		next++ // what the child wrote beyond is of a clock that was ahead
	}
}

// A clock that is set back while the monitor runs keeps no sample away, then or
// after a kill.
func TestAClockThatIsSetBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "monitor.history")
	keep := func(o *monitor.Options) { o.Snapshot = file }
	w := newWorld(t, keep)
	w.heads.Set(7)
	w.pass(10, nil)
	before := w.now
	w.now = w.now.Add(-time.Hour)
	w.heads.Set(3)
	w.pass(3, nil)
	w.near(`active_heads`, 3)
	w.near(`count_over_time(active_heads[1h])`, 3)
	killed := newWorld(t, keep)
	killed.heads.Set(4)
	killed.now = w.now.Add(15 * time.Second)
	killed.pass(1, nil)
	killed.near(`active_heads`, 4)
	killed.near(`count_over_time(active_heads[1h])`, 4)
	w.now = before
	w.heads.Set(5)
	w.pass(1, nil)
	w.near(`active_heads`, 5)
}

// Samples of a clock that was ahead do not keep those of now away.
func TestAClockThatWasAhead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "monitor.history")
	keep := func(o *monitor.Options) { o.Snapshot = file }
	ahead := newWorld(t, keep)
	ahead.now = start.Add(6 * time.Hour)
	ahead.pass(10, nil)
	w := newWorld(t, keep)
	w.heads.Set(7)
	w.pass(3, nil)
	w.near(`active_heads`, 7)
	w.near(`count_over_time(active_heads[1h])`, 3)
}
