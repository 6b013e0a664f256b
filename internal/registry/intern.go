package registry

import (
	"maps"
	"slices"
	"strings"
	"unique"

	"headway/internal/fleet"
)

// interned lets heads with equal values have them in memory once: most heads of a
// fleet serve one of a few sets of model types and carry one of a few sets of
// labels, and a set of one label takes more memory than the rest of a head. The
// values are never changed in place.
type interned struct {
	modelTypes map[string][]string
	labels     map[string]map[string]string
}

// maxInterned bounds each kind of sets; beyond it they begin again.
const maxInterned = 4096

// intern replaces parts of s by equal ones of other heads.
func (t *interned) intern(s *fleet.Spec) {
	for _, p := range []*string{&s.Region, &s.Zone, &s.Version, &s.Engine} {
		*p = unique.Make(*p).Value()
	}
	s.ModelTypes = known(&t.modelTypes, strings.Join(s.ModelTypes, "\n"), s.ModelTypes)
	if len(s.Labels) == 0 {
		return
	}
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		key.WriteString(name + "\n" + s.Labels[name] + "\n") // neither may hold a line break
	}
	s.Labels = known(&t.labels, key.String(), s.Labels)
}

// known returns the value of the table with the key, v if it is the first.
func known[T any](table *map[string]T, key string, v T) T {
	if is, ok := (*table)[key]; ok {
		return is
	}
	if *table == nil || len(*table) >= maxInterned {
		*table = map[string]T{}
	}
	(*table)[key] = v
	return v
}
