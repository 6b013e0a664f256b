// Package trail reads the audit trail: search, verify, export and follow the
// files of a journal.
package trail

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/audit"
	"headway/internal/strict"
)

// Query selects records. Zero values select all.
type Query struct {
	Since    time.Time // from then on
	Until    time.Time // before then
	Actor    string    // its id, its type, or type:id
	Action   string    // its beginning; with a * anywhere, all of it
	Category audit.Category
	Outcome  audit.Outcome
	Target   string // its id, its type, or type:id
	Limit    int    // 1 to MaxFound; 0: 100
	Cursor   string // what the search before returned as next
}

// MaxFound is the most records that one search returns.
const MaxFound = 1000

// ErrQuery reports an invalid query.
var ErrQuery = errors.New("the search of the audit trail is not valid")

// Search returns matching records, newest first, and the cursor of the next
// page, "" at the end. It reads blocks backwards until Since or the limit;
// compressed files are read from the start. Lines that are no records are
// skipped, hashes are not checked (see Verify).
func Search(ctx context.Context, path string, q Query) (records []audit.Record, next string, err error) {
	s, err := newSearch(q)
	if err != nil {
		return nil, "", err
	}
	if err := s.files(ctx, path); err != nil {
		return nil, "", err
	}
	if len(s.found) > s.limit {
		s.found = s.found[:s.limit]
		next = strconv.FormatUint(s.found[s.limit-1].Seq, 10)
	}
	return s.found, next, nil
}

type search struct {
	q            Query
	since, until string // as they stand in a line, "" without limit
	limit        int
	before       uint64 // only records with lower sequences are still to be found
	found        []audit.Record
}

func newSearch(q Query) (*search, error) {
	s := &search{q: q, limit: cmp.Or(q.Limit, 100), before: math.MaxUint64}
	if s.limit < 1 || s.limit > MaxFound {
		return nil, fmt.Errorf("%w: the limit must be 1 to %d", ErrQuery, MaxFound)
	}
	if q.Cursor != "" {
		seq, err := strconv.ParseUint(q.Cursor, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: the cursor is none that a search has returned", ErrQuery)
		}
		s.before = seq
	}
	if !q.Since.IsZero() {
		// Recorded times are truncated to milliseconds.
		s.since = q.Since.UTC().Add(time.Millisecond - 1).Format(audit.TimeFormat)
	}
	if !q.Until.IsZero() {
		s.until = q.Until.UTC().Add(time.Millisecond - 1).Format(audit.TimeFormat)
	}
	return s, nil
}

func (s *search) files(ctx context.Context, path string) error {
	w := &walk{path: path, backward: true, before: s.before}
	defer w.close()
	for {
		if more, err := w.next(ctx); err != nil || !more {
			return err
		}
		search := s.backward
		if w.file.Compressed() {
			search = s.forward
		}
		if done, err := search(ctx, w); err != nil || done {
			return err
		}
		s.before = min(s.before, w.file.First)
	}
}

// backward searches a file from its end. done means that nothing older is
// wanted.
func (s *search) backward(ctx context.Context, w *walk) (done bool, err error) {
	in := w.in.File
	end, err := audit.LastNewline(in, w.in.Info.Size())
	if err == nil {
		end, err = s.bisect(in, end)
	}
	if err != nil {
		return false, fmt.Errorf("read the audit trail: %w", err)
	}
	b := backwardLines{in: in, pos: end}
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		line, err := b.next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the audit trail: %w", err)
		}
		m, ok := audit.Split(line)
		if !ok || m.Seq >= s.before {
			continue
		}
		old := string(m.Time) < s.since
		if (old || m.Seq+1 != s.before) && !sound(line) {
			continue // what a damaged record says of its place would hide others
		}
		if old {
			return true, nil
		}
		s.before = m.Seq
		if s.take(&m) {
			return true, nil
		}
	}
}

// sound reports whether a record has the hash that it names.
func sound(line []byte) bool {
	_, sound, _, _ := audit.Inspect(line)
	return sound
}

// take keeps a matching record, and reports whether the page is full.
func (s *search) take(m *audit.Members) bool {
	if !s.matches(m) {
		return false
	}
	r, err := m.Record()
	if err != nil {
		return false
	}
	s.found = append(s.found, r)
	return len(s.found) > s.limit
}

