package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The actions that a journal records of itself.
const (
	ActionRotate     = "audit.rotate"
	ActionUnfinished = "audit.unfinished"
	actionStart      = "audit.start"
	actionStop       = "audit.stop"
	actionPrune      = "audit.prune"
	actionOpen       = "audit.open"
	actionDamaged    = "audit.damaged"
	actionLost       = "audit.lost"
)

func trailEntry(action string, outcome Outcome, reason, target string) Entry {
	return Entry{
		Category: Trail, Action: action, Outcome: outcome, Reason: reason,
		Actor: Actor{Type: "system"}, Target: Target{Type: "audit", ID: target},
	}
}

// findings describe what an earlier process left.
type findings struct {
	head         head
	segment      segment  // the file that the head is in
	torn         int      // bytes of a line that was not written to its end
	tornFile     string   // that they were put into
	open         []string // intents without a result
	actions      map[string]string
	damage       []string // sentences
	lost         uint64   // records that waited for the disk
	checkpointed uint64
	checkpoint   Checkpoint
}

func (f *findings) entries(path string) []Entry {
	name := filepath.Base(path)
	reason := "the trail begins"
	if f.head.seq > 0 {
		reason = "the trail goes on behind record " + strconv.FormatUint(f.head.seq, 10)
	}
	if f.torn > 0 {
		file := f.tornFile
		if filepath.Dir(file) == filepath.Dir(path) {
			file = filepath.Base(file)
		}
		reason += fmt.Sprintf("; its last line was torn, the %d bytes are in %s", f.torn, file)
	}
	entries := []Entry{trailEntry(actionStart, Success, reason, name)}
	for _, d := range f.damage {
		entries = append(entries, trailEntry(actionDamaged, Failure, d, name))
	}
	if f.lost > 0 {
		entries = append(entries, trailEntry(actionLost, Failure, fmt.Sprintf("records that waited for the disk when the process before ended, and are lost: %d", f.lost), name))
	}
	for _, id := range f.open {
		what := "the process ended before it recorded how this ended"
		if a := f.actions[id]; a != "" {
			what += ": " + a
		}
		entries = append(entries, trailEntry(ActionUnfinished, Unknown, what, id))
	}
	return entries
}

func resume(o Options, counts *counters) (*chain, *findings, error) {
	if info, err := os.Stat(filepath.Dir(o.Path)); err != nil {
		return nil, nil, fmt.Errorf("open the audit trail: %w; make its directory first", err)
	} else if !info.IsDir() {
		return nil, nil, fmt.Errorf("open the audit trail: %s is no directory", filepath.Dir(o.Path))
	}
	file, err := o.openTrail()
	if err != nil {
		return nil, nil, fmt.Errorf("open the audit trail: %w", err)
	}
	t := &chain{o: &o, counts: counts, file: file}
	f := &findings{head: head{hash: FirstPrev}, actions: make(map[string]string)}
	if err := t.resume(f); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	t.head, t.open = f.head, slices.Clone(f.open)
	return t, f, nil
}

func (t *chain) resume(f *findings) (err error) {
	if err = f.cutTorn(t.file, t.o); err != nil {
		return err
	}
	if t.info, err = t.file.Stat(); err != nil {
		return err
	}
	f.readCheckpoint(t.o)
	files, err := Files(context.Background(), t.o.Path)
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(file File) bool { return file.First == 0 && file.Path != t.o.Path })
	if len(files) > 0 {
		last := files[len(files)-1]
		if t.info.Size() > 0 && last.Path != t.o.Path {
			return refuse(t.o.Path, "its records are older than those of "+filepath.Base(last.Path))
		}
		if err := f.scan(last, t.o.Path); err != nil {
			return err
		}
		if t.info.Size() > 0 {
			t.size, t.records = t.info.Size(), f.segment.Records
		} else {
			t.left, t.why = f.segment, "the file before had been renamed"
		}
	}
	f.compare(t)
	return nil
}

func refuse(path, why string) error {
	return fmt.Errorf("%w: %s cannot be continued: %s; see what 'headway audit verify' says about it, then move the file away: the next start begins a new one and goes on counting behind the last record that is known", ErrDamaged, path, why)
}

// cutTorn moves an incomplete last line to a file of its own.
func (f *findings) cutTorn(file *os.File, o *Options) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open the audit trail: %w", err)
	}
	end, err := LastNewline(file, info.Size())
	if err != nil {
		return fmt.Errorf("read the end of the audit trail: %w", err)
	}
	rest := info.Size() - end
	if rest == 0 {
		return nil
	}
	if rest > 2*writeBytes {
		return refuse(o.Path, "it ends with something that is no record")
	}
	text := make([]byte, rest)
	if _, err := file.ReadAt(text, end); err != nil {
		return fmt.Errorf("read the end of the audit trail: %w", err)
	}
	begun := len(text) < MaxLine && string(text[:min(len(text), len(lineHead))]) == lineHead[:min(len(text), len(lineHead))]
	if !begun && len(bytes.Trim(text, "\x00")) > 0 {
		return refuse(o.Path, "it ends with something that is no record")
	}
	if f.tornFile, err = o.keep(tornSuffix, text); err != nil {
		return fmt.Errorf("put the torn last line of the audit trail aside, for which one of these places must be writable: %w", err)
	}
	if err := errors.Join(file.Truncate(end), o.sync(file)); err != nil {
		return fmt.Errorf("cut the torn last line of the audit trail: %w", err)
	}
	f.torn = len(text)
	return nil
}

