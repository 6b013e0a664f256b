package openai

import (
	"slices"
	"strconv"
	"strings"
)

// ModelEntry is one model of the list.
type ModelEntry struct {
	ID string
	// Created is in seconds since 1970; the caller keeps it stable.
	Created int64
	OwnedBy string
}

// AppendModels writes the list of models: each id once, with its least Created,
// sorted by id. It sorts entries in place.
func AppendModels(dst []byte, entries []ModelEntry) []byte {
	slices.SortFunc(entries, func(a, b ModelEntry) int {
		if c := strings.Compare(a.ID, b.ID); c != 0 {
			return c
		}
		return int(max(-1, min(1, a.Created-b.Created)))
	})
	dst = append(dst, `{"object":"list","data":[`...)
	for i := range entries {
		if i > 0 && entries[i].ID == entries[i-1].ID {
			continue
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = entries[i].Append(dst)
	}
	return append(dst, "]}"...)
}

// Append writes one model as its own answer.
func (m ModelEntry) Append(dst []byte) []byte {
	dst = appendString(append(dst, `{"id":`...), m.ID)
	dst = strconv.AppendInt(append(dst, `,"object":"model","created":`...), m.Created, 10)
	dst = appendString(append(dst, `,"owned_by":`...), m.OwnedBy)
	return append(dst, '}')
}
