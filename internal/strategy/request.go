package strategy

import (
	"slices"
	"time"
)

// RegionMode says what a request's region means.
type RegionMode uint8

// The region modes.
const (
	// RegionDefault leaves it to the policy.
	RegionDefault RegionMode = iota
	// RegionPrefer takes the nearest region that has an available head.
	RegionPrefer
	// RegionRequire takes heads of the region or none.
	RegionRequire
)

// MaxAlternatives is the most heads that a decision names beside the chosen one.
const MaxAlternatives = 3

var regionModeNames = [...]string{"", "prefer", "require"}

func (m RegionMode) String() string { return regionModeNames[m] }

// ParseRegionMode reads prefer or require.
func ParseRegionMode(s string) (RegionMode, bool) {
	i := slices.Index(regionModeNames[1:], s)
	return RegionMode(i + 1), i >= 0
}

// Request asks for a head. A decision keeps none of its memory, so a caller may
// reuse it.
type Request struct {
	ModelType    string
	Region       string // "": any
	RegionMode   RegionMode
	Strategy     string        // "": the policy's
	SessionKey   string        // "": none
	SessionID    string        // the conversation that the request continues; "": unknown
	Turn         int64         // of the conversation; 0: its first, or unknown
	Returns      time.Duration // until the next request of the conversation is expected, at least 1; 0: unknown
	PrefixHashes []uint64      // of the prompt's blocks, as prefix.Chain makes them
	PromptBytes  int64         // the length of the text that they are of; 0: unknown
	BlockTokens  int32         // how many tokens a block has, where all have as many; 0: as prefix.Chain has them
	Scope        uint64        // of what caches are shared for: the adapter, the cache salt and the tenant, hashed; 0: none of them
	InputTokens  int64         // 0: unknown
	TTL          time.Duration // of the reservation; 0: the default
	Held         bool          // the reservation lasts until the caller ends it by Router.End, and has no TTL
	Waits        bool          // a request that finds no head may wait, and be decided again: so that is not counted or kept
	Queued       time.Duration // that it has waited for a place
	SkipAway     bool          // heads that asked for a pause (fleet.Live.StayAway) are no candidates, not even the last
	Exclude      []string      // ids of heads not to take
	Labels       map[string]string
	Explain      bool
	Reads        bool    // the caller may read the fleet, and so has decisions explained without the policy's leave
	Source       *Source // of a request of the data plane; decisions keep it, and nothing changes it
	Caller       uint32  // who it is for: access.Principal.Mark
}

// Source is what its decisions keep of a request of the data plane.
type Source struct {
	RequestID string
	Received  time.Time
}
