package trail

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"headway/internal/audit"
)

// VerifyOptions are what a trail is held against.
type VerifyOptions struct {
	Checkpoint *audit.Checkpoint       // what the trail had got to at some time; nil: that its end was cut off can't be seen
	PublicKey  ed25519.PublicKey       // must have signed the checkpoint; nil: its signature is not looked at
	Progress   func(read, total int64) // bytes, as they are in the files; called now and then by the caller's goroutine; may be nil
}

const maxFaults = 1000

// Fault is one thing that is wrong with a trail.
type Fault struct {
	File string // its name; "" if the fault is of the whole
	Line uint64 // from 1; 0 if it is of the whole file
	Seq  uint64 // of the record, as the line has it; 0 if it has none
	What string // a sentence
}

// String is one line: file:line, sequence and what is wrong.
func (f Fault) String() string {
	where := f.File
	if f.Line > 0 {
		where += ":" + strconv.FormatUint(f.Line, 10)
	}
	if where != "" {
		where += ": "
	}
	if f.Seq > 0 {
		where += fmt.Sprintf("record %d: ", f.Seq)
	}
	return where + f.What
}

// Report is what Verify found.
type Report struct {
	Files    []string // their names, in the order of the trail
	Records  uint64   // lines that are records
	Bytes    int64    // uncompressed
	First    uint64   // sequences of the first and the last record; with First above 1 older files are not there
	Last     uint64
	LastHash string
	Faults   []Fault
	Unlisted uint64 // faults beyond those
}

// Sound reports whether nothing is wrong.
func (r Report) Sound() bool { return len(r.Faults) == 0 }

// Verify reads all files of the trail under path by sequence and reports each
// edit, deletion, reordering, repetition and insertion. A truncated or
// rewritten end needs a checkpoint to be found. First shows whether old files
// were pruned. The trail may be written meanwhile. Faults are no error.
func Verify(ctx context.Context, path string, o VerifyOptions) (Report, error) {
	v := &verifier{walk: walk{path: path, damaged: true}, o: o, hash: [audit.HashLen]byte([]byte(audit.FirstPrev)), checkpoint: math.MaxUint64}
	if c := o.Checkpoint; c != nil {
		v.checkpoint = c.Seq
		if o.PublicKey != nil && c.Check(o.PublicKey) != nil {
			v.fault(0, "the checkpoint was not signed with this key")
		}
	}
	defer v.close()
	if err := v.files(ctx); err != nil {
		return v.report, err
	}
	v.name, v.lines = "", nil
	v.compare()
	v.report.Last, v.report.LastHash = v.seq, string(v.hash[:])
	return v.report, nil
}

type verifier struct {
	walk
	o      VerifyOptions
	report Report
	name   string // of the file; "": what is wrong is wrong with the whole

	seq        uint64              // of the record before, 0 at the beginning
	hash       [audit.HashLen]byte // that it names
	loose      bool                // it was changed, so that its hash says nothing
	checkpoint uint64              // sequence to look for; MaxUint64: none
	met        bool
}

func (v *verifier) fault(seq uint64, what string, args ...any) {
	if len(v.report.Faults) >= maxFaults {
		v.report.Unlisted++
		return
	}
	f := Fault{File: v.name, Seq: seq, What: fmt.Sprintf(what, args...)}
	if v.lines != nil {
		f.Line = v.lines.N
	}
	v.report.Faults = append(v.report.Faults, f)
}

// files reads the files, including those that appear meanwhile.
func (v *verifier) files(ctx context.Context) error {
	for {
		more, err := v.next(ctx)
		if !more || ctx.Err() != nil || errors.Is(err, fs.ErrPermission) {
			return err
		}
		if !v.again {
			v.name = filepath.Base(v.file.Path)
			v.report.Files = append(v.report.Files, v.name)
		}
		if err != nil {
			v.fault(0, "the file cannot be read: %v", err)
		} else if err = v.records(ctx); err != nil {
			return err
		}
	}
}

