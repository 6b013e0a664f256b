package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"

	"headway/internal/history"
)

// Bounds of one expression. PromQL's engine counts the samples that a query
// holds and looks at the time between its steps; what is neither, such as the
// length of labels, the number of steps and regular expressions, is bounded
// here, before it has cost anything.
const (
	maxExpression = 16 << 10 // bytes
	maxTokens     = 4000
	maxNesting    = 100     // of brackets
	maxPattern    = 20_000  // parts of a regular expression, its repetitions written out
	maxSteps      = 250_000 // of a subquery
	maxLabelValue = 64 << 10
	maxMatching   = 3e8 // parts of a regular expression times bytes that label_replace reads: some seconds
)

// Memory that a query may take by our estimate. For each sample that it may
// hold there are bytesPerSample: the engine holds it twice at times, with its
// series beside it.
const (
	bytesPerSample = 100
	minQueryBytes  = 64 << 20
)

// Bytes that the engine takes for a series: fixed ones, those of a view of the
// store, and for each step a point, made room for beforehand up to a bound.
const (
	seriesBytes    = 256
	viewBytes      = 2 << 10
	pointBytes     = 16
	pointsMadeRoom = 5000
)

// maxUnseen bounds the samples of one series that are read without a look at the
// time: a tenth of a second. To look at each sample would cost a third of all
// queries.
const maxUnseen = 1_000_000

// boundedParser refuses expressions beyond the bounds: of queries, selectors and
// rule files.
type boundedParser struct{ parser.Parser }

func newParser() parser.Parser { return boundedParser{parser.NewParser(parser.Options{})} }

// ParseExpr implements parser.Parser.
func (p boundedParser) ParseExpr(input string) (parser.Expr, error) {
	if err := checkText(input); err != nil {
		return nil, err
	}
	return p.Parser.ParseExpr(input)
}

// ParseMetricSelector implements parser.Parser.
func (p boundedParser) ParseMetricSelector(input string) ([]*labels.Matcher, error) {
	if err := checkText(input); err != nil {
		return nil, err
	}
	return p.Parser.ParseMetricSelector(input)
}

// checkText looks at the words of an expression before they are parsed: the
// parser compiles regular expressions, and its time grows with the square of
// the nesting.
func checkText(input string) error {
	if len(input) > maxExpression {
		return bad("the expression has %d bytes, at most %d are allowed", len(input), maxExpression)
	}
	lexer := parser.Lex(input)
	var word parser.Item
	open := 0
	for n := 0; ; n++ {
		lexer.NextItem(&word)
		switch word.Typ {
		case parser.EOF, parser.ERROR:
			return nil // the parser reports what is wrong
		case parser.LEFT_PAREN, parser.LEFT_BRACE, parser.LEFT_BRACKET:
			open++
		case parser.RIGHT_PAREN, parser.RIGHT_BRACE, parser.RIGHT_BRACKET:
			open--
		case parser.STRING:
			if text, err := strutil.Unquote(word.Val); err == nil && patternSize(text) > maxPattern {
				return bad("a regular expression has more than %d parts when its repetitions are written out", maxPattern)
			}
		}
		if n > maxTokens {
			return bad("the expression has more than %d words", maxTokens)
		}
		if open > maxNesting {
			return bad("the expression has more than %d brackets within each other", maxNesting)
		}
	}
}

// patternSize is how many parts a regular expression has when its repetitions
// are written out, as they are when it is compiled. What is none has no parts.
func patternSize(text string) int {
	if !strings.ContainsAny(text, special) {
		return 1 + len(text)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0
	}
	return parts(parsed)
}

// special are the characters that make a regular expression of a text.
const special = `\.+*?()|[]{}^$`

func parts(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += parts(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(1, re.Min+1, re.Max)
	}
	return n
}

// grid is the times at which a part is evaluated.
type grid struct{ span, step float64 } // ms

func (g grid) steps() float64 {
	if g.step <= 0 {
		return 1
	}
	return 1 + g.span/g.step
}

// weighing adds up what an expression can take.
type weighing struct {
	m      *Monitor
	ctx    context.Context
	text   string
	bytes  float64
	unseen float64 // samples, at most, that PromQL's engine reads before it looks at the time
	err    error   // the first reason to refuse it
}

// prepare makes a query, of one time if step is 0, and refuses one that could
// take more memory or time than a query may. It knows what is in the store, and
// nothing of the values.
func (m *Monitor) prepare(ctx context.Context, opts promql.QueryOpts, text string, from, to time.Time, step time.Duration) (promql.Query, error) {
	query := func(e *promql.Engine) (promql.Query, error) {
		if step == 0 {
			return e.NewInstantQuery(ctx, m.store, opts, text, from)
		}
		return e.NewRangeQuery(ctx, m.store, opts, text, from, to, step)
	}
	q, err := query(m.engine)
	if err != nil {
		return nil, err
	}
	parsed, ok := q.Statement().(*parser.EvalStmt)
	if !ok {
		return nil, fmt.Errorf("%T is not known", q.Statement())
	}
	w := &weighing{m: m, ctx: ctx, text: text}
	w.weigh(parsed.Expr, grid{float64(to.Sub(from).Milliseconds()), float64(step.Milliseconds())})
	if w.err != nil {
		return nil, w.err
	}
	if w.unseen > maxUnseen {
		return query(m.watchful)
	}
	return q, nil
}

// reads takes note of a range, whose samples the engine hands to a function at
// each step.
func (w *weighing) reads(length, interval time.Duration, g grid) {
	w.unseen = max(w.unseen, g.steps()*(1+float64(length)/float64(interval)))
}

// refuse ends the weighing.
func (w *weighing) refuse(err error) history.Extent {
	w.err = cmp.Or(w.err, err)
	return history.Extent{}
}

