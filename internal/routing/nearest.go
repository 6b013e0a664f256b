package routing

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/strict"
)

// maxNearest bounds the names that a misspelt one is compared with, so that
// requests for unknown model types cost little. Names that begin alike come first.
const maxNearest = 32

// nearestModel is the model type or alias that was probably meant, "" for none.
func nearestModel(name string, p *policy.Policy, s *fleet.Snapshot) string {
	var known []string
	add := func(k string) {
		if strict.Comparable(name, k) {
			known = append(known, k)
		}
	}
	for k := range s.Pools {
		add(k)
	}
	for k := range p.Models() {
		add(k)
	}
	for k := range p.Document.Aliases {
		add(k)
	}
	slices.SortFunc(known, func(a, b string) int {
		return cmp.Or(alike(name, b)-alike(name, a), strings.Compare(a, b))
	})
	known = slices.Compact(known)
	return strict.Nearest(name, known[:min(len(known), maxNearest)])
}

// alike is how many bytes two names begin with alike.
func alike(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// maxRegions is how many regions one answer lists.
const maxRegions = 20

// KnownRegions are sentences on the regions of the fleet, for one who asked for another.
func (r *Router) KnownRegions(region string) string {
	list := slices.Sorted(maps.Keys(r.o.Fleet.Snapshot().Regions))
	if len(list) == 0 {
		return ""
	}
	meant := ""
	if near := strict.Nearest(region, list); near != "" {
		meant = " Did you mean " + near + "?"
	}
	more := ""
	if len(list) > maxRegions {
		list, more = list[:maxRegions], " and others"
	}
	return meant + " There are heads in " + strings.Join(list, ", ") + more + "."
}
