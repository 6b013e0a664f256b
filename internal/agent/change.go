package agent

import (
	"log/slog"
	"reflect"
)

// Change is how a list differs from the one before it.
type Change struct{ Listed, Added, Removed, Changed int }

// LogValue implements slog.LogValuer.
func (c Change) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("listed", c.Listed), slog.Int("added", c.Added), slog.Int("removed", c.Removed), slog.Int("changed", c.Changed))
}

// changeOf compares two lists. They have what each element was made of, by its id or key.
func changeOf(before, after map[string]any) Change {
	c := Change{Listed: len(after)}
	for key, same := range after {
		switch was, known := before[key]; {
		case !known:
			c.Added++
		case !reflect.DeepEqual(was, same):
			c.Changed++
		}
	}
	c.Removed = len(before) + c.Added - len(after)
	return c
}

func madeOf(heads []Head) map[string]any {
	list := map[string]any{}
	for _, h := range heads {
		list[h.Registration.ID] = h.Same
	}
	return list
}
