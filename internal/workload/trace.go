package workload

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed" // the sample trace
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// sampleTrace is 15 minutes of real requests to a chat service; trace/NOTICE.md
// says where it comes from.
//
//go:embed trace/mooncake_conversation.jsonl.gz
var sampleTrace []byte

// SampleName names the built-in trace.
const SampleName = "Mooncake conversation trace (built-in sample)"

// Bounds of a trace. Further rows are ignored.
const (
	maxRows      = 500_000
	maxLine      = 1 << 20
	maxTokens    = 1 << 20                    // in one request
	maxSpan      = 1 << 40 * time.Millisecond // between two rows, 35 years
	bucket       = 3 * time.Second            // Mooncake's timestamps are that coarse
	maxTraceText = 1 << 30                    // unpacked
)

// BlockTokens is the number of prompt tokens per block of a trace.
const BlockTokens = 512

// Row is one request of a trace.
type Row struct {
	At     time.Duration // since the first row
	Input  int           // tokens, at least 1
	Output int           // tokens, at least 1
	Blocks []uint32      // of the prompt, in order; equal numbers mean equal text up to the block's end; nil: nothing is shared
}

// ErrTrace reports a text that is no trace of a known format.
var ErrTrace = errors.New("not a Mooncake JSONL or Azure CSV trace")

// ReadTraceFile reads a trace file; an empty name means the built-in sample.
func ReadTraceFile(name string, seed uint64) ([]Row, error) {
	if name == "" {
		return ReadTrace(bytes.NewReader(sampleTrace), seed)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	defer func() { _ = f.Close() }()
	rows, err := ReadTrace(f, seed)
	if err != nil {
		return nil, fmt.Errorf("read the trace %s: %w", name, err)
	}
	return rows, nil
}

// ReadTrace reads a trace in Mooncake's JSONL or Azure's CSV format, gzipped or
// not. It returns at least two rows, sorted by time. The seed spreads rows
// within Mooncake's coarse timestamps. Errors wrap [ErrTrace].
func ReadTrace(r io.Reader, seed uint64) ([]Row, error) {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrace, err)
		}
		in = bufio.NewReader(io.LimitReader(z, maxTraceText))
	}
	var rows []Row
	var err error
	switch first, _ := in.Peek(1); string(first) {
	case "{":
		rows, err = readMooncake(in)
		if err == nil {
			spread(rows, rand.New(rand.NewPCG(seed, 1)))
		}
	case "T":
		rows, err = readAzure(in)
	default:
		return nil, fmt.Errorf("%w: it begins with %q, want { or TIMESTAMP", ErrTrace, first)
	}
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("%w: %d rows, want at least 2", ErrTrace, len(rows))
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.At, b.At) })
	first := rows[0].At
	for i := range rows {
		rows[i].At -= first
	}
	if rows[len(rows)-1].At == 0 {
		return nil, fmt.Errorf("%w: all rows have the same time", ErrTrace)
	}
	return rows, nil
}

func readMooncake(r io.Reader) ([]Row, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var rows []Row
	for n := 1; lines.Scan() && n <= maxRows; n++ {
		var in struct {
			Timestamp int64    `json:"timestamp"`
			Input     int      `json:"input_length"`
			Output    int      `json:"output_length"`
			HashIDs   []uint32 `json:"hash_ids"`
		}
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrTrace, n, err)
		}
		if err := checkRow(in.Timestamp >= 0 && in.Timestamp < maxSpan.Milliseconds(), in.Input, in.Output); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrTrace, n, err)
		}
		rows = append(rows, Row{
			At:    time.Duration(in.Timestamp) * time.Millisecond,
			Input: in.Input, Output: max(1, in.Output), Blocks: in.HashIDs,
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrace, err)
	}
	return rows, nil
}

func readAzure(r io.Reader) ([]Row, error) {
	lines := csv.NewReader(r)
	lines.ReuseRecord = true
	lines.FieldsPerRecord = 3
	head, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrace, err)
	}
	if want := []string{"TIMESTAMP", "ContextTokens", "GeneratedTokens"}; !slices.Equal(head, want) {
		return nil, fmt.Errorf("%w: columns %q, want %q", ErrTrace, head, want)
	}
	var rows []Row
	var start time.Time
	for len(rows) < maxRows {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrace, err)
		}
		at, err1 := time.Parse("2006-01-02 15:04:05", fields[0]) // a fraction may follow
		input, err2 := strconv.Atoi(fields[1])
		output, err3 := strconv.Atoi(fields[2])
		if len(rows) == 0 {
			start = at
		}
		// Sub saturates at 292 years.
		err = errors.Join(err1, err2, err3, checkRow(at.Sub(start).Abs() < maxSpan/2, input, output))
		if err != nil {
			return nil, fmt.Errorf("%w: row %d: %w", ErrTrace, len(rows)+2, err)
		}
		rows = append(rows, Row{At: at.Sub(start), Input: input, Output: max(1, output)})
	}
	return rows, nil
}

func checkRow(timeOK bool, input, output int) error {
	if !timeOK || input < 1 || input > maxTokens || output < 0 || output > maxTokens {
		return fmt.Errorf("a time below 0 or too far from the others, or lengths outside 1 to %d tokens", maxTokens)
	}
	return nil
}

// spread distributes rows with equal timestamps at random up to the next
// timestamp, at most a bucket.
func spread(rows []Row, random *rand.Rand) {
	for i := 0; i < len(rows); {
		j := i
		for j < len(rows) && rows[j].At == rows[i].At {
			j++
		}
		width := bucket
		if j < len(rows) && rows[j].At > rows[i].At {
			width = min(width, rows[j].At-rows[i].At)
		}
		for k := i; k < j; k++ {
			rows[k].At += time.Duration(random.Int64N(int64(width)))
		}
		i = j
	}
}