// bisect finds the first line that is too new, between 0 and end. Sequences and
// times never fall in a trail.
func (s *search) bisect(in io.ReaderAt, end int64) (int64, error) {
	if s.before == math.MaxUint64 && s.until == "" {
		return end, nil
	}
	low, high := int64(0), end // all that begins before low is old enough, all from high on too new
	block := make([]byte, 4*audit.MaxLine)
	for high-low > int64(len(block)) {
		middle := low + (high-low)/2
		n, err := in.ReadAt(block, middle)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		at, tooNew, ok := s.firstRecord(block[:min(int64(n), high-middle)])
		switch {
		case !ok:
			return high, nil // damaged; what is too new is left out later
		case tooNew:
			high = middle + int64(at)
		default:
			low = middle + int64(at)
		}
	}
	return high, nil
}

// firstRecord finds the first sound record behind the first newline of b, and
// whether it is too new.
func (s *search) firstRecord(b []byte) (at int, tooNew, ok bool) {
	for {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, false, false
		}
		at += i + 1
		j := bytes.IndexByte(b[at:], '\n')
		if j < 0 {
			return 0, false, false
		}
		if m, ok := audit.Split(b[at : at+j]); ok && sound(b[at:at+j]) {
			return at, m.Seq >= s.before || s.until != "" && string(m.Time) >= s.until, true
		}
	}
}

// forward searches a compressed file, keeping no more than one page.
func (s *search) forward(ctx context.Context, w *walk) (done bool, err error) {
	want := s.limit + 1 - len(s.found)
	var kept [][]byte // a ring
	oldest := 0
	older := false
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		line, err := w.line()
		if err != nil {
			return false, err
		}
		if line == nil {
			break
		}
		m, ok := audit.Split(line)
		if !ok {
			continue
		}
		if m.Seq >= s.before {
			if sound(line) {
				break
			}
			continue
		}
		if string(m.Time) < s.since {
			older = older || sound(line)
			continue
		}
		if !s.matches(&m) {
			continue
		}
		if len(kept) < want {
			kept = append(kept, bytes.Clone(line))
		} else {
			kept[oldest] = append(kept[oldest][:0], line...)
			oldest = (oldest + 1) % want
		}
	}
	kept = slices.Concat(kept[oldest:], kept[:oldest])
	for _, line := range slices.Backward(kept) {
		if m, ok := audit.Split(line); ok && s.take(&m) {
			return true, nil
		}
	}
	return older, nil
}

func (s *search) matches(m *audit.Members) bool {
	q := &s.q
	return string(m.Time) >= s.since && (s.until == "" || string(m.Time) < s.until) &&
		(q.Category == "" || string(m.Category) == string(q.Category)) &&
		(q.Outcome == "" || string(m.Outcome) == string(q.Outcome)) &&
		(q.Action == "" || matchesAction(m.Action, q.Action)) &&
		(q.Actor == "" || named(m.ActorType, m.ActorID, q.Actor)) &&
		(q.Target == "" || named(m.TargetType, m.TargetID, q.Target))
}

func named(kind, id []byte, name string) bool {
	k, err1 := audit.Unescape(kind)
	i, err2 := audit.Unescape(id)
	return errors.Join(err1, err2) == nil && (name == i || name == k || name == k+":"+i)
}

// matchesAction compares a prefix or, with a * in the pattern, the whole
// action.
func matchesAction(action []byte, pattern string) bool {
	a, err := audit.Unescape(action)
	if err != nil {
		return false
	}
	if !strings.Contains(pattern, "*") {
		return strings.HasPrefix(a, pattern)
	}
	return strict.Match(pattern, a, nil)
}

type backwardLines struct {
	in  io.ReaderAt
	pos int64  // where what is in buf begins
	buf []byte // ends behind a newline, or is empty
}

// next returns a line without its newline, valid until the next call. A line
// longer than any record is returned in part.
func (b *backwardLines) next() ([]byte, error) {
	for {
		if n := len(b.buf); n > 0 {
			if i := bytes.LastIndexByte(b.buf[:n-1], '\n'); i >= 0 || b.pos == 0 {
				line := b.buf[i+1 : n-1]
				b.buf = b.buf[:i+1]
				return line, nil
			}
		}
		if b.pos == 0 {
			return nil, io.EOF
		}
		rest := b.buf
		if len(rest) > audit.MaxLine {
			rest = rest[len(rest)-1:]
		}
		start := max(0, b.pos-64<<10)
		grown := make([]byte, b.pos-start, b.pos-start+int64(len(rest)))
		if _, err := b.in.ReadAt(grown, start); err != nil {
			return nil, err
		}
		b.buf, b.pos = append(grown, rest...), start
	}
}
