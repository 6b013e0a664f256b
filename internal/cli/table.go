package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

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

// The widths of tables that are wrapped.
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
			row[i] = "no"
			if v {
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
	var lines [][]string
	if !t.bare {
		lines = append(lines, visibleCells(t.columns[:shown]))
	}
	for _, row := range t.rows {
		lines = append(lines, visibleCells(row[:shown]))
	}
	widths := columnWidths(lines, shown)
	if t.limit > 0 {
		lines = wrapped(lines, narrowed(widths, t.limit))
		widths = columnWidths(lines, shown)
	}
	var page strings.Builder
	for _, cells := range lines {
		pad := 0
		for i, cell := range cells {
			if cell != "" {
				page.WriteString(strings.Repeat(" ", pad))
				page.WriteString(cell)
				pad = 0
			}
			pad += widths[i] - cellWidth(cell) + gap
		}
		page.WriteByte('\n')
	}
	_, err := io.WriteString(w, page.String())
	return err
}

func visibleCells(cells []string) []string {
	out := make([]string, len(cells))
	for i, cell := range cells {
		out[i] = strings.TrimRight(seen(cell), " ")
	}
	return out
}

// columnWidths are those of the widest cell that another one follows.
func columnWidths(lines [][]string, columns int) []int {
	widths := make([]int, columns)
	for _, cells := range lines {
		last := len(cells) - 1
		for last >= 0 && cells[last] == "" {
			last--
		}
		for i, cell := range cells {
			if n := cellWidth(cell); i < last && n > widths[i] {
				widths[i] = n
			}
		}
	}
	return widths
}

// narrowed are widths with which a line has at most limit cells: those of the
// columns, or of narrow ones, and for the last column what is left.
func narrowed(widths []int, limit int) []int {
	out := make([]int, len(widths))
	last := len(widths) - 1
	rest := func(most int) int {
		left := limit
		for i := range last {
			out[i] = min(widths[i], most)
			left -= out[i] + gap
		}
		return left
	}
	if out[last] = rest(limit); out[last] < leastLast {
		out[last] = rest(narrowCell)
	}
	return out
}

// wrapped has each cell go on in lines of its own below it.
func wrapped(lines [][]string, widths []int) [][]string {
	var out [][]string
	for _, cells := range lines {
		parts, height := make([][]string, len(cells)), 1
		for i, cell := range cells {
			parts[i] = wrap(cell, max(1, widths[i]))
			height = max(height, len(parts[i]))
		}
		for at := range height {
			line := make([]string, len(cells))
			for i := range cells {
				if at < len(parts[i]) {
					line[i] = parts[i][at]
				}
			}
			out = append(out, line)
		}
	}
	return out
}

// wrap breaks text into lines of at most width cells: after a space or, where
// there is none, anywhere.
func wrap(text string, width int) (lines []string) {
	for cellWidth(text) > width {
		end, used := 0, 0
		for end < len(text) {
			r, size := utf8.DecodeRuneInString(text[end:])
			n := cellWidth(string(r))
			if used+n > width && end > 0 {
				break
			}
			used, end = used+n, end+size
		}
		if space := strings.LastIndexByte(text[:min(end+1, len(text))], ' '); space > 0 && end < len(text) {
			end = space + 1
		}
		lines = append(lines, strings.TrimRight(text[:end], " "))
		text = text[end:]
	}
	if text != "" || len(lines) == 0 {
		lines = append(lines, text)
	}
	return lines
}

// cellWidth is how many cells of a terminal text takes.
func cellWidth(text string) int {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return lipgloss.Width(text)
		}
	}
	return len(text)
}
