package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"headway/internal/strict"
)

// Bounds of what a head may say of itself. Those of numbers, and of the number of
// model types, are checked where they are read, the rest here.
const (
	MaxIDLength         = 128
	maxEndpointLength   = 512
	MaxModelTypeLength  = 128
	MaxModelTypesOfHead = 64 // of one head
	MaxNameLength       = 64 // of region, zone and version
	maxEngineLength     = 32
	MinWeight           = 0.001
	MaxWeight           = 1000.0
	HighestMaxInFlight  = 1_000_000
	MaxLabels           = 32
	maxLabelKey         = 63
	maxLabelValue       = 128
	MaxCount            = 1_000_000_000     // of requests, and of tokens a second; sums over a fleet do not overflow
	MaxTokens           = 1_000_000_000_000 // that wait, or fit a cache
)

// The characters of the names that heads register with.
const (
	NameCharacters      = letters + "._:-" // of ids, regions, zones and engines
	ModelTypeCharacters = NameCharacters + "/@+"

	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// Punctuation is the part of a set of characters above that is no letter and no
// digit.
func Punctuation(characters string) string { return strings.TrimLeft(characters, letters) }

// faults checks the parts of an input.
type faults struct{ strict.Faults }

func (f *faults) name(pointer, value string, longest int, characters string, required bool) {
	switch {
	case value == "" && required:
		f.Add(pointer, "is required")
	case len(value) > longest:
		f.Add(pointer, "has %d characters; at most %d are allowed", len(value), longest)
	case strings.Trim(value, characters) != "" || strings.ContainsFunc(value, func(r rune) bool { return !strings.ContainsRune(characters, r) }):
		f.Add(pointer, "may only have letters, digits and %s", Punctuation(characters))
	case value == "." || strings.Contains(value, ".."):
		f.Add(pointer, "must not be or contain a path step")
	}
}

// ValidateSpec checks a registration, fills in its defaults and brings the
// endpoint into its canonical form. The error is a *strict.InvalidError whose
// pointers lead into the body of the registration.
func ValidateSpec(s *Spec, allowLinkLocal bool) error {
	var f faults
	f.name("/id", s.ID, MaxIDLength, NameCharacters, true)
	switch {
	case s.Endpoint == "":
		f.Add("/endpoint", "is required")
	case len(s.Endpoint) > maxEndpointLength:
		f.Add("/endpoint", "has %d characters; at most %d are allowed", len(s.Endpoint), maxEndpointLength)
	default:
		canonical, wrong := canonicalEndpoint(s.Endpoint, allowLinkLocal)
		if s.Endpoint = canonical; wrong != "" {
			f.Add("/endpoint", "%s", wrong)
		}
	}
	if len(s.ModelTypes) == 0 {
		f.Add("/model_types", "must name at least one model type")
	}
	for i, m := range s.ModelTypes {
		pointer := fmt.Sprintf("/model_types/%d", i)
		f.name(pointer, m, MaxModelTypeLength, ModelTypeCharacters, true)
		if slices.Contains(s.ModelTypes[:i], m) {
			f.Add(pointer, "is named twice")
		}
	}
	f.name("/region", s.Region, MaxNameLength, NameCharacters, true)
	f.name("/zone", s.Zone, MaxNameLength, NameCharacters, false)
	f.name("/version", s.Version, MaxNameLength, ModelTypeCharacters, false)
	f.name("/engine", s.Engine, maxEngineLength, NameCharacters, false)
	s.Weight = cmp.Or(s.Weight, 1)
	f.labels("/labels", s.Labels)
	return strict.Invalid(f.Faults)
}

func (f *faults) labels(pointer string, labels map[string]string) {
	if len(labels) > MaxLabels {
		f.Add(pointer, "has %d labels; at most %d are allowed", len(labels), MaxLabels)
		return
	}
	for k, v := range labels {
		at := pointer + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		if k == "" || len(k) > maxLabelKey || !printable(k) {
			f.Add(at, "must have a name of 1 to %d printable ASCII characters", maxLabelKey)
		}
		if len(v) > maxLabelValue || !printable(v) {
			f.Add(at, "must have a value of at most %d printable ASCII characters", maxLabelValue)
		}
	}
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// ValidID reports whether a head can have the id.
func ValidID(id string) bool {
	var f faults
	f.name("", id, MaxIDLength, NameCharacters, true)
	return len(f.Faults) == 0
}

// ValidModelType reports whether a head can serve a model type of that name.
func ValidModelType(name string) bool {
	var f faults
	f.name("", name, MaxModelTypeLength, ModelTypeCharacters, true)
	return len(f.Faults) == 0
}

// CheckLabels returns what is wrong with labels, with pointers below pointer.
func CheckLabels(pointer string, labels map[string]string) []strict.Fault {
	var f faults
	f.labels(pointer, labels)
	return f.Faults
}
