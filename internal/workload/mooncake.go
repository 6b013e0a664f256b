package workload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

// mooncakeRow is a line of a trace as Mooncake publishes them, and others after it.
type mooncakeRow struct {
	Timestamp *float64 `json:"timestamp"` // ms; s if any of the file has a fraction
	Input     *float64 `json:"input_length"`
	Output    *float64 `json:"output_length"`
	HashIDs   []uint64 `json:"hash_ids"` // a number for each block of the prompt; missing: nothing is shared
}

// readMooncake reads lines of JSON. Other fields are ignored.
func readMooncake(in *bufio.Reader, left *leftOut) ([]Row, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	var rows []Row
	var times []float64
	n := 1
	for ; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if left.tooMany = len(rows) == left.most; left.tooMany {
			break
		}
		var m mooncakeRow
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		input, output, err := m.check()
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if r, ok := left.row(0, input, output); ok {
			r.Blocks = m.HashIDs
			rows, times = append(rows, r), append(times, *m.Timestamp)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	if err := setTimes(rows, times); err != nil {
		return nil, err
	}
	joinBlocks(rows)
	return rows, nil
}

// setTimes gives rows their times after the first of them.
func setTimes(rows []Row, times []float64) error {
	if len(times) == 0 {
		return nil
	}
	unit := time.Millisecond
	if slices.ContainsFunc(times, func(t float64) bool { return t != math.Trunc(t) }) {
		unit = time.Second
	}
	first := slices.Min(times)
	if span := slices.Max(times) - first; span >= float64(maxSpan/unit) {
		return fmt.Errorf("timestamp: from first to last it is %v ms, want less than %d", span, maxSpan.Milliseconds())
	}
	for i := range rows {
		rows[i].At = time.Duration((times[i] - first) * float64(unit))
	}
	return nil
}

// mostTimestamp is beyond every date of this century in ms.
const mostTimestamp = 1e13

// check returns the lengths, or names the field that is missing or outside its bounds.
func (m *mooncakeRow) check() (input, output int, err error) {
	switch {
	case m.Timestamp == nil:
		return 0, 0, errors.New("timestamp is missing")
	case !(*m.Timestamp >= 0 && *m.Timestamp < mostTimestamp):
		return 0, 0, fmt.Errorf("timestamp: %v, want 0 to %v", *m.Timestamp, mostTimestamp)
	case m.Input == nil:
		return 0, 0, errors.New("input_length is missing")
	case m.Output == nil:
		return 0, 0, errors.New("output_length is missing")
	}
	if input, err = wholeTokens("input_length", *m.Input); err != nil {
		return 0, 0, err
	}
	output, err = wholeTokens("output_length", *m.Output)
	return input, output, err
}

// wholeTokens is a length that a trace has as a number, which many programs write with
// a fraction of 0.
func wholeTokens(field string, n float64) (int, error) {
	if n != math.Trunc(n) {
		return 0, fmt.Errorf("%s: %v is no whole number", field, n)
	}
	if !(n >= 0 && n <= maxTokens) {
		return 0, fmt.Errorf("%s: %.0f, want 0 to %d tokens", field, n, maxTokens)
	}
	return int(n), nil
}

// leastBlock is the shortest block of a trace in tokens.
const leastBlock = 16

// joinBlocks has blocks be of BlockTokens: some traces have shorter ones. How long
// they are shows in most of the prompts.
func joinBlocks(rows []Row) {
	var sizes []float64
	for i := range rows {
		if n := len(rows[i].Blocks); n > 1 {
			sizes = append(sizes, float64(rows[i].Input)/float64(n))
		}
	}
	if len(sizes) == 0 {
		return
	}
	slices.Sort(sizes)
	each := 1
	for size := float64(BlockTokens); sizes[len(sizes)/2] <= size*0.75 && size > leastBlock; size /= 2 {
		each *= 2
	}
	if each == 1 {
		return
	}
	for i := range rows {
		rows[i].Blocks = joined(rows[i].Blocks, each)
	}
}

// joined makes one block of each so many, a shorter one of the rest.
func joined(blocks []uint64, each int) (out []uint64) {
	text := uint64(0)
	for i, b := range blocks {
		text = mix(text, b)
		if (i+1)%each == 0 || i == len(blocks)-1 {
			out = append(out, text)
		}
	}
	return out
}
