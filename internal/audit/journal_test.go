package audit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/audit"
	"headway/internal/trail"
)

func TestOptionsAreChecked(t *testing.T) {
	w := newWorld(t)
	faults := map[string]func(*audit.Options){
		"no path":         func(o *audit.Options) { o.Path = "" },
		"no log":          func(o *audit.Options) { o.Log = nil },
		"negative":        func(o *audit.Options) { o.Keep = -1 },
		"short key":       func(o *audit.Options) { o.SigningKey = make([]byte, 32) },
		"no directory":    func(o *audit.Options) { o.Path = filepath.Join(o.Path, "no", "audit.log") },
		"a directory":     func(o *audit.Options) { o.Path = filepath.Dir(o.Path) },
		"a symbolic link": func(o *audit.Options) { o.Path += ".link"; _ = os.Symlink(w.path, o.Path) },
		"a pipe":          func(o *audit.Options) { o.Path += ".pipe"; _ = exec.Command("mkfifo", o.Path).Run() },
	}
	for what, fault := range faults {
		o := w.o
		fault(&o)
		if j, err := audit.Open(o); err == nil {
			_ = j.Close()
			t.Errorf("%s was taken", what)
		}
	}
}

// The layout is a promise to those who read the file with tools of their own.
func TestLineHasTheDocumentedLayout(t *testing.T) {
	w := newWorld(t)
	w.o.Now = func() time.Time { return time.Date(2026, 11, 23, 10, 11, 12, 345_678_901, time.UTC) }
	j := w.open()
	id := w.record(j, change("policy.put"))
	w.close(j)

	lines := w.lines()
	want := `{"v":1,"seq":2,"time":"2026-11-23T10:11:12.345Z","id":"` + id + `","node":"node-1","stage":"result",` +
		`"category":"policy","action":"policy.put","outcome":"success","reason":"rollout",` +
		`"actor":{"type":"key","id":"k-ops","via":"http"},"src":{"ip":"10.0.0.9","user_agent":"curl/8"},` +
		`"target":{"type":"policy","id":"default"},"request_id":"req-1","trace_id":"trace-1",` +
		`"before":{"revision":1},"after":{"revision":2},"prev":"`
	got := strings.TrimSuffix(lines[1], "\n")
	if !strings.HasPrefix(got, want) {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("the id %s is no UUID of version 7", id)
	}
	// As the manual says it is checked by hand.
	prev := strings.Repeat("0", 64)
	for n, line := range lines {
		line = strings.TrimSuffix(line, "\n")
		bare := regexp.MustCompile(`,"hash":"[0-9a-f]*"}$`).ReplaceAllString(line, "}")
		sum := sha256.Sum256([]byte(bare))
		if hash := hex.EncodeToString(sum[:]); !strings.HasSuffix(line, `,"prev":"`+prev+`","hash":"`+hash+`"}`) {
			t.Fatalf("line %d does not end with prev %s and hash %s: %s", n+1, prev, hash, line)
		} else {
			prev = hash
		}
	}
	info, err := os.Stat(w.path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode is %v (%v), want 0640", info.Mode(), err)
	}
}

// A record is in the file when its caller is answered, not some time later.
func TestRecordIsDurableOnReturn(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	synced := int64(0)
	w.o = w.o.WithFaults(nil, func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if err := audit.Datasync(f); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		synced = info.Size()
		return nil
	})
	j := w.open()
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 20 {
				id, err := j.Record(context.Background(), audit.Result, change("key.create"))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				durable := synced
				mu.Unlock()
				text, err := os.ReadFile(w.path)
				if err != nil {
					t.Error(err)
					return
				}
				if !strings.Contains(string(text[:durable]), id) {
					t.Errorf("%s was answered and is not among the %d bytes that are durable", id, durable)
				}
			}
		})
	}
	writers.Wait()
	w.close(j)
	w.sound()
}

