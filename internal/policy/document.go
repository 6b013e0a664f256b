package policy

import (
	"github.com/go-json-experiment/json"

	"headway/internal/strict"
)

// Document is a policy as people write it and stores keep it: which strategy
// serves which traffic.
type Document struct {
	DefaultStrategy string                 `json:"default_strategy"` // of requests that no rule matches
	Rules           []Rule                 `json:"rules,omitempty"`  // the first that matches wins; at most maxRules
	Regions         map[string]RegionDoc   `json:"regions,omitempty"`
	Strategies      map[string]StrategyDoc `json:"strategies,omitempty"`  // parameters by strategy, for each of its uses
	Aliases         map[string]string      `json:"aliases,omitempty"`     // other names of model types; at most maxAliases
	Fallbacks       []Fallback             `json:"fallbacks,omitempty"`   // the first that matches counts; at most maxFallbacks
	Pools           map[string]PoolDoc     `json:"pools,omitempty"`       // bounds by model type; at most maxPools
	Hedge           *Hedge                 `json:"hedge,omitempty"`       // nil: no request is
	Shadow          []string               `json:"shadow,omitempty"`      // strategies that are asked beside; at most strategy.MaxShadows
	ShadowShare     float64                `json:"shadow_share,omitzero"` // of the decisions for which they are; 0: usualShadowShare
	CallerMay       []string               `json:"caller_may"`            // what requests may choose themselves, of callerFields
}

// Rule says how the requests that match are served.
type Rule struct {
	Match      Match          `json:"match"`
	Strategy   string         `json:"strategy"`
	RegionMode string         `json:"region_mode,omitempty"` // prefer or require; "": prefer
	Parameters map[string]any `json:"parameters,omitempty"`  // override those of Document.Strategies
}

// Match selects requests by patterns in which * stands for any characters and
// ? for one. An empty pattern matches everything.
type Match struct {
	ModelType string `json:"model_type,omitempty"` // after aliases are resolved
	Region    string `json:"region,omitempty"`     // only * matches a request that names no region
}

// RegionDoc is what a policy knows of a region.
type RegionDoc struct {
	// DistancesMs are the distances to other regions in ms, 0 to maxDistanceMs.
	// They hold for the way back too, unless that is given.
	DistancesMs map[string]float64 `json:"distances_ms"`
}

// StrategyDoc is what a policy says of a strategy.
type StrategyDoc struct {
	Parameters map[string]any `json:"parameters,omitempty"`
}

// PoolDoc bounds the heads of one model type together.
type PoolDoc struct {
	MaxInFlight int64 `json:"max_in_flight,omitzero"` // requests at once that this process places; 0: no bound
}

// Bounds of a policy document.
const (
	MaxBytes      = 1 << 20 // of the text
	maxRules      = 1000
	maxRegions    = 200 // distinct ones in the table of distances
	maxAliases    = 1000
	maxPools      = 1000
	maxPoolPlaces = 1e9
	maxDistanceMs = 1e6
)

// callerFields are what caller_may may name: fields of a request, and hints of a
// proxied one (region, session, priority).
var callerFields = []string{"strategy", "region_mode", "exclude", "labels", "explain", "region", "session", "priority"}

// Default is the policy of a fresh installation: the best general strategy for
// every request, and callers may choose all that a policy can let them choose.
func Default() *Policy {
	p, faults := Compile(Document{DefaultStrategy: "adaptive", CallerMay: callerFields})
	if len(faults) > 0 {
		panic(strict.Invalid(faults)) // a fault of this file
	}
	return p
}

// encode writes the document as compact JSON, always the same for equal
// documents: fields in the order of the type, names of objects sorted.
func (d Document) encode() ([]byte, error) {
	if d.CallerMay == nil {
		d.CallerMay = []string{}
	}
	return json.Marshal(d, json.Deterministic(true))
}
