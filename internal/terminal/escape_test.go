package terminal

import (
	"strings"
	"testing"
)

func TestTextOfSeveralLinesKeepsThem(t *testing.T) {
	for in, want := range map[string]string{
		"plain":            "plain",
		"a\nb\x1bc":        "a\nb" + `\u001bc`,
		"a\x9bb":           "a\ufffdb",
		"ok \u00e9 \u65e5": "ok é 日",
	} {
		if got := EscapeLines(in); got != want {
			t.Errorf("%q is shown as %q; want %q", in, got, want)
		}
	}
}

// An export is for programs, byte for byte; on a terminal its hidden characters
// are shown.
func TestAnExportOnATerminalIsShown(t *testing.T) {
	var page strings.Builder
	w := &shownWriter{w: &page}
	text := `{"a":"` + "\u009b" + `"}` + "\n日本"
	for i := range len(text) { // runes come in parts
		if n, err := w.Write([]byte(text[i : i+1])); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if got, want := page.String(), `{"a":"\u009b"}`+"\n日本"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}