// Nothing that a caller passes in can begin a line, end one, or make one that is
// too long.
func TestRecordIsAlwaysOneLine(t *testing.T) {
	w := newWorld(t)
	forged := "\n" + `{"v":1,"seq":9,"time":"2026-11-23T10:11:12.345Z","id":"x","node":"n","stage":"result"}` + "\n"
	evil := []string{
		forged, "\r\n", "\x00\x1b[2J\x7f", "\u0085\u2028\u2029", "\u202egnp.exe\u200b\ufeff", "\xff\xfe\xc3(", `"},"hash":"`,
		"\U000e0041", "日本語 ✓ 🚀", strings.Repeat("\x01", 50_000), strings.Repeat("é", 20_000), strings.Repeat(`\`, 40_000),
	}
	objects := []json.RawMessage{
		nil,
		json.RawMessage("{\n\t\"a\": \"\u2028\u202e\",\r\n \"b\": [1, {\"c\": \"\xff\"}] }"),
		json.RawMessage(`{"long":"` + strings.Repeat("x", 40_000) + `"}`),
		json.RawMessage(`{"broken":`), json.RawMessage(`[1]`), json.RawMessage(`"text"`), json.RawMessage(forged), json.RawMessage(" "),
	}
	j := w.open()
	n := 0
	for _, text := range evil {
		for _, object := range objects {
			n++
			w.record(j, audit.Entry{
				Category: audit.Category(text), Action: text, Outcome: audit.Outcome(text), Reason: text, RequestID: text, TraceID: text,
				Actor: audit.Actor{Type: text, ID: text, Via: text}, Source: audit.Source{IP: text, UserAgent: text},
				Target: audit.Target{Type: text, ID: text, Region: text, ModelType: text}, Before: object, After: object,
			})
		}
	}
	w.close(j)
	if report := w.sound(); report.Records != uint64(n)+2 {
		t.Errorf("%d records, want %d", report.Records, n+2)
	}
	hidden := regexp.MustCompile(`[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]`)
	for i, line := range w.lines() {
		line = strings.TrimSuffix(line, "\n")
		if len(line) >= audit.MaxLine {
			t.Errorf("line %d has %d bytes", i+1, len(line))
		}
		if at := hidden.FindString(line); at != "" {
			t.Errorf("line %d contains %q", i+1, at)
		}
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("line %d is no JSON: %v", i+1, err)
		}
		parsed, err := audit.ParseLine([]byte(line))
		if err != nil || !reflect.DeepEqual(parsed, r) {
			t.Errorf("line %d: ParseLine and encoding/json differ (%v):\n%+v\n%+v", i+1, err, parsed, r)
		}
	}
}

// Of what is too long the objects go first; only then are texts cut, and marked.
func TestWhatIsTooLongIsCutWithAMark(t *testing.T) {
	long := change("policy.put")
	long.Before = json.RawMessage(`{"long":"` + strings.Repeat("x", 40_000) + `"}`)
	long.Reason = strings.Repeat("r", 9000)
	if got := long.Fit(); string(got.Before) != `{"cut":true,"bytes":40011}` || got.Reason != long.Reason {
		t.Errorf("before is %.60s, and %d bytes are left of the reason", got.Before, len(got.Reason))
	}
	long.Source.UserAgent = strings.Repeat("u", 9000)
	got := long.Fit()
	if !strings.HasSuffix(got.Reason, "r [cut]") || !strings.HasSuffix(got.Source.UserAgent, "u [cut]") || got.Target.ID != "default" {
		t.Errorf("reason ends with %q, user agent with %q, the target is %q", got.Reason[len(got.Reason)-9:], got.Source.UserAgent[len(got.Source.UserAgent)-9:], got.Target.ID)
	}
}

func TestOperationHasAnIntentAndOneResult(t *testing.T) {
	w := newWorld(t)
	j := w.open()
	begin, end := context.WithCancel(context.Background())
	op, err := j.Operate(begin, change("policy.put"))
	if err != nil {
		t.Fatal(err)
	}
	end() // the caller has gone away
	if err := op.End(begin, audit.Failure, "conflict", json.RawMessage(`{"revision":3}`)); err != nil {
		t.Fatal(err)
	}
	if err := op.End(begin, audit.Success, "", nil); err != nil {
		t.Fatal(err)
	}
	if open := j.Stats().Open; open != 0 {
		t.Errorf("%d operations are open, want 0", open)
	}
	w.close(j)

	records := of("policy.put", w.records())
	if len(records) != 2 {
		t.Fatalf("%d records, want an intent and a result", len(records))
	}
	intent, result := records[0], records[1]
	if intent.Stage != audit.Intent || intent.Outcome != "" || string(intent.Before) != `{"revision":1}` {
		t.Errorf("the intent is %+v", intent)
	}
	if result.Stage != audit.Result || result.Outcome != audit.Failure || result.Reason != "conflict" || string(result.After) != `{"revision":3}` ||
		result.ID != intent.ID+".result" || result.Target != intent.Target || result.RequestID != intent.RequestID || result.Actor != intent.Actor {
		t.Errorf("the result is %+v", result)
	}
}

func TestIntentsWithoutResultAreMarkedAtTheNextStart(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 4000 // several files, so that the list of open intents has to travel
	j := w.open()
	var open []string
	for i := range 5 {
		op, err := j.Operate(context.Background(), change("key.create"))
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			_ = op.End(context.Background(), audit.Success, "", nil)
		} else {
			found, _, err := trail.Search(context.Background(), w.path, trail.Query{Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, found[0].ID)
		}
	}
	for range 30 {
		w.record(j, change("policy.put"))
	}
	w.close(j)
	for range 2 { // marked once
		w.close(w.open())
	}
	var marked []string
	for _, r := range of("audit.unfinished", w.records()) {
		marked = append(marked, r.Target.ID)
		if r.Outcome != audit.Unknown {
			t.Errorf("an operation that nobody saw end is marked as a %s", r.Outcome)
		}
	}
	if !reflect.DeepEqual(marked, open) {
		t.Errorf("marked are %v, want %v", marked, open)
	}
	if files := w.sound().Files; len(files) < 4 {
		t.Errorf("the trail has %d files", len(files))
	}
}

func TestStartAndStopAreRecorded(t *testing.T) {
	w := newWorld(t)
	w.close(w.open())
	w.close(w.open())
	var got []string
	for _, r := range w.records() {
		got = append(got, r.Action+" "+r.Reason)
	}
	want := []string{"audit.start the trail begins", "audit.stop ", "audit.start the trail goes on behind record 2", "audit.stop "}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTwoJournalsCannotWriteOneTrail(t *testing.T) {
	w := newWorld(t)
	j := w.open()
	if _, err := audit.Open(w.o); !errors.Is(err, audit.ErrInUse) {
		t.Errorf("the second got %v", err)
	}
	w.close(j)
	w.close(w.open())
}

func TestClosedJournalRefuses(t *testing.T) {
	w := newWorld(t)
	j := w.open()
	op, err := j.Operate(context.Background(), change("policy.put"))
	if err != nil {
		t.Fatal(err)
	}
	w.close(j)
	_, err = j.Record(context.Background(), audit.Result, change("policy.put"))
	_, begun := j.Operate(context.Background(), change("policy.put"))
	for what, err := range map[string]error{"Record": err, "Begin": begun, "End": op.End(context.Background(), audit.Success, "", nil), "Reopen": j.Reopen()} {
		if !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("%s got %v", what, err)
		}
	}
	j.Note(change("head.register"))
	if dropped := j.Stats().Dropped; dropped != 2 {
		t.Errorf("%d records were dropped, want the result and the note", dropped)
	}
	w.close(j)
}

// A flood of denied attempts cannot fill the disk, and does not hide that other
// addresses are denied as well.
func TestFloodOfDeniedAttemptsIsFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.open()
		denied := func(ip, action, reason string) {
			e := audit.Entry{Category: audit.Auth, Action: action, Outcome: audit.Denied, Reason: reason, Actor: audit.Actor{Type: "anonymous"}, Source: audit.Source{IP: ip}, Target: audit.Target{Type: "route"}}
			e.RequestID = fmt.Sprint(time.Now().UnixNano())
			j.Note(e)
		}
		for range 10_000 {
			denied("10.0.0.1", "auth.key", "unknown key")
		}
		denied("10.0.0.2", "auth.key", "unknown key")
		for i := range 10_000 {
			denied("10.0.0.3", "auth.key", fmt.Sprintf("unknown key %d", i))
		}
		for i := range 10_000 {
			denied(fmt.Sprintf("2001:db8::%x", i), "auth.key", "expired key")
		}
		time.Sleep(20 * time.Second) // within the bubble
		synctest.Wait()
		s := j.Stats()
		if s.Written > 30 || s.Folded != 30_001-1-1-8-1 || s.Dropped != 0 {
			t.Errorf("written %d, folded %d, dropped %d", s.Written, s.Folded, s.Dropped)
		}
		denied("10.0.0.1", "auth.key", "unknown key")
		w.close(j)
		w.sound()

		var got []string
		for _, r := range of("auth.key", w.records()) {
			got = append(got, r.Src.IP+" "+r.Reason)
		}
		want := []string{"10.0.0.1 unknown key", "10.0.0.2 unknown key"}
		for i := range 8 {
			want = append(want, fmt.Sprintf("10.0.0.3 unknown key %d", i))
		}
		want = append(want, "2001:db8::0 expired key", "10.0.0.1 unknown key [and 9999 more like it]", "2001:db8::0 expired key [and 9999 more like it]", "10.0.0.1 unknown key")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if r := w.one("denied.various"); r.Src.IP != "10.0.0.3" || r.Reason != "various denied attempts of this address [and 9992 more like it]" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestFloodFromManyAddressesIsFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.open()
		for i := range 20_000 {
			j.Note(audit.Entry{Category: audit.Auth, Action: "auth.key", Outcome: audit.Denied, Source: audit.Source{IP: fmt.Sprintf("10.%d.%d.1", i/250, i%250)}})
		}
		w.close(j)
		if s := j.Stats(); s.Written > 140 || s.Folded != 20_000-128 || s.Dropped != 0 {
			t.Errorf("written %d, folded %d, dropped %d", s.Written, s.Folded, s.Dropped)
		}
		if r := w.one("denied.various"); r.Reason != "denied attempts of many addresses [and 19872 more like it]" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestCheckpointIsPublishedEachMinuteWhenSomethingHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		logged := func() int { return strings.Count(w.log.String(), `"msg":"audit checkpoint"`) }
		j := w.open()
		if c := j.Checkpoint(); c != nil {
			t.Errorf("at the start: %+v", c)
		}
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if c := j.Checkpoint(); c.Seq != 1 || logged() != 1 {
			t.Fatalf("after 10 quiet minutes: %+v, %d in the log", c, logged())
		}
		w.record(j, change("policy.put"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := j.Checkpoint(); c.Seq != 2 || c.Node != "node-1" || logged() != 2 {
			t.Fatalf("after a record: %+v, %d in the log", c, logged())
		}
		w.close(j)
		if c, beside := j.Checkpoint(), w.checkpoint(); !reflect.DeepEqual(c, beside) || c.Seq != 3 || logged() != 3 {
			t.Errorf("at the end: %+v, beside the trail %+v, %d in the log", c, beside, logged())
		}
	})
}

func TestTimeNeverFallsInATrail(t *testing.T) {
	w := newWorld(t)
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var back atomic.Bool
	w.o.Now = func() time.Time {
		if back.Load() {
			return start.Add(-time.Hour)
		}
		return start
	}
	j := w.open()
	back.Store(true)
	w.record(j, change("policy.put"))
	w.close(j)
	for _, r := range w.records() {
		if !r.Time.Equal(start) {
			t.Errorf("%s is of %v, want %v", r.Action, r.Time, start)
		}
	}
}

func TestContextHoldsTheActor(t *testing.T) {
	id := &audit.Identity{Actor: audit.Actor{Type: "key", ID: "k"}, Source: audit.Source{IP: "10.0.0.1"}, RequestID: "r", TraceID: "t"}
	e := audit.Entry{Action: "a"}.By(audit.WithIdentity(t.Context(), id))
	if e.Actor != id.Actor || e.Source != id.Source || e.RequestID != "r" || e.TraceID != "t" {
		t.Errorf("got %+v", e)
	}
	if e := (audit.Entry{}).By(t.Context()); e.Actor.Type != "system" {
		t.Errorf("without anybody: %+v", e)
	}
}
