package boltstore

import "time"

// Seal lets tests write a record with its checksum, and CheckPages check a file
// that another program wrote.
var (
	Seal       = seal
	CheckPages = checkPages
)

// LookedLongAgo lets the store believe that the disk was full when it looked
// last, over a second ago.
func LookedLongAgo(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free, s.lookedAt = 0, s.lookedAt.Add(-2*time.Second)
}
