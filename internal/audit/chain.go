package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"headway/internal/disk"
)

// fileMode lets the group of the file read the trail, as log shippers do.
const fileMode = 0o640

const writeBytes = 1 << 20

// openPerRecord is how many ids of open intents fit into one record.
const openPerRecord = 300

type head struct {
	seq  uint64
	hash string // FirstPrev before the first record
	time time.Time
}

// segment is where a file's chain ended when the file was closed, as recorded.
type segment struct {
	File    string `json:"file,omitempty"` // its name then, "" if that is not known
	Records uint64 `json:"records"`
	Seq     uint64 `json:"seq"`
	Hash    string `json:"hash"`
}

// openOperations are the ids of operations without a result, as recorded.
type openOperations struct {
	Open []string `json:"open"`
}

// object encodes a member of a record. Its types always encode.
func object(v any) json.RawMessage {
	text, _ := json.Marshal(v)
	return text
}

// chain is the open file and the end of its hash chain. One goroutine uses it.
type chain struct {
	o      *Options
	counts *counters

	file    *os.File    // nil: it is not open
	info    fs.FileInfo // of the file that was open last
	size    int64       // what of it is durable and ours
	records uint64      // in it
	suspect bool        // behind size there may be what a failed write has left
	head    head
	left    segment  // the file before
	why     string   // that was left
	fault   bool     // that was not as it should be
	open    []string // ids of intents without a result, the oldest first
	buf     []byte

	rotations   uint64
	rotateAfter time.Time // a rotation failed; the next is not tried before
}

// errLost reports a file that was removed while it was open.
var errLost = errors.New("the file before was removed while it was written")

// commit makes the first n records durable: at least one, or none.
func (t *chain) commit(batch []*pending) (n int, err error) {
	for range 3 {
		if err = t.ready(); err == nil {
			err = t.rotateIfFull()
		}
		if err == nil {
			n, err = t.append(batch)
		}
		if !errors.Is(err, errLost) {
			return n, err
		}
		t.leave(errLost.Error(), true)
	}
	return 0, unavailable("write", err)
}

func (t *chain) append(batch []*pending) (n int, err error) {
	next, buf, records := t.head, t.buf[:0], uint64(0)
	if t.size == 0 && t.head.seq > 0 {
		for _, p := range t.opening() {
			buf = t.encode(buf, &next, p)
			records++
		}
	}
	for _, p := range batch {
		buf = t.encode(buf, &next, p)
		n, records = n+1, records+1
		if len(buf) >= writeBytes || t.size+int64(len(buf)) >= t.o.MaxBytes {
			break
		}
	}
	if t.buf = buf[:0]; cap(buf) > 4*writeBytes {
		t.buf = nil
	}
	if err := t.put(buf); err != nil {
		return 0, err
	}
	t.head, t.records = next, t.records+records
	for _, p := range batch[:n] {
		t.track(p)
	}
	return n, nil
}

// encode appends the line of p, which follows h, and advances h.
func (t *chain) encode(buf []byte, h *head, p *pending) []byte {
	e := &p.entry
	at := wholeMilliseconds(t.o.Now())
	if at.Before(h.time) {
		at = h.time
	}
	reason := e.Reason
	if p.late {
		reason = "late, of " + p.at.UTC().Format(TimeFormat)
		if e.Reason != "" {
			reason += ": " + e.Reason
		}
	}
	r := Record{
		V: 1, Seq: h.seq + 1, Time: at, ID: p.id, Node: t.o.Node, Stage: p.stage,
		Category: e.Category, Action: e.Action, Outcome: e.Outcome, Reason: reason,
		Actor: e.Actor, Src: e.Source, Target: e.Target, RequestID: e.RequestID, TraceID: e.TraceID,
		Before: e.Before, After: e.After, Prev: h.hash,
	}
	buf = AppendLine(buf, &r)
	*h = head{seq: r.Seq, hash: r.Hash, time: at}
	return buf
}

// put writes and syncs. After an error the file is truncated, or marked
// suspect.
func (t *chain) put(buf []byte) error {
	if t.o.MinFreeBytes > 0 {
		if free, err := disk.Free(filepath.Dir(t.o.Path)); err != nil {
			return unavailable("look at the free space", err)
		} else if free < t.o.MinFreeBytes+int64(len(buf)) {
			return unavailable("leave space on the disk", fmt.Errorf("only %d bytes are free: %w", free, syscall.ENOSPC))
		}
	}
	if _, err := t.o.write(t.file, buf); err != nil {
		t.undo()
		return unavailable("write", err)
	}
	start := time.Now()
	err := t.o.sync(t.file)
	t.counts.syncs.Observe(time.Since(start).Seconds())
	if err != nil {
		// After a failed sync the kernel's pages cannot be trusted.
		t.undo()
		t.close()
		t.suspect = true
		return unavailable("wait for the disk", err)
	}
	info, err := t.file.Stat()
	if err != nil {
		t.undo()
		return unavailable("look at the file", err)
	}
	if removed(info) {
		return errLost
	}
	t.size += int64(len(buf))
	return nil
}

func removed(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

func unavailable(attempt string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, attempt, err)
}

func (t *chain) undo() { t.suspect = t.file.Truncate(t.size) != nil }

func (t *chain) track(p *pending) {
	switch {
	case p.stage == Intent:
		t.open = append(t.open, p.id)
	case p.ends != "":
		t.closed(p.ends)
	case p.entry.Action == ActionUnfinished:
		t.closed(p.entry.Target.ID)
	}
}

