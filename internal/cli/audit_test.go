package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/api"
	"headway/internal/audit"
	"headway/internal/local"
)

// books is a service that has an audit trail and counts what is read of it.
type books struct {
	mu       sync.Mutex
	records  []api.AuditRecord // the oldest first
	requests int
	read     int // records that were looked at
}

func (b *books) add(n int, action string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range n {
		seq := len(b.records) + 1
		b.records = append(b.records, api.AuditRecord{Seq: uint64(seq), Action: action, Time: time.UnixMilli(1_795_000_000_000 + int64(seq)/2).UTC()})
	}
}

// since returns what was read since the last call.
func (b *books) since() (requests, read int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	requests, read = b.requests, b.read
	b.requests, b.read = 0, 0
	return requests, read
}

func (b *books) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests++
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	if limit == 0 {
		limit = 100
	}
	before, err := strconv.ParseUint(q.Get("cursor"), 10, 64)
	if err != nil {
		before = 1 << 62
	}
	since, _ := time.Parse(time.RFC3339Nano, q.Get("since"))
	page := api.List[api.AuditRecord]{Data: []api.AuditRecord{}}
	for i, rec := range slices.Backward(b.records) {
		if rec.Time.Before(since) {
			break
		}
		if rec.Seq >= before {
			continue
		}
		b.read++
		if !strings.HasPrefix(rec.Action, q.Get("action")) {
			continue
		}
		page.Data = append(page.Data, rec)
		if len(page.Data) == limit {
			if i > 0 {
				page.NextCursor = fmt.Sprint(rec.Seq)
			}
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page)
}

// A follower reads one record each time that nothing has come, and else no more
// than what has.
func TestAFollowerReadsOnlyWhatIsNew(t *testing.T) {
	b := &books{}
	server := httptest.NewServer(b)
	defer server.Close()
	b.add(2500, "head.register")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	source := &trailSource{remote: &remote{Target: local.Target{Server: server.URL, Timeout: time.Minute}}}
	cmd := newAuditTail(source)
	source.query.Action = "policy"
	cmd.SetContext(ctx)
	var shown bytes.Buffer
	c := &call{Command: cmd, format: "table", w: &shown}
	tick := make(chan time.Time)
	ended := make(chan error, 1)
	go func() { ended <- source.connected(c, func(c *call) error { return source.follow(c, 5, tick) }) }()

	tick <- time.Time{} // taken only when what came before was read
	b.since()           // nothing of what is there is asked for, so that all of it was read
	for range 3 {
		tick <- time.Time{}
	}
	if requests, read := b.since(); requests < 2 || requests > 4 || read > requests {
		t.Errorf("while nothing came, %d requests of %d records", requests, read)
	}
	b.add(300, "head.register") // nothing that is asked for
	tick <- time.Time{}
	tick <- time.Time{}
	if requests, read := b.since(); requests > 6 || read > 300+10 {
		t.Errorf("of what is not asked for, %d requests of %d records", requests, read)
	}
	b.add(150, "policy.put")
	tick <- time.Time{}
	tick <- time.Time{}
	if requests, read := b.since(); requests > 7 || read > 150+10 {
		t.Errorf("of 150 records that came, %d requests of %d records", requests, read)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	n := -1 // the line of columns
	for line := range strings.Lines(shown.String()) {
		if n++; n > 0 && !strings.Contains(line, "policy.put") {
			t.Errorf("line %d is %q", n, line)
		}
	}
	if n != 150 {
		t.Errorf("%d records are shown", n)
	}
}

// A follower of a file is shown each record once, also those of one moment.
func TestAFollowerOfAFileMissesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	at := time.Now()
	j, err := audit.Open(audit.Options{Path: path, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	source := &trailSource{remote: &remote{}, file: path}
	c := &call{Command: newAuditTail(source)}
	c.SetContext(t.Context())
	var from position
	for round := range 5 {
		for range round {
			j.Happened(audit.Entry{Category: audit.Head, Action: "head.patch"})
		}
		list, err := source.fresh(c, &from)
		want := round
		if round == 0 {
			want = 1 // audit.start
		}
		if err != nil || len(list) != want {
			t.Errorf("round %d: %d records, %v", round, len(list), err)
		}
	}
}
