package routing

// Newest is the sequence of the newest decision, 0 before the first.
func (r *Router) Newest() uint64 { return r.recent.sequence.Load() }

// Since appends to list the decisions after the one with the given sequence,
// oldest first and at most limit of them. It returns the sequence up to which
// it looked, and how many decisions before that it could not give: those that
// the ring no longer has.
func (r *Router) Since(sequence uint64, limit int, list []*Decision) (_ []*Decision, seen, lost uint64) {
	return r.recent.since(sequence, limit, list)
}

func (r *reservations) since(sequence uint64, limit int, list []*Decision) (_ []*Decision, seen, lost uint64) {
	newest := r.sequence.Load()
	if size := uint64(len(r.slots)); newest > size && sequence < newest-size {
		lost = newest - size - sequence
		sequence = newest - size
	}
	for n := 0; sequence < newest && n < limit; n++ {
		d := r.slot(sequence + 1).Load()
		if d == nil || d.sequence < sequence+1 {
			break // numbered, and about to be stored
		}
		sequence++
		if d.sequence > sequence {
			lost++ // overwritten while we looked
			continue
		}
		list = append(list, d)
	}
	return list, sequence, lost
}
