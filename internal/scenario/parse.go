package scenario

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/strategy"
)

const (
	maxLines     = 10_000
	maxDecisions = 1_000_000
	maxAdvance   = 24 * time.Hour
)

// Script is a parsed scenario.
type Script struct {
	Name  string
	steps []step
}

type step struct {
	line     int
	command  string
	words    []string          // without a name
	settings map[string]string // name=value
	expect   []string          // what stands behind ->
	block    string            // of policy: the lines up to end
}

var reported = []string{"status", "in_flight", "queued", "pending_prompt_tokens", "kv_cache_usage", "utilization"}

// commands lists each command's number of words and its settings; "label."
// stands for a prefix.
var commands = map[string]struct {
	least, most int
	settings    []string
	expects     bool
}{
	"policy":   {0, 0, nil, false},
	"head":     {1, 1, append([]string{"models", "region", "weight", "max_in_flight", "label."}, reported...), false},
	"report":   {1, 1, reported, false},
	"silent":   {1, 100, nil, false},
	"talking":  {1, 100, nil, false},
	"admin":    {2, 2, nil, false},
	"remove":   {1, 1, nil, false},
	"advance":  {1, 1, nil, false},
	"decide":   {0, 2, []string{"model", "region", "mode", "strategy", "session", "sessions", "tokens", "blocks", "exclude", "label."}, true},
	"answer":   {0, 1, nil, false},
	"finish":   {0, 1, nil, false},
	"routable": {0, 1000, nil, false},
	"health":   {2, 2, nil, false},
	"inflight": {2, 2, nil, false},
	"open":     {1, 1, nil, false},
}

// Parse reads a script. The error names its line.
func Parse(name string, r io.Reader) (*Script, error) {
	s := &Script{Name: name}
	lines := bufio.NewScanner(r)
	var block *step
	n := 0
	for lines.Scan() {
		if n++; n > maxLines {
			return nil, s.fault(n, errors.New("a script has at most 10,000 lines"))
		}
		line := lines.Text()
		if block != nil {
			if strings.TrimSpace(line) == "end" {
				s.steps = append(s.steps, *block)
				block = nil
				continue
			}
			block.block += line + "\n"
			continue
		}
		code, _, _ := strings.Cut(line, "#")
		st, err := parseLine(n, code)
		switch {
		case err != nil:
			return nil, s.fault(n, err)
		case st == nil:
		case st.command == "policy":
			block = st
		default:
			s.steps = append(s.steps, *st)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, s.fault(n+1, err)
	}
	if block != nil {
		return nil, s.fault(block.line, errors.New("this policy has no end"))
	}
	return s, nil
}

func (s *Script) fault(line int, err error) error {
	return fmt.Errorf("%s:%d: %w", s.Name, line, err)
}

func parseLine(n int, code string) (*step, error) {
	left, right, expects := strings.Cut(code, "->")
	words := strings.Fields(left)
	if len(words) == 0 {
		if expects {
			return nil, errors.New("nothing stands before ->")
		}
		return nil, nil
	}
	st := &step{line: n, command: words[0], settings: map[string]string{}, expect: strings.Fields(right)}
	c, known := commands[st.command]
	if !known {
		return nil, fmt.Errorf("%q is no command", st.command)
	}
	for _, word := range words[1:] {
		name, value, isSetting := strings.Cut(word, "=")
		switch {
		case !isSetting:
			st.words = append(st.words, word)
		case !slices.ContainsFunc(c.settings, func(s string) bool {
			return s == name || strings.HasSuffix(s, ".") && strings.HasPrefix(name, s) && name != s
		}):
			return nil, fmt.Errorf("%s has no %q", st.command, name)
		case st.settings[name] != "":
			return nil, fmt.Errorf("%s is given twice", name)
		case value == "":
			return nil, fmt.Errorf("%s has no value", name)
		default:
			st.settings[name] = value
		}
	}
	switch {
	case len(st.words) < c.least || len(st.words) > c.most:
		return nil, fmt.Errorf("%s: number of words: %d, want %d to %d", st.command, len(st.words), c.least, c.most)
	case expects != c.expects:
		return nil, fmt.Errorf("%s: an expectation (->) belongs to decide, and to nothing else", st.command)
	case expects && len(st.expect) == 0:
		return nil, errors.New("nothing stands behind ->")
	}
	return st, nil
}

func number(s string, low, high int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is no whole number from %d to %d", s, low, high)
	}
	return n, nil
}

// whole sets *to to a setting, if it is given.
func (st *step) whole(name string, low, high int64, to *int64) (err error) {
	if v := st.settings[name]; v != "" {
		*to, err = number(v, low, high)
	}
	return err
}

// fraction sets *to to a setting, if it is given.
func (st *step) fraction(name string, to *float64) error {
	v := st.settings[name]
	if v == "" {
		return nil
	}
	n, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return fmt.Errorf("%s %q is no number", name, v)
	}
	*to = n
	return nil
}

// blocks sets the hashes of the prompt's blocks, which have all of its tokens, if they
// are given.
func (st *step) blocks(req *strategy.Request) error {
	for _, text := range st.list("blocks") {
		hash, err := number(text, 1, math.MaxInt64)
		if err != nil {
			return err
		}
		req.PrefixHashes = append(req.PrefixHashes, uint64(hash))
	}
	if n := len(req.PrefixHashes); n > 0 {
		req.BlockTokens = int32(req.InputTokens / int64(n))
	}
	return nil
}

func (st *step) labels() map[string]string {
	labels := map[string]string{}
	for name, value := range st.settings {
		if key, ok := strings.CutPrefix(name, "label."); ok {
			labels[key] = value
		}
	}
	return labels
}

func (st *step) list(name string) []string {
	return strings.FieldsFunc(st.settings[name], func(r rune) bool { return r == ',' })
}
