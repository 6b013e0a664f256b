package registry

import (
	"maps"
	"slices"
	"strings"
	"unique"

	"headway/internal/fleet"
)

// shared lets heads that say the same share its memory: most heads of a fleet
// serve one of a few sets of model types and carry one of a few sets of labels,
// and a set of one label takes more memory than the rest of a head. What is
// shared is never changed in place.
type shared struct {
	modelTypes map[string][]string
	labels     map[string]map[string]string
}

// maxShared bounds each kind of sets; beyond it they begin anew.
const maxShared = 4096

// share replaces parts of s by equal ones of other heads.
func (t *shared) share(s *fleet.Spec) {
	for _, p := range []*string{&s.Region, &s.Zone, &s.Version, &s.Engine} {
		*p = unique.Make(*p).Value()
	}
	s.ModelTypes = same(&t.modelTypes, strings.Join(s.ModelTypes, "\n"), s.ModelTypes)
	if len(s.Labels) == 0 {
		return
	}
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		key.WriteString(name + "\n" + s.Labels[name] + "\n") // neither may hold a line break
	}
	s.Labels = same(&t.labels, key.String(), s.Labels)
}

// same returns the value that stands in the table under the key, v if it is the
// first.
func same[T any](table *map[string]T, key string, v T) T {
	if known, ok := (*table)[key]; ok {
		return known
	}
	if *table == nil || len(*table) >= maxShared {
		*table = map[string]T{}
	}
	(*table)[key] = v
	return v
}
