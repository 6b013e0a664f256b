package httpapi

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"headway/api"
	"headway/internal/fleet"
)

// Sizes of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

// limit is the size of a page.
func (q *query) limit() int {
	text, given := q.values["limit"]
	if !given {
		return defaultPage
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		q.fault("limit", "must be 1 to "+strconv.Itoa(maxPage))
	}
	return n
}

// cursorKind distinguishes the cursors of one list from those of another. What
// else they hold is private to the list.
type cursorKind string

const (
	headCursor     cursorKind = "h:"
	decisionCursor cursorKind = "d:"
	revisionCursor cursorKind = "p:"
	keyCursor      cursorKind = "k:"
	letterCursor   cursorKind = "l:"
)

func (k cursorKind) encode(place string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(k) + place))
}

// cursor is the place after which a page begins; without a cursor it is first.
func cursor[P any](q *query, kind cursorKind, first P, parse func(string) (P, bool)) P {
	text := q.values["cursor"]
	if text == "" {
		return first
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	place, ours := strings.CutPrefix(string(raw), string(kind))
	at, valid := parse(place)
	// The decoder passes over line ends.
	if err != nil || strings.ContainsAny(text, "\r\n") || !ours || !valid {
		q.fault("cursor", "is not the next_cursor of this list")
		return first
	}
	return at
}

func idPlace(id string) (string, bool) { return id, fleet.ValidID(id) }

func numberPlace(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// writePage answers with a page of at most limit items. One more says that the
// list goes on. show returns an item as it is sent, and its place in the list.
func writePage[T, A any](w *answer, kind cursorKind, limit int, items []T, show func(T) (A, string)) error {
	page := api.List[A]{Data: make([]A, 0, len(items))}
	last := ""
	for _, item := range items {
		if len(page.Data) == limit {
			page.NextCursor = kind.encode(last)
			break
		}
		var shown A
		shown, last = show(item)
		page.Data = append(page.Data, shown)
	}
	return writeJSON(w, http.StatusOK, page)
}
