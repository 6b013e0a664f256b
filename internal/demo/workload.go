package demo

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

	"headway/internal/mockhead"
)

// sampleTrace is 15 minutes of real requests to a chat service; trace/NOTICE.md
// says where it comes from.
//
//go:embed trace/mooncake_conversation.jsonl.gz
var sampleTrace []byte

const sampleName = "Mooncake conversation trace (built-in sample)"

// Bounds on what is read of a trace. More rows than this are left out.
const (
	maxRows      = 500_000
	maxLine      = 1 << 20
	maxTokens    = 1 << 20                    // in one request
	maxSpan      = 1 << 40 * time.Millisecond // between two rows, 35 years
	bucket       = 3 * time.Second            // Mooncake's timestamps are that coarse
	maxTraceText = 1 << 30                    // unpacked
)

// row is one request of a trace.
type row struct {
	at     time.Duration // since the first row
	input  int           // tokens
	output int
	blocks []uint32 // of 512 prompt tokens, equal numbers mean equal text; nil: all its own
}

// ErrTrace says that a file is no trace that the demo can replay.
var ErrTrace = errors.New("not a Mooncake JSONL or Azure CSV trace")

// readTraceFile reads a trace; an empty name is the sample.
func readTraceFile(name string, seed uint64) ([]row, error) {
	if name == "" {
		return readTrace(bytes.NewReader(sampleTrace), seed)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	defer func() { _ = f.Close() }()
	rows, err := readTrace(f, seed)
	if err != nil {
		return nil, fmt.Errorf("read the trace %s: %w", name, err)
	}
	return rows, nil
}

// readTrace tells the formats apart by their first bytes; either may be
// gzipped. The seed places requests inside Mooncake's coarse timestamps.
func readTrace(r io.Reader, seed uint64) ([]row, error) {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrace, err)
		}
		in = bufio.NewReader(io.LimitReader(z, maxTraceText))
	}
	var rows []row
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
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.at, b.at) })
	first := rows[0].at
	for i := range rows {
		rows[i].at -= first
	}
	if rows[len(rows)-1].at == 0 {
		return nil, fmt.Errorf("%w: all rows have the same time", ErrTrace)
	}
	return rows, nil
}

func readMooncake(r io.Reader) ([]row, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var rows []row
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
		rows = append(rows, row{
			at:    time.Duration(in.Timestamp) * time.Millisecond,
			input: in.Input, output: max(1, in.Output), blocks: in.HashIDs,
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrace, err)
	}
	return rows, nil
}

func readAzure(r io.Reader) ([]row, error) {
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
	var rows []row
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
		// The difference of times that are 292 years apart is the longest there is.
		err = errors.Join(err1, err2, err3, checkRow(at.Sub(start).Abs() < maxSpan/2, input, output))
		if err != nil {
			return nil, fmt.Errorf("%w: row %d: %w", ErrTrace, len(rows)+2, err)
		}
		rows = append(rows, row{at: at.Sub(start), input: input, output: max(1, output)})
	}
	return rows, nil
}

func checkRow(timeOK bool, input, output int) error {
	if !timeOK || input < 1 || input > maxTokens || output < 0 || output > maxTokens {
		return fmt.Errorf("a time below 0 or too far from the others, or lengths outside 1 to %d tokens", maxTokens)
	}
	return nil
}

// spread places the rows that share a timestamp evenly at random in the time
// up to the next one, at most a bucket.
func spread(rows []row, random *rand.Rand) {
	for i := 0; i < len(rows); {
		j := i
		for j < len(rows) && rows[j].at == rows[i].at {
			j++
		}
		width := bucket
		if j < len(rows) && rows[j].at > rows[i].at {
			width = min(width, rows[j].at-rows[i].at)
		}
		for k := i; k < j; k++ {
			rows[k].at += time.Duration(random.Int64N(int64(width)))
		}
		i = j
	}
}

// arrival is one request of the workload.
type arrival struct {
	row
	at      time.Duration // since the workload began
	key     uint64        // what belongs to one conversation has the same one
	pass    uint64        // times that the trace has begun anew
	model   string
	region  string
	session bool // the key stands for a conversation that the trace knows
}

// workload is a trace played over and over at a mean rate. Each pass has its
// own conversations, so that no cache grows warmer than in reality.
type workload struct {
	rows    []row
	models  []string
	regions []string
	seed    uint64
	scale   float64 // wall time to trace time
	pass    uint64
	next    int
	start   time.Duration // of this pass
}

func newWorkload(rows []row, rate float64, models, regions []string, seed uint64) *workload {
	span := rows[len(rows)-1].at
	return &workload{
		rows: rows, models: models, regions: regions, seed: seed,
		scale: float64(len(rows)) / rate / span.Seconds(),
	}
}

// arrive returns the next request.
func (w *workload) arrive() arrival {
	if w.next == len(w.rows) {
		w.start += w.scaled(w.rows[w.next-1].at)
		w.next = 0
		w.pass++
	}
	r := w.rows[w.next]
	a := arrival{row: r, at: w.start + w.scaled(r.at), pass: w.pass}
	// The trace's first block is one prompt that all share; the second tells
	// conversations apart.
	if len(r.blocks) > 1 {
		a.key, a.session = uint64(r.blocks[1]), true
	} else {
		a.key = 1<<32 + uint64(w.next)
	}
	a.key = mix(a.key, mix(w.pass, w.seed))
	a.model = w.models[a.key%uint64(len(w.models))]
	a.region = w.regions[(a.key>>32)%uint64(len(w.regions))]
	w.next++
	return a
}

func (w *workload) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * w.scale)
}

// appendPrompt appends a text of input tokens whose blocks are equal to those
// of other requests as the trace says.
func (a *arrival) appendPrompt(dst []byte) []byte {
	left := a.input
	for i := 0; left > 0; i++ {
		n := min(left, mockhead.BlockTokens)
		dst = mockhead.AppendText(dst, a.block(i), 0, n)
		left -= n
	}
	return dst
}

// block is the seed of a block's text.
func (a *arrival) block(i int) uint64 {
	switch {
	case i >= len(a.blocks):
		return mix(a.key, uint64(i))
	case i == 0: // the prompt that all share, in each pass
		return uint64(a.blocks[0])
	}
	return mix(uint64(a.blocks[i]), a.pass)
}

// mix spreads pairs of numbers evenly over 64 bits.
func mix(a, b uint64) uint64 { return rand.NewPCG(a, b).Uint64() }
