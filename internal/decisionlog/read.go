package decisionlog

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"time"
)

// Query says which lines of the log are read.
type Query struct {
	Since time.Time // of the decision; zero: all there are
	Until time.Time // of the decision, which it does not include; zero: now
	Limit int       // of decisions; 0: all lines there are
	Worst bool      // those with the most regret first; else the newest, oldest first
	First bool      // the one line that the log begins with since then
	Model string    // model type of the decisions; "": any, and lines of other kinds
}

// modelOf is what lines have of a model type: a quote within text is escaped there, so
// that nothing else of a line can look so.
func modelOf(modelType string) []byte {
	name, _ := json.Marshal(modelType) // a string always can
	return slices.Concat([]byte(`,"model_type":`), name, []byte(","))
}

// MaxLimit is the largest limit of a query.
const MaxLimit = 10_000

// Begins is when the log begins, by its first line; zero: it has none. read is Log.Read
// or one like it.
func Begins(read func(q Query, yield func(line []byte) error) error) (at time.Time, err error) {
	err = read(Query{First: true}, func(line []byte) error {
		at, _, _ = atOf(line)
		return nil
	})
	return at, err
}

// errFirst ends a reading after the first line.
var errFirst = errors.New("the first line was read")

// Read calls yield for each line that the query asks for, in about the order in which
// decisions ended. What decides later meanwhile is not in it. A line is valid until
// yield returns; an error of yield ends the reading.
func (l *Log) Read(ctx context.Context, q Query, yield func(line []byte) error) error {
	return q.pick(yield, func(yield func(line []byte) error) error { return l.all(ctx, q.Since, yield) })
}

// ReadDir is Log.Read for the files of a log that no process writes. damaged is called
// with what cannot be read of them.
func ReadDir(ctx context.Context, dir string, q Query, yield func(line []byte) error, damaged func(Damage)) error {
	return q.pick(yield, func(yield func(line []byte) error) error {
		return readFiles(ctx, dir, q.Since, math.MaxUint64, yield, damaged)
	})
}

// all yields all lines: of the files, as far as they are not in memory, and of memory.
func (l *Log) all(ctx context.Context, since time.Time, yield func(line []byte) error) error {
	l.mu.Lock()
	kept, lines, first := slices.Clone(l.memory.chunks), bytes.Clone(l.memory.lines), l.memory.first
	l.mu.Unlock()
	open := l.underWay()
	if l.o.Dir != "" && l.o.MaxDisk > 0 {
		if first == 0 {
			first = math.MaxUint64
		}
		if err := readFiles(ctx, l.o.Dir, since, first, yield, func(Damage) {}); err != nil {
			return err
		}
	}
	for i := range kept {
		if kept[i].to.Before(since) {
			continue
		}
		whole := chunks{bytes.NewReader(kept[i].packed), int64(len(kept[i].packed)), math.MaxUint64}
		if _, err := whole.read(ctx, yield, func(int64, int64) {}); err != nil {
			return err
		}
	}
	if err := eachLine(bufio.NewReader(bytes.NewReader(lines)), yield); err != nil {
		return err
	}
	for _, e := range open {
		line, err := l.appendLine(nil, e)
		if err == nil {
			err = yield(line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readFiles yields the lines of the chunks in files that have numbers below before.
func readFiles(ctx context.Context, dir string, since time.Time, before uint64, yield func(line []byte) error, damaged func(Damage)) error {
	files, err := listFiles(dir)
	if err != nil {
		return err
	}
	for i := range files {
		if files[i].to.Before(since) {
			continue
		}
		done, err := readFile(ctx, files[i].path, before, yield, damaged)
		if err != nil || done {
			return err
		}
	}
	return nil
}

func readFile(ctx context.Context, path string, before uint64, yield func(line []byte) error, damaged func(Damage)) (done bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was the oldest
	}
	if err != nil {
		return false, fmt.Errorf("read the decision log: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("read the decision log: %w", err)
	}
	return chunks{f, info.Size(), before}.read(ctx, yield, func(from, bytes int64) { damaged(Damage{path, from, bytes}) })
}

// What a line begins with is read without the rest of it.
var (
	atPrefix     = []byte(`{"at":"`)
	regretPrefix = []byte(`"regret_ms":`)
	poolPrefix   = []byte(`"pool":`)
)

// atOf is when the decision of a line was made, and what follows on that.
func atOf(line []byte) (at time.Time, rest []byte, ok bool) {
	text, rest, ok := bytes.Cut(line[len(atPrefix):], []byte(`",`))
	if !ok || at.UnmarshalText(text) != nil {
		return at, nil, false
	}
	return at, rest, true
}

// regretOf is the regret that a line names behind its time.
func regretOf(rest []byte) (regret float64, ok bool) {
	text, ok := bytes.CutPrefix(rest, regretPrefix)
	if !ok {
		return 0, false
	}
	text, _, _ = bytes.Cut(text, []byte(","))
	regret, err := strconv.ParseFloat(string(text), 64)
	return regret, err == nil
}

// pick yields those of the lines of all that the query asks for.
func (q *Query) pick(yield func(line []byte) error, all func(yield func(line []byte) error) error) error {
	best, model := picked{most: cmp.Or(q.Limit, MaxLimit)}, modelOf(q.Model)
	err := all(func(line []byte) error {
		at, rest, ok := atOf(line)
		if !ok || at.Before(q.Since) || !q.Until.IsZero() && !at.Before(q.Until) {
			return nil
		}
		if q.Model != "" && !bytes.Contains(rest, model) {
			return nil
		}
		if q.First {
			return cmp.Or(yield(line), errFirst)
		}
		if q.Limit == 0 && !q.Worst {
			return yield(line)
		}
		rank := float64(at.UnixNano())
		if q.Worst {
			if rank, ok = regretOf(rest); !ok {
				return nil
			}
		}
		if !bytes.HasPrefix(rest, poolPrefix) {
			best.take(rank, line)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFirst) {
		return err
	}
	for _, p := range best.sorted(q.Worst) {
		if err := yield(p.line); err != nil {
			return err
		}
	}
	return nil
}

// picked are the lines of the highest ranks. It is a heap, the lowest first.
type picked struct {
	most  int
	lines []ranked
}

type ranked struct {
	rank float64
	line []byte
}

func (p *picked) Len() int           { return len(p.lines) }
func (p *picked) Less(i, j int) bool { return p.lines[i].rank < p.lines[j].rank }
func (p *picked) Swap(i, j int)      { p.lines[i], p.lines[j] = p.lines[j], p.lines[i] }
func (p *picked) Push(x any)         { r, _ := x.(ranked); p.lines = append(p.lines, r) }
func (p *picked) Pop() any {
	last := p.lines[len(p.lines)-1]
	p.lines = p.lines[:len(p.lines)-1]
	return last
}

func (p *picked) take(rank float64, line []byte) {
	if len(p.lines) < p.most {
		heap.Push(p, ranked{rank, bytes.Clone(line)})
	} else if p.lines[0].rank < rank {
		p.lines[0] = ranked{rank, bytes.Clone(line)}
		heap.Fix(p, 0)
	}
}

// sorted are the lines with the lowest rank first, or with the highest.
func (p *picked) sorted(highest bool) []ranked {
	slices.SortStableFunc(p.lines, func(a, b ranked) int {
		if highest {
			a, b = b, a
		}
		return cmp.Compare(a.rank, b.rank)
	})
	return p.lines
}