func (v *verifier) records(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if v.o.Progress != nil && n%(16*checkEvery) == 0 {
				v.o.Progress(min(v.total(), v.read+v.lines.Read), v.total())
			}
		}
		line, state, err := v.lines.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			v.fault(0, "the file cannot be read any further: %v", err)
			return nil
		case state == audit.Overlong:
			v.fault(0, "the line is longer than any record")
			v.loose = true
			continue
		case state == audit.Torn:
			if line, err = v.rest(ctx, line); err != nil {
				return err
			}
			if line == nil {
				v.fault(0, "the line has no end: the file was cut, or its writer was killed")
				return nil
			}
		}
		v.report.Bytes += int64(len(line)) + 1
		v.record(line)
	}
}

// restTries and restWait bound the wait for a line that is being written.
const (
	restTries = 10
	restWait  = 10 * time.Millisecond
)

// rest waits for the rest of an unfinished line; nil if it does not come.
func (v *verifier) rest(ctx context.Context, begun []byte) ([]byte, error) {
	line := slices.Clone(begun)
	if v.in.Reader != io.Reader(v.in.File) || len(line) >= audit.MaxLine {
		return nil, nil
	}
	timer := time.NewTimer(restWait)
	defer timer.Stop()
	for range restTries {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			timer.Reset(restWait)
		}
		more, state, err := v.lines.Next()
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v.lines.N--
		if line = append(line, more...); state == audit.Whole {
			return line, nil
		}
	}
	return nil, nil
}

func (v *verifier) record(line []byte) {
	seq, sound, prev, hash := audit.Inspect(line)
	if hash == nil {
		v.fault(seq, "this is no record: it was changed or does not belong here")
		v.seq, v.loose = v.seq+1, true
		return
	}
	v.report.Records++
	if !sound {
		v.fault(seq, "the record was changed: its hash does not fit")
		// Its sequence may be wrong as well; it counts as one in its place.
		v.seq, v.hash, v.loose = v.seq+1, [audit.HashLen]byte(hash), true
		return
	}
	if v.report.First == 0 {
		v.first(line, seq, prev)
	}
	switch {
	case seq <= v.seq:
		v.fault(seq, "the record stands behind record %d: it was moved, repeated or inserted", v.seq)
		return
	case seq > v.seq+1:
		v.fault(seq, "the records from %d to %d are missing", v.seq+1, seq-1)
	case [audit.HashLen]byte(prev) != v.hash && !v.loose:
		v.fault(seq, "the record does not follow the one before: that was replaced, or its hash recomputed")
	}
	v.seq, v.hash, v.loose = seq, [audit.HashLen]byte(hash), false
	if seq == v.checkpoint {
		v.met = true
		if string(v.hash[:]) != v.o.Checkpoint.Hash {
			v.fault(seq, "the record is not the one of the checkpoint: the trail was rewritten from here or before")
		}
	}
}

func (v *verifier) first(line []byte, seq uint64, prev []byte) {
	v.report.First = seq
	if seq == 1 {
		return
	}
	damaged := v.seq > 0 // and so not the first
	if v.seq = seq - 1; damaged {
		return
	}
	v.hash = [audit.HashLen]byte(prev)
	m, ok := audit.Split(line)
	if !ok || string(m.Category) != string(audit.Trail) || string(m.Action) != audit.ActionRotate || len(m.After) < len(continues) || string(m.After[:len(continues)]) != continues {
		v.fault(seq, "the trail does not begin with the beginning of a file: the records before this one are missing")
	} else if string(m.Outcome) == string(audit.Failure) {
		v.fault(seq, "the records before this one are missing: %s", m.Reason)
	}
}

const continues = `{"continues":`

func (v *verifier) compare() {
	switch c := v.o.Checkpoint; {
	case c == nil || v.met:
	case v.seq < c.Seq:
		v.fault(0, "the trail ends with record %d, but the checkpoint knows of record %d: its end was cut off", v.seq, c.Seq)
	default:
		v.fault(0, "record %d of the checkpoint is not in the trail", c.Seq)
	}
}
