package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"headway/bench/routing/peers"
	"headway/internal/plot"
)

// table is a comparison that the page shows.
type table struct {
	name     string // of its plot
	title    string
	workload string
	scenario string
	loads    []float64
}

var shown = []table{
	{"conversation", "Mooncake conversation trace", "conversation", "", []float64{0.6, 0.8, 0.95, 1.1}},
	{"speeds", "Mooncake conversation trace, heads of three speeds (1 : 1.6 : 2.5)", "conversation", threeSpeeds, []float64{0.6, 0.8, 0.95}},
	{"agents", "Agents, at the rates of the conversation trace", "agents", "", []float64{0.6, 0.8, 0.95}},
}

// contenders are those that the tables show, with the names that they have there.
func contenders() (names, titles []string) {
	for _, ours := range []string{"adaptive", "prefix_aware", "least_tokens", "latency", "least_loaded", "session_affinity", "power_of_two", "peak_ewma", "round_robin"} {
		names, titles = append(names, ours), append(titles, "`"+ours+"`")
	}
	for _, p := range peers.All {
		names, titles = append(names, p.Name), append(titles, p.Shown)
	}
	return append(names, "oracle"), append(titles, "greedy oracle")
}

// tables are the comparisons as Markdown.
func tables(l *lab) string {
	var text strings.Builder
	names, titles := contenders()
	for _, t := range shown {
		fmt.Fprintf(&text, "### %s\n\n![mean time to first token by load](images/routing-%s.svg)\n\n| | %s |\n|---%s|\n", t.title, t.name, strings.Join(heading(&t), " | "), strings.Repeat("|---", len(t.loads)))
		for i, name := range names {
			fmt.Fprintf(&text, "| %s | %s |\n", titles[i], strings.Join(l.cells(&t, name), " | "))
		}
		text.WriteByte('\n')
	}
	return text.String()
}

func heading(t *table) (cells []string) {
	for _, load := range t.loads {
		cells = append(cells, fmt.Sprint(load))
	}
	return cells
}

// cells are the results of a contender: mean time to first token and goodput.
func (l *lab) cells(t *table, name string) (cells []string) {
	for _, load := range t.loads {
		r := l.get(run{workload: t.workload, scenario: t.scenario, contender: name, load: load})
		cells = append(cells, fmt.Sprintf("%.0f ms, %.1f %%", r.TTFT.Mean, 100*r.Goodput))
	}
	return cells
}

// drawn are the contenders of plots: a picture of all cannot be read.
var drawn = []string{"adaptive", "oracle", "mooncake", "lmetric", "llmd", "dynamo", "sglang", "chwbl", "least_loaded", "round_robin"}

// chart is the plot of a table.
func (l *lab) chart(t *table) plot.Chart {
	c := plot.Chart{Title: "Mean time to first token, 8 heads", X: "load", Y: "ms", Log: true}
	names, titles := contenders()
	loads := slices.DeleteFunc(slices.Clone(t.loads), func(load float64) bool { return load > 1 }) // there most only queue
	for _, name := range drawn {
		s := plot.Series{X: loads}
		for i := range names {
			if names[i] == name {
				s.Name = strings.Trim(titles[i], "`")
			}
		}
		for _, load := range loads {
			s.Y = append(s.Y, l.ttft(run{workload: t.workload, scenario: t.scenario, contender: name, load: load}))
		}
		c.Series = append(c.Series, s)
	}
	return c
}

// write writes the tables into the page, and the plots.
func write(l *lab, page string, rows [][5]string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	var list strings.Builder
	list.WriteString("| figure | at | goal | is | |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&list, "| %s |\n", strings.Join(r[:], " | "))
	}
	for mark, with := range map[string]string{"figures": list.String(), "tables": tables(l), "rates": l.rates()} {
		if text, err = between(text, mark, with); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	if err := os.WriteFile(page, text, 0o644); err != nil { //nolint:gosec // a page of the manual
		return err
	}
	for _, t := range shown {
		name := filepath.Join(filepath.Dir(page), "images", "routing-"+t.name+".svg")
		var picture bytes.Buffer
		if err := plot.Write(&picture, name, l.chart(&t)); err != nil {
			return err
		}
		if err := os.WriteFile(name, picture.Bytes(), 0o644); err != nil { //nolint:gosec // as the page
			return err
		}
	}
	return nil
}

// rates says what load 1 is.
func (l *lab) rates() string {
	var parts []string
	for _, w := range workloads {
		if rate := l.saturation[w.name]; rate > 0 {
			parts = append(parts, fmt.Sprintf("%s %.3g", w.shown, rate))
		}
	}
	return "Load 1.0 in requests per second: " + strings.Join(parts, ", ") + ".\n"
}

// between replaces what stands between two marks of a page.
func between(text []byte, mark, with string) ([]byte, error) {
	begin, end := fmt.Appendf(nil, "<!-- %s -->\n", mark), fmt.Appendf(nil, "<!-- /%s -->\n", mark)
	before, rest, found := bytes.Cut(text, begin)
	_, after, closed := bytes.Cut(rest, end)
	if !found || !closed {
		return nil, fmt.Errorf("the marks %q are missing", mark)
	}
	return bytes.Join([][]byte{before, begin, []byte(with), end, after}, nil), nil
}
