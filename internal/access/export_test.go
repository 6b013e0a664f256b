package access

// Remembered is how many addresses are known.
func (g *Guard) Remembered() int {
	n := 0
	for _, t := range []*addresses{g.requests, g.failures} {
		t.mu.Lock()
		n += len(t.seen)
		t.mu.Unlock()
	}
	return n
}
