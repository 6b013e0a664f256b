package access

import "crypto/sha256"

// Remember remembers a token as one that was checked.
func (i *OIDC) Remember(token string, p *Principal) {
	i.remember(sha256.Sum256([]byte(token)), p, i.o.Now())
}

// Remembered is how many tokens are remembered.
func (i *OIDC) Remembered() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.known)
}

// Remembered is how many addresses are known.
func (g *Guard) Remembered() int {
	n := 0
	for _, t := range []*addresses{g.requests, g.failures.keys, g.failures.tokens, g.openings.keys, g.openings.tokens} {
		t.mu.Lock()
		n += len(t.seen)
		t.mu.Unlock()
	}
	return n
}