func (t *chain) closed(id string) {
	if i := slices.Index(t.open, id); i >= 0 {
		t.open = slices.Delete(t.open, i, i+1)
	}
}

// ready opens the file if needed, and closes one that was moved away.
func (t *chain) ready() error {
	if t.file != nil {
		why, fault, err := t.strange()
		if err != nil {
			return unavailable("look at the file", err)
		}
		if why != "" {
			t.leave(why, fault)
		}
	}
	if t.file == nil {
		if err := t.reopen(); err != nil {
			return unavailable("open the file", err)
		}
	}
	if t.suspect {
		if err := errors.Join(t.file.Truncate(t.size), t.o.sync(t.file)); err != nil {
			return unavailable("take back what a failed write has left", err)
		}
		t.suspect = false
	}
	return nil
}

// strange says why the open file is unusable. fault means
// damage, and not a rotation by another program.
func (t *chain) strange() (why string, fault bool, err error) {
	own, err := t.file.Stat()
	if err != nil {
		return "", false, err
	}
	named, err := os.Lstat(t.o.Path)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return "", false, err
	}
	switch {
	case removed(own):
		return "the file before had been removed", true, nil
	case gone || !os.SameFile(named, own):
		return "the file before had been renamed", false, nil
	case own.Size() < t.size:
		return "the file before had been shortened", true, nil
	case own.Size() > t.size && !t.suspect:
		return "another program had written to the file before", true, nil
	}
	return "", false, nil
}

func (t *chain) leave(why string, fault bool) {
	t.left = segment{Records: t.records, Seq: t.head.seq, Hash: t.head.hash}
	t.why, t.fault, t.size, t.records, t.suspect, t.info = why, fault, 0, 0, false, nil
	t.close()
	t.rotations++
}

func (t *chain) close() {
	if t.file != nil {
		_ = t.file.Close() // all that counts is durable
		t.file = nil
	}
}

// reopen opens or creates the file. One whose chain cannot be continued is
// renamed like a rotated file.
func (t *chain) reopen() error {
	for range 3 {
		f, err := t.o.openTrail()
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		switch {
		case info.Size() == 0:
			if t.info != nil && t.size > 0 {
				t.leave("the file before had been emptied", true)
			}
			t.size, t.records, t.suspect = 0, 0, false
		case t.info != nil && os.SameFile(t.info, info) && info.Size() >= t.size:
			t.suspect = t.suspect || info.Size() > t.size
		default:
			_ = f.Close()
			if _, err := t.o.setAside(); err != nil {
				return err
			}
			if t.info != nil {
				t.leave("another file stood in the place of the file before", true)
			}
			continue
		}
		t.file, t.info = f, info
		return nil
	}
	return errors.New("the file under the path changes all the time")
}

// openTrail opens the file with an exclusive lock.
func (o *Options) openTrail() (*os.File, error) {
	path := o.Path
	_, err := os.Lstat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, fileMode)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link; give the file itself: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err == nil && fresh {
		err = errors.Join(f.Chmod(fileMode), o.syncDir(path))
	}
	if err == nil {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %s", ErrInUse, path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (o *Options) setAside() (name string, err error) {
	for at := wholeMilliseconds(o.Now()); ; at = at.Add(time.Millisecond) {
		name = o.Path + "." + at.Format(suffixFormat)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, errors.Join(os.Rename(o.Path, name), o.syncDir(o.Path))
		} else if err != nil {
			return "", err
		}
	}
}

// syncDir makes a creation, rename or removal of the file durable.
func (o *Options) syncDir(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(o.sync(d), d.Close())
}

// rotateIfFull starts the next file. On failure the current one stays in use.
func (t *chain) rotateIfFull() error {
	if t.size < t.o.MaxBytes || t.records == 0 || t.o.Now().Before(t.rotateAfter) {
		return nil
	}
	left := segment{Records: t.records, Seq: t.head.seq, Hash: t.head.hash}
	closing := trailEntry(ActionRotate, Success, "the file is full", filepath.Base(t.o.Path))
	closing.After = object(map[string]segment{"closes": left})
	if _, err := t.append([]*pending{newPending(Result, closing, t.o.Now())}); err != nil {
		return err
	}
	name, err := t.o.setAside()
	if err != nil {
		t.rotateAfter = t.o.Now().Add(complain)
		t.o.Log.Error("the audit trail cannot be rotated; its file grows on", "file", t.o.Path, "error", err)
		return nil
	}
	t.leave("the file before was full", false)
	left.File = filepath.Base(name)
	t.left = left
	if err := t.reopen(); err != nil {
		return unavailable("open the next file", err)
	}
	return nil
}

// opening returns the first records of a later file.
func (t *chain) opening() []*pending {
	outcome := Success
	if t.fault {
		outcome = Failure
	}
	first := trailEntry(ActionRotate, outcome, t.why, filepath.Base(t.o.Path))
	first.After = object(map[string]segment{"continues": t.left})
	records := []*pending{newPending(Result, first, t.o.Now())}
	for ids := range slices.Chunk(t.open, openPerRecord) {
		e := trailEntry(actionOpen, Success, "operations that have begun and not ended", filepath.Base(t.o.Path))
		e.After = object(openOperations{ids})
		records = append(records, newPending(Result, e, t.o.Now()))
	}
	return records
}
