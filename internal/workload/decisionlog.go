package workload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"headway/internal/prefix"
)

// loggedDecision is what of a line of the decision log is played. Other fields are
// ignored.
type loggedDecision struct {
	At          *time.Time `json:"at"`
	ID          string     `json:"decision_id"`
	ModelType   string     `json:"model_type"`
	Session     string     `json:"session"`
	Share       float64    `json:"share"`
	Input       *int       `json:"input_tokens"`
	PromptBytes int64      `json:"prompt_bytes"`
	BlockTokens int        `json:"block_tokens"`
	Blocks      []string   `json:"blocks"`
	Outcome     struct {
		Output *int `json:"output_tokens"`
	} `json:"outcome"`
}

// decisionLog is what was read of a log so far.
type decisionLog struct {
	left   *leftOut
	first  time.Time
	rows   []Row
	open   []int // rows whose answer has no known length
	output int   // tokens of all others
	seen   map[string]bool
	models map[string]bool
}

// readDecisionLog reads the service's decision log. A request that was sent again
// counts once; an answer of unknown length is as long as the others on average.
func readDecisionLog(in *bufio.Reader, left *leftOut) ([]Row, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	log := decisionLog{left: left, seen: map[string]bool{}, models: map[string]bool{}}
	n := 1
	for ; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if left.tooMany = len(log.rows) == left.most; left.tooMany {
			break
		}
		var d loggedDecision
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := log.take(&d); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	if known := len(log.rows) - len(log.open); known > 0 {
		for _, i := range log.open {
			log.rows[i].Output = max(log.output/known, 1)
		}
	}
	models := slices.Collect(maps.Keys(log.models))
	if left.models = len(models); left.models == 1 {
		left.model = models[0]
	}
	return log.rows, nil
}

func (l *decisionLog) take(d *loggedDecision) error {
	switch {
	case d.At == nil:
		return errors.New("at is missing")
	case d.Input == nil:
		return errors.New("input_tokens is missing")
	case l.seen[d.ID]:
		return nil
	}
	input, err := l.tokens("input_tokens", *d.Input)
	if err != nil {
		return err
	}
	if len(l.rows) == 0 {
		l.first = *d.At
	}
	since := d.At.Sub(l.first)
	if since.Abs() >= maxSpan/2 {
		return errors.New("at is too far from the first line")
	}
	output := 1
	if d.Outcome.Output != nil {
		if output, err = l.tokens("output_tokens", *d.Outcome.Output); err != nil {
			return err
		}
	}
	r, ok := l.left.row(since, input, output)
	if !ok {
		return nil
	}
	blocks, err := d.blocks()
	if err != nil {
		return err
	}
	if d.Outcome.Output == nil {
		l.open = append(l.open, len(l.rows))
	} else {
		l.output += r.Output
	}
	if d.Share > 0 && d.Share < 1 {
		l.left.sampled++
	}
	r.Session, r.Blocks = d.Session, blocks
	l.seen[d.ID], l.models[d.ModelType] = d.ID != "", true
	l.rows = append(l.rows, r)
	return nil
}

// tokens is a length as it is played. Callers may name ones that no trace has.
func (l *decisionLog) tokens(field string, n int) (int, error) {
	switch {
	case n < 0:
		return 0, fmt.Errorf("%s: %d, want at least 0", field, n)
	case n > maxTokens:
		l.left.long++
		n = maxTokens
	}
	return n, nil
}

func (d *loggedDecision) blocks() (blocks []uint64, err error) {
	hashes := make([]uint64, len(d.Blocks))
	for i, b := range d.Blocks {
		if hashes[i], err = strconv.ParseUint(b, 16, 64); err != nil {
			return nil, fmt.Errorf("blocks: %q is no hash", b)
		}
	}
	return LoggedBlocks(hashes, *d.Input, d.PromptBytes, d.BlockTokens), nil
}

// LoggedBlocks are blocks of BlockTokens of the hashes that the decision log has of a
// prompt of so many tokens and bytes (0: unknown): each is known by the last block of
// the log that ends within it. Those are of perBlock tokens, 0: as of prefix.Chain.
func LoggedBlocks(hashes []uint64, tokens int, promptBytes int64, perBlock int) (blocks []uint64) {
	text := prefix.Covered(len(hashes))
	if promptBytes > 0 {
		text = promptBytes
	}
	for i, hash := range hashes {
		end := float64(tokens) * float64(prefix.Covered(i+1)) / float64(text)
		if perBlock > 0 {
			end = float64(i+1) * float64(perBlock)
		}
		at := int(end-0.5) / BlockTokens
		for len(blocks) <= at {
			blocks = append(blocks, hash)
		}
		blocks[at] = hash
	}
	return blocks
}
