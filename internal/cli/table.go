package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
)

// table is what people read: columns, of which those after the first wide are
// shown in the wide format only.
type table struct {
	columns []string
	wide    int  // columns that the narrow format shows; 0: all
	bare    bool // without the line of columns
	limit   int  // cells a line is wrapped at; 0: lines are as long as they are
	rows    [][]string
}

// The widths of tables that are wrapped, in cells of the terminal.
const (
	gap        = 2   // between columns
	pageWidth  = 120 // of what explains
	narrowCell = 24  // a column is wrapped at, where the last one has no room else
	leastLast  = 40  // of the last column, before the others are wrapped
)

// add adds a row. Lists are joined by commas.
func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		switch v := cell.(type) {
		case []string:
			row[i] = orDash(strings.Join(v, ","))
		case bool:
			if row[i] = "no"; v {
				row[i] = "yes"
			}
		default:
			row[i] = fmt.Sprint(v)
		}
	}
	t.rows = append(t.rows, row)
}

// write writes the table with its columns below each other, as wide as the
// terminal shows their characters.
func (t *table) write(w io.Writer, wide bool) error {
	shown := len(t.columns)
	if t.wide > 0 && !wide {
		shown = t.wide
	}
	rows := t.rows
	if !t.bare {
		rows = slices.Insert(slices.Clone(rows), 0, t.columns)
	}
	lines := make([][]string, len(rows))
	for i, row := range rows {
		for _, cell := range row[:shown] {
			lines[i] = append(lines[i], strings.TrimRight(seen(cell), " "))
		}
	}
	widths := columnWidths(lines, shown)
	if t.limit > 0 {
		lines = wrapped(lines, narrowed(widths, t.limit))
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
			for at, part := range wrap(cell, max(1, widths[i])) {
				if first+at == len(out) {
					out = append(out, make([]string, len(cells)))
				}
				out[first+at][i] = part
			}
		}
	}
	return out
}

// wrap breaks text into lines of at most width cells: after a space or, where
// there is none, anywhere.
func wrap(text string, width int) []string {
	return strings.Split(lipgloss.Wrap(text, width, ""), "\n")
}
