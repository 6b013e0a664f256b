package openai

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// ModelEntry is one model of the list.
type ModelEntry struct {
	ID string
	// Created is in seconds since 1970; the caller keeps it stable.
	Created int64
	OwnedBy string
}

// AppendModels writes the list of models, in a dialect: each id once, with its
// least Created, sorted by id. It sorts entries in place.
func AppendModels(dst []byte, d Dialect, entries []ModelEntry) []byte {
	slices.SortFunc(entries, func(a, b ModelEntry) int {
		if c := strings.Compare(a.ID, b.ID); c != 0 {
			return c
		}
		return int(max(-1, min(1, a.Created-b.Created)))
	})
	entries = slices.CompactFunc(entries, func(a, b ModelEntry) bool { return a.ID == b.ID })
	if d == Anthropic {
		dst = append(dst, `{"data":[`...)
	} else {
		dst = append(dst, `{"object":"list","data":[`...)
	}
	for i := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = entries[i].Append(dst, d)
	}
	dst = append(dst, ']')
	if d == Anthropic { // all of them are one page
		first, last := "", ""
		if len(entries) > 0 {
			first, last = entries[0].ID, entries[len(entries)-1].ID
		}
		dst = appendNullable(append(dst, `,"has_more":false,"first_id":`...), first)
		dst = appendNullable(append(dst, `,"last_id":`...), last)
	}
	return append(dst, '}')
}

// Append writes one model as its own answer.
func (m ModelEntry) Append(dst []byte, d Dialect) []byte {
	if d == Anthropic {
		dst = appendString(append(dst, `{"type":"model","id":`...), m.ID)
		dst = appendString(append(dst, `,"display_name":`...), m.ID)
		dst = append(dst, `,"created_at":"`...)
		return append(time.Unix(m.Created, 0).UTC().AppendFormat(dst, time.RFC3339), `"}`...)
	}
	dst = appendString(append(dst, `{"id":`...), m.ID)
	dst = strconv.AppendInt(append(dst, `,"object":"model","created":`...), m.Created, 10)
	dst = appendString(append(dst, `,"owned_by":`...), m.OwnedBy)
	return append(dst, '}')
}
