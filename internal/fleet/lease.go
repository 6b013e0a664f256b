package fleet

import "time"

// LeaseIntervals is how many intervals after its last report a lease ends.
const LeaseIntervals = 3

// Lease is what a head is given with each registration and report.
type Lease struct {
	Epoch             uint64
	TTL               time.Duration // after the last report; then the head takes no new requests
	HeartbeatInterval time.Duration // until the next report
	ExpiresAt         time.Time
}

// StatusReport is what a head says of itself now.
type StatusReport struct {
	Epoch    uint64 // of the lease
	Status   Status
	Load     Load   // within the bounds
	Sequence uint64 // grows with each report of an epoch; 0: the head does not number them
}

// HeadState is the data of an event about a head.
type HeadState struct {
	Status     string `json:"status"`
	AdminState string `json:"admin_state"`
	Health     string `json:"health"`
	Routable   bool   `json:"routable"`
	Epoch      uint64 `json:"epoch"`
}
