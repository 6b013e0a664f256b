package terminal

import (
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
)

// Columns stand below each other where the terminal shows a character on two
// cells, or on none.
func TestColumnsStandBelowEachOther(t *testing.T) {
	table := &Table{Columns: []string{"ID", "REGION", "NOTE"}}
	table.Add("a", "eu-west", "x")
	table.Add("日本語", "e\u0301u", "y")
	table.Add("only the first", "", "")
	var page strings.Builder
	if err := table.Write(&page, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(page.String(), "\n")
	if want := "only the first"; lines[3] != want {
		t.Errorf("%q; want %q", lines[3], want)
	}
	for i, note := range []string{"NOTE", "x", "y"} {
		before, _, found := strings.Cut(lines[i], note)
		if at := lipgloss.Width(before); !found || at != 6+2+7+2 {
			t.Errorf("%q has its last column at %d", lines[i], at)
		}
	}
}

func TestTextIsWrapped(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 5, ""},
		{"short", 5, "short"},
		{"two words", 5, "two|words"},
		{"two words", 3, "two|wor|ds"},
		{"a  b", 2, "a|b"},
		{"日本語", 4, "日本|語"},
		{"abcdef", 2, "ab|cd|ef"},
	} {
		if got := strings.Join(Wrap(c.text, c.width), "|"); got != c.want {
			t.Errorf("Wrap(%q, %d) = %q; want %q", c.text, c.width, got, c.want)
		}
	}
}
