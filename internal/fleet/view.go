package fleet

import "time"

// View is what an operator sees of a head.
type View struct {
	Head         *Head
	Record       Record
	Lease        Lease
	HealthReason string    // "" when there is nothing to say
	HealthUntil  time.Time // when the health changes if nothing happens; zero: it does not
	Report       *Report   // nil before the first
	ReportAge    time.Duration
	InFlight     int64
	Ejected      bool
	Paused       bool // its lease is well, and it asked for a pause
}