// LastNewline is the offset behind the last newline of a file, 0 without one.
func LastNewline(file io.ReaderAt, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(block)))
		b := block[:end-start]
		if _, err := file.ReadAt(b, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// scan reads the newest file for the end of its chain and the open intents.
// Open intents of earlier files are listed at its beginning.
func (f *findings) scan(file File, path string) error {
	in, err := file.Open()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	l := NewLines(in, 1<<20)
	name := filepath.Base(file.Path)
	waiting := make(map[string]bool)
	sound := false // whether the line is sound
	for {
		line, state, err := l.Next()
		if errors.Is(err, io.EOF) || err == nil && state == Torn { // torn: renamed before this start
			break
		}
		if err != nil {
			return refuse(path, err.Error())
		}
		f.segment.Records++
		seq, fits, prev, hash := Inspect(line)
		m, ok := Split(line)
		after := sound // whether the one before was
		if sound = fits && ok; !sound {
			f.harm(fmt.Sprintf("line %d of %s is no record, or was changed", l.N, name))
			continue
		}
		if after && (seq != f.head.seq+1 || string(prev) != f.head.hash) {
			f.harm(fmt.Sprintf("line %d of %s does not follow the one before", l.N, name))
		}
		if seq == f.checkpoint.Seq && string(hash) != f.checkpoint.Hash {
			f.harm(fmt.Sprintf("record %d is not that of the last checkpoint", seq))
		}
		at, err := time.Parse(TimeFormat, string(m.Time))
		if err != nil {
			f.harm(fmt.Sprintf("line %d of %s has no time", l.N, name))
		}
		f.head = head{seq: seq, hash: string(hash), time: at}
		f.track(&m, waiting)
	}
	if !sound {
		return refuse(path, "the last line of "+name+" is no record, or was changed")
	}
	f.open = slices.DeleteFunc(f.open, func(id string) bool { return !waiting[id] })
	f.segment.Seq, f.segment.Hash, f.segment.File = f.head.seq, f.head.hash, name
	return nil
}

// maxHarm is how many faults of a file a start records; Verify lists all.
const maxHarm = 5

func (f *findings) harm(what string) {
	if len(f.damage) < maxHarm {
		f.damage = append(f.damage, what)
	}
}

func (f *findings) track(m *Members, waiting map[string]bool) {
	id := string(m.ID)
	switch action := string(m.Action); {
	case string(m.Stage) == string(Intent):
		f.open, waiting[id], f.actions[id] = append(f.open, id), true, action
	case strings.HasSuffix(id, ResultSuffix):
		id = strings.TrimSuffix(id, ResultSuffix)
		delete(waiting, id)
		delete(f.actions, id)
	case string(m.Category) != string(Trail):
	case action == ActionUnfinished:
		delete(waiting, string(m.TargetID))
	case action == actionOpen:
		var after openOperations
		_ = json.Unmarshal(m.After, &after) //nolint:forbidigo // our own record; a damaged one has been noticed
		for _, id := range after.Open {
			f.open, waiting[id] = append(f.open, id), true
		}
	}
}

func (f *findings) readCheckpoint(o *Options) {
	files := []string{CheckpointPath(o.Path)}
	if o.SideDir != "" {
		files = append(files, sidePath(o.SideDir, o.Path, checkpointSuffix))
	}
	for i, file := range files {
		where := [...]string{"beside the trail", "of the trail in " + o.SideDir}[i]
		c, err := ReadCheckpoint(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			f.harm("the checkpoint " + where + " cannot be read")
			continue
		case o.SigningKey != nil && c.Signature != nil:
			if key, ok := o.SigningKey.Public().(ed25519.PublicKey); !ok || c.Check(key) != nil {
				f.harm("the checkpoint " + where + " was not signed with our key")
				continue
			}
		}
		if c.Seq > f.checkpoint.Seq {
			f.checkpoint = c
		}
	}
}

// compare continues the chain behind the last checkpoint if the files end
// before it, so that the gap stays visible.
func (f *findings) compare(t *chain) {
	if f.checkpointed = min(f.checkpoint.Seq, f.head.seq); f.checkpoint.Seq <= f.head.seq {
		return
	}
	f.harm(fmt.Sprintf("records %d to %d are missing; the last checkpoint knows of them", f.head.seq+1, f.checkpoint.Seq))
	f.head.seq, f.head.hash = f.checkpoint.Seq, f.checkpoint.Hash
	if f.checkpoint.Time.After(f.head.time) {
		f.head.time = f.checkpoint.Time
	}
	if t.size == 0 {
		t.left, t.why, t.fault = segment{Seq: f.head.seq, Hash: f.head.hash}, "the files before are missing", true
	}
	f.checkpointed = f.checkpoint.Seq
}
