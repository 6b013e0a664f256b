package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/template"
)

// maxExpanded bounds what a label or an annotation becomes, in bytes; each turn of
// a loop and each call of a template counts as a few. maxScratch bounds what one
// function may make on the way there.
const (
	maxExpanded = 64 << 10
	turnCosts   = 4
	maxScratch  = 4 << 20
)

var errTooLong = errors.New("it becomes longer than 64 KiB")

// expand expands the template of a label or an annotation. The template comes from
// a rule file and the values from labels, so that neither is trusted to be short.
//
// Prometheus' expander writes into memory without a bound, and text/template
// cannot be stopped. So a call that counts it is inserted before each piece, and
// the functions that make text of any length are bounded.
func expand(ctx context.Context, text, name string, data any, query template.QueryFunc, external *url.URL, now time.Time) (string, error) {
	b := &budget{ctx: ctx, left: maxExpanded}
	counted, err := withCounts(text)
	if err != nil {
		counted = text // the expander says what is wrong with it
	}
	e := template.NewTemplateExpander(ctx, counted, name, data, model.Time(timestamp.FromTime(now)), query, external, nil)
	e.Funcs(b.funcs())
	return e.Expand()
}

// budget is what is left of the length of one text.
type budget struct {
	ctx  context.Context
	left int
}

// The functions that withCounts calls.
const (
	countTurn = "_turn"
	countShow = "_show"
)

func (b *budget) funcs() texttemplate.FuncMap {
	bounded := func(times int, f func(...any) string) any {
		return func(a ...any) (string, error) { return b.made(times*sum(a), func() string { return f(a...) }) }
	}
	return texttemplate.FuncMap{
		countTurn:  func() (string, error) { return "", b.spend(turnCosts) },
		countShow:  func(v reflect.Value) (reflect.Value, error) { return v, b.spend(length(v)) },
		"print":    bounded(1, fmt.Sprint),
		"println":  bounded(1, fmt.Sprintln),
		"html":     bounded(6, texttemplate.HTMLEscaper),
		"js":       bounded(6, texttemplate.JSEscaper),
		"urlquery": bounded(3, texttemplate.URLQueryEscaper),
		"printf": func(format string, a ...any) (string, error) {
			if wide.MatchString(format) {
				return "", fmt.Errorf("printf %q: a width or precision has at most three digits", format)
			}
			most := len(format) + strings.Count(format, "%")*(1000+6*sum(a))
			return b.made(most, func() string { return fmt.Sprintf(format, a...) })
		},
		"reReplaceAll": func(pattern, by, text string) (string, error) {
			re, err := regexp.Compile(pattern)
			if err != nil {
				return "", err
			}
			most := (len(text)+1)*len(by) + (1+strings.Count(by, "$"))*len(text)
			return b.made(most, func() string { return re.ReplaceAllString(text, by) })
		},
	}
}

// wide is a width or precision of four digits and more, or one from an argument.
var wide = regexp.MustCompile(`%[^a-zA-Z%]*(\*|[0-9]{4,})`)

func (b *budget) spend(n int) error {
	if b.left -= n; b.left < 0 {
		return errTooLong
	}
	return b.ctx.Err()
}

// made makes a text that takes at most so many bytes, and counts those that it has.
func (b *budget) made(most int, by func() string) (string, error) {
	if most > maxScratch {
		return "", errTooLong
	}
	text := by()
	return text, b.spend(len(text))
}

func sum(values []any) (n int) {
	for _, v := range values {
		n += length(reflect.ValueOf(v)) + 1
	}
	return n
}

// length is how long a value is when it is shown.
func length(v reflect.Value) int {
	switch {
	case !v.IsValid():
		return 0
	case v.Kind() == reflect.String:
		return v.Len()
	}
	return len(fmt.Sprint(v))
}

// withCounts inserts calls into a template that count what it makes.
func withCounts(text string) (string, error) {
	trees := map[string]*parse.Tree{}
	root := parse.New("")
	root.Mode = parse.SkipFuncCheck
	if _, err := root.Parse(text, "", "", trees); err != nil {
		return "", err
	}
	var w counter
	for name, tree := range trees {
		if name != "" {
			w.WriteString("{{define " + strconv.Quote(name) + "}}")
			w.list(tree.Root)
			w.WriteString("{{end}}")
		}
	}
	w.list(root.Root)
	return w.String(), nil
}

// counter writes the nodes of a template with counts before them.
type counter struct{ strings.Builder }

func (w *counter) turn() { w.WriteString("{{" + countTurn + "}}") }

func (w *counter) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	w.turn()
	for _, n := range l.Nodes {
		w.node(n)
	}
}

func (w *counter) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.TextNode:
		w.WriteString("{{" + countShow + " " + strconv.Quote(string(n.Text)) + "}}")
	case *parse.ActionNode:
		if len(n.Pipe.Decl) > 0 {
			w.WriteString(n.String())
		} else {
			w.WriteString("{{" + countShow + " (" + n.Pipe.String() + ")}}")
		}
	case *parse.IfNode:
		w.branch("if", &n.BranchNode)
	case *parse.WithNode:
		w.branch("with", &n.BranchNode)
	case *parse.RangeNode:
		w.branch("range", &n.BranchNode)
	default: // template, break, continue
		w.turn()
		w.WriteString(n.String())
	}
}

func (w *counter) branch(kind string, n *parse.BranchNode) {
	w.WriteString("{{" + kind + " " + n.Pipe.String() + "}}")
	w.list(n.List)
	if n.ElseList != nil {
		w.WriteString("{{else}}")
		w.list(n.ElseList)
	}
	w.WriteString("{{end}}")
}
