package workload

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed" // the sample trace
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// sampleTrace is 15 minutes of real requests to a chat service; trace/NOTICE.md
// says where it comes from.
//
//go:embed trace/mooncake_conversation.jsonl.gz
var sampleTrace []byte

// SampleName names the built-in trace.
const SampleName = "Mooncake conversation trace (built-in sample)"

// Bounds of a trace.
const (
	maxRows      = 500_000
	maxLine      = 1 << 20
	maxTokens    = 1 << 20                    // in one request
	maxSpan      = 1 << 40 * time.Millisecond // between two rows, 35 years
	bucket       = 3 * time.Second            // Mooncake's timestamps are that coarse
	maxTraceText = 1 << 30                    // unpacked
)

// byteOrderMark is what some programs of Windows write first.
const byteOrderMark = "\ufeff"

// BlockTokens is the number of prompt tokens per block of a workload.
const BlockTokens = 512

// Row is one request of a trace.
type Row struct {
	At     time.Duration // since the first row
	Input  int           // tokens, at least 1
	Output int           // tokens, at least 1
	Blocks []uint64      // of the prompt, in order; equal numbers mean equal text up to the block's end; nil: nothing is shared

	Session string // "": by the blocks
}

// Trace is what a file has.
type Trace struct {
	Rows  []Row    // at least two, sorted by time
	Notes []string // what was left out or changed
	Model string   // type of all requests; "": the file names none, or several

	coarse bool // many rows have the same time
}

// ErrTrace reports a text that is no trace of a known format.
var ErrTrace = errors.New("not a trace in a known format (Mooncake JSONL, Azure CSV, the decision log)")

// reader reads the rows of a format. Errors name the line and the field. What is no
// fault and yet not taken as it stands is counted in left.
type reader func(in *bufio.Reader, left *leftOut) ([]Row, error)

// formats are the formats of traces, by what their text begins with.
var formats = []struct {
	begins func(begin []byte) bool
	read   reader
	coarse bool // many rows share a timestamp: they are spread up to the next one
}{
	{func(b []byte) bool {
		return bytes.HasPrefix(b, []byte("{")) && bytes.Contains(b, []byte(`"decision_id"`))
	}, readDecisionLog, false},
	{func(b []byte) bool { return bytes.HasPrefix(b, []byte("{")) }, readMooncake, true},
	{func(b []byte) bool { return bytes.ContainsRune(b, ',') }, readAzure, false},
}

// leftOut counts what of a file is not played as it stands.
type leftOut struct {
	empty   int    // rows without a prompt
	silent  int    // answers of no token, which count as one
	long    int    // lengths above maxTokens, which count as that
	most    int    // rows; further ones are left out
	tooMany bool   // rows
	models  int    // types of models, which are played as one
	model   string // the one that there is
	sampled int    // lines that stand for several
}

// notes says it.
func (l *leftOut) notes() (notes []string) {
	if l.empty > 0 {
		notes = append(notes, fmt.Sprintf("%d rows without a prompt are left out", l.empty))
	}
	if l.silent > 0 {
		notes = append(notes, fmt.Sprintf("%d answers of 0 tokens count as 1", l.silent))
	}
	if l.long > 0 {
		notes = append(notes, fmt.Sprintf("%d lengths of more than %d tokens count as that", l.long, maxTokens))
	}
	if l.tooMany {
		notes = append(notes, fmt.Sprintf("only the first %d rows are read", l.most))
	}
	if l.models > 1 {
		notes = append(notes, fmt.Sprintf("requests for %d model types are played as for one", l.models))
	}
	if l.sampled > 0 {
		notes = append(notes, fmt.Sprintf("%d lines are of times when only a share of the decisions was logged: there were more requests", l.sampled))
	}
	return notes
}

// row makes a row of its lengths; ok is false where there is nothing to play.
func (l *leftOut) row(at time.Duration, input, output int) (r Row, ok bool) {
	if input == 0 {
		l.empty++
		return r, false
	}
	if output == 0 {
		l.silent++
		output = 1
	}
	return Row{At: at, Input: input, Output: output}, true
}

// ReadTraceFile reads a trace file in one of the formats, gzipped or not; an empty
// name means the built-in sample. Rows are sorted by time; those of equal times stay
// in their order, but for coarse formats, where the seed spreads them up to the next
// time. Errors wrap [ErrTrace].
func ReadTraceFile(name string, seed uint64) (*Trace, error) {
	trace, err := readFile(name)
	if err != nil {
		return nil, err
	}
	trace.Rows = trace.spread(trace.Rows, seed)
	return trace, nil
}

func readFile(name string) (*Trace, error) {
	if name == "" {
		return read(bytes.NewReader(sampleTrace))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	defer func() { _ = f.Close() }()
	trace, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("read the trace %s: %w", name, err)
	}
	return trace, nil
}

// read reads a trace, and leaves its times as they stand.
func read(r io.Reader) (*Trace, error) {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrace, err)
		}
		in = bufio.NewReader(io.LimitReader(z, maxTraceText))
	}
	if mark, _ := in.Peek(len(byteOrderMark)); string(mark) == byteOrderMark {
		_, _ = in.Discard(len(mark))
	}
	begin, err := in.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", ErrTrace, err)
	}
	begin, _, _ = bytes.Cut(bytes.TrimLeft(begin, " \r\n"), []byte("\n"))
	for _, f := range formats {
		if !f.begins(begin) {
			continue
		}
		left := leftOut{most: maxRows}
		rows, err := f.read(in, &left)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrace, err)
		}
		if err := order(rows); err != nil {
			return nil, err
		}
		return &Trace{Rows: rows, Notes: left.notes(), Model: left.model, coarse: f.coarse}, nil
	}
	return nil, fmt.Errorf("%w: it begins with %.60q", ErrTrace, begin)
}

// order sorts rows by time, and counts from the first.
func order(rows []Row) error {
	if len(rows) < 2 {
		return fmt.Errorf("%w: %d rows with a prompt, want at least 2", ErrTrace, len(rows))
	}
	sortRows(rows)
	if rows[len(rows)-1].At == 0 {
		return fmt.Errorf("%w: all rows have the same time", ErrTrace)
	}
	return nil
}

func sortRows(rows []Row) {
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.At, b.At) })
	first := rows[0].At
	for i := range rows {
		rows[i].At -= first
	}
}

// spread is a copy of rows of the trace. Those of a coarse format that have equal times
// come at random up to the next time, at most a bucket later.
func (t *Trace) spread(rows []Row, seed uint64) []Row {
	if !t.coarse {
		return rows
	}
	rows = slices.Clone(rows)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < len(rows); {
		j := i
		for j < len(rows) && rows[j].At == rows[i].At {
			j++
		}
		width := bucket
		if j < len(rows) {
			width = min(width, rows[j].At-rows[i].At)
		}
		for k := i; k < j; k++ {
			rows[k].At += time.Duration(random.Int64N(int64(width)))
		}
		i = j
	}
	sortRows(rows)
	return rows
}
