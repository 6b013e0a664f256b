package workload

import (
	"fmt"
	"strconv"
	"strings"

	"headway/internal/strict"
)

// parameter is one of a generator's, a number.
type parameter struct {
	name        string
	usual       float64
	least, most float64
	does        string
}

// parameters are values by name.
type parameters map[string]float64

func (p parameters) whole(name string) int { return int(p[name]) }

// readParameters reads "name=value,…"; those left out have their usual values.
func readParameters(of, text string, known []parameter) (parameters, error) {
	values := parameters{}
	var names []string
	for _, k := range known {
		values[k.name] = k.usual
		names = append(names, k.name)
	}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if _, is := values[name]; !is {
			return nil, fmt.Errorf("%s: %s", of, strict.Unknown("parameter", name, names))
		}
		v, err := strconv.ParseFloat(value, 64)
		for _, k := range known {
			if k.name == name && (err != nil || !(v >= k.least && v <= k.most)) {
				return nil, fmt.Errorf("%s: %s=%s: want a number from %v to %v", of, name, value, k.least, k.most)
			}
		}
		values[name] = v
	}
	return values, nil
}
