package terminal

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
)

// Table is what people read: columns, of which those after the first wide are
// shown in the wide format only.
type Table struct {
	Columns []string
	Wide    int  // columns that the narrow format shows; 0: all
	Bare    bool // without the line of columns
	Limit   int  // cells a line is wrapped at; 0: lines are as long as they are
	Rows    [][]string
}

// The widths of tables that are wrapped, in cells of the terminal.
const (
	PageWidth  = 120 // of what explains
	gap        = 2   // between columns
	narrowCell = 24  // a column is wrapped at, where the last one has no room else
	leastLast  = 40  // of the last column, before the others are wrapped
)

// Add adds a row. Lists are joined by commas.
func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		switch v := cell.(type) {
		case []string:
			row[i] = OrDash(strings.Join(v, ","))
		case bool:
			if row[i] = "no"; v {
				row[i] = "yes"
			}
		default:
			row[i] = fmt.Sprint(v)
		}
	}
	t.Rows = append(t.Rows, row)
}

// Write writes the table with its columns below each other, as wide as the
// terminal shows their characters.
func (t *Table) Write(w io.Writer, wide bool) error {
	shown := len(t.Columns)
	if t.Wide > 0 && !wide {
		shown = t.Wide
	}
	rows := t.Rows
	if !t.Bare {
		rows = slices.Insert(slices.Clone(rows), 0, t.Columns)
	}
	lines := make([][]string, len(rows))
	for i, row := range rows {
		for _, cell := range row[:shown] {
			lines[i] = append(lines[i], strings.TrimRight(Escape(cell), " "))
		}
	}
	widths := columnWidths(lines, shown)
	if t.Limit > 0 {
		lines = wrapped(lines, narrowed(widths, t.Limit))
		widths = columnWidths(lines, shown)
	}
	var page strings.Builder
	for _, cells := range lines {
		line := ""
		for i, cell := range cells {
			line += cell + strings.Repeat(" ", max(0, widths[i]-lipgloss.Width(cell))+gap)
		}
		page.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, page.String())
	return err
}

// columnWidths are those of the widest cell that another one follows.
func columnWidths(lines [][]string, columns int) []int {
	widths := make([]int, columns)
	for _, cells := range lines {
		last := len(cells) - 1
		for last >= 0 && cells[last] == "" {
			last--
		}
		for i, cell := range cells[:max(0, last)] {
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	return widths
}

// narrowed are widths with which a line has at most limit cells: those of the
// columns, or of narrow ones, and for the last column what is left.
func narrowed(widths []int, limit int) []int {
	out := slices.Clone(widths)
	last := len(widths) - 1
	for _, most := range []int{limit, narrowCell} {
		out[last] = limit
		for i := range last {
			out[i] = min(widths[i], most)
			out[last] -= out[i] + gap
		}
		if out[last] >= leastLast {
			break
		}
	}
	return out
}

// wrapped has each cell go on in lines of its own below it.
func wrapped(lines [][]string, widths []int) (out [][]string) {
	for _, cells := range lines {
		first := len(out)
		for i, cell := range cells {
			for at, part := range Wrap(cell, max(1, widths[i])) {
				if first+at == len(out) {
					out = append(out, make([]string, len(cells)))
				}
				out[first+at][i] = part
			}
		}
	}
	return out
}

// Wrap breaks text into lines of at most width cells: after a space or, where
// there is none, anywhere.
func Wrap(text string, width int) []string {
	return strings.Split(lipgloss.Wrap(text, width, ""), "\n")
}