// weigh returns the extent of a part, after it has added what it takes.
func (w *weighing) weigh(expr parser.Expr, g grid) history.Extent {
	if expr == nil || w.err != nil {
		return history.Extent{}
	}
	e := w.extent(expr, g)
	if e.Longest > maxLabelValue {
		return w.refuse(tooMuch("a label value could get %.0f bytes long, at most %d are allowed", e.Longest, maxLabelValue))
	}
	w.bytes += e.Series * (seriesBytes + 2*e.Labels + pointBytes*min(g.steps(), pointsMadeRoom))
	if most := max(minQueryBytes, bytesPerSample*float64(w.m.o.MaxSamples)); w.bytes > most {
		return w.refuse(tooMuch("the query could take more than %.0f MiB of memory; ask for fewer series, labels or steps", most/(1<<20)))
	}
	return e
}

func (w *weighing) extent(expr parser.Expr, g grid) history.Extent {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return w.extent(e.Expr, g)
	case *parser.UnaryExpr:
		return w.weigh(e.Expr, g)
	case *parser.StepInvariantExpr:
		return w.weigh(e.Expr, grid{})
	case *parser.MatrixSelector:
		w.reads(e.Range, w.m.o.Interval, g)
		return w.extent(e.VectorSelector, g)
	case *parser.VectorSelector:
		found, err := w.m.store.Extent(w.ctx, e.LabelMatchers)
		if err != nil {
			return w.refuse(err)
		}
		w.bytes += found.Series * viewBytes
		return found
	case *parser.SubqueryExpr:
		return w.subquery(e, g)
	case *parser.AggregateExpr:
		return w.aggregate(e, g)
	case *parser.BinaryExpr:
		return w.binary(e, g)
	case *parser.Call:
		return w.call(e, g)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return history.Extent{Series: 1}
	}
	return w.refuse(fmt.Errorf("%T is not known", expr))
}

// subquery weighs a subquery, whose steps lie in the whole time that the steps
// around it look back at.
func (w *weighing) subquery(e *parser.SubqueryExpr, g grid) history.Extent {
	step := cmp.Or(e.Step, w.m.o.Interval)
	if step < time.Millisecond {
		return w.refuse(bad("the step of a subquery is %s, at least 1ms is allowed", step))
	}
	inner := grid{g.span + float64(e.Range.Milliseconds()), float64(step.Milliseconds())}
	if e.Timestamp != nil {
		inner.span = float64(e.Range.Milliseconds())
	}
	if inner.steps() > maxSteps {
		return w.refuse(bad("a subquery has %.0f steps, at most %d are allowed; shorten its range or lengthen its step", inner.steps(), maxSteps))
	}
	w.reads(e.Range, step, g)
	return w.weigh(e.Expr, inner)
}

func (w *weighing) aggregate(e *parser.AggregateExpr, g grid) history.Extent {
	of := w.weigh(e.Expr, g)
	if e.Op != parser.COUNT_VALUES {
		w.weigh(e.Param, g)
		return of
	}
	if name, is := e.Param.(*parser.StringLiteral); is {
		of.Labels += float64(len(name.Val))
	}
	// Each value is a series.
	return history.Extent{Series: of.Series * g.steps(), Labels: of.Labels + longestNumber, Longest: max(of.Longest, longestNumber)}
}

// longestNumber is the length of the longest number that count_values writes.
const longestNumber = 330

func (w *weighing) binary(e *parser.BinaryExpr, g grid) history.Extent {
	left, right := w.weigh(e.LHS, g), w.weigh(e.RHS, g)
	both := left.Or(right)
	switch {
	case e.Op == parser.LOR:
		both.Series = left.Series + right.Series
	case e.VectorMatching != nil && len(e.VectorMatching.Include) > 0:
		both.Labels = left.Labels + right.Labels
	}
	return both
}

func (w *weighing) call(e *parser.Call, g grid) (of history.Extent) {
	for _, arg := range e.Args {
		of = of.Or(w.weigh(arg, g))
	}
	switch e.Func.Name {
	case "absent", "absent_over_time": // labels from the matchers
		return history.Extent{Series: 1, Labels: float64(len(w.text)), Longest: float64(len(w.text))}
	case "label_join":
		sources := float64(len(e.Args) - 3)
		return withLabel(of, argument(e, 1), sources*(of.Longest+float64(len(argument(e, 2)))))
	case "label_replace":
		replacement, pattern := argument(e, 2), argument(e, 4)
		if work := of.Series * float64(patternSize(pattern)) * of.Longest; work > maxMatching {
			return w.refuse(tooMuch("label_replace of %.0f series with such a regular expression would take too long", of.Series))
		}
		return withLabel(of, argument(e, 1), float64(len(replacement))+float64(strings.Count(replacement, "$"))*of.Longest)
	}
	return of
}

// withLabel is the extent after each series got a label.
func withLabel(a history.Extent, name string, length float64) history.Extent {
	return history.Extent{Series: a.Series, Labels: a.Labels + float64(len(name)) + length, Longest: max(a.Longest, length)}
}

func argument(e *parser.Call, i int) string {
	var arg parser.Expr
	if i < len(e.Args) {
		arg = e.Args[i]
	}
	for {
		switch inner := arg.(type) {
		case *parser.ParenExpr:
			arg = inner.Expr
		case *parser.StepInvariantExpr:
			arg = inner.Expr
		case *parser.StringLiteral:
			return inner.Val
		default:
			return ""
		}
	}
}

func tooMuch(format string, args ...any) error {
	return &apiError{execution, fmt.Errorf(format, args...)}
}

// errLongAnswer ends an answer that is too long to read.
var errLongAnswer = &apiError{execution, errors.New("the answer has more than 64 MiB; ask for fewer series or points")}
