package access

import (
	"crypto/sha256"
	"time"
)

// Remember remembers a token as one that was checked.
func (g *Guard) Remember(token string, p *Principal, now time.Time) {
	g.remember(sha256.Sum256([]byte(token)), p, now)
}

// RememberedTokens is how many tokens are remembered.
func (g *Guard) RememberedTokens() int { return len(g.tokens.kept) }

// RememberedAddresses is how many addresses are known.
func (g *Guard) RememberedAddresses() int {
	n := 0
	for _, t := range []*addresses{g.requests, g.failures.keys, g.failures.tokens, g.openings.keys, g.openings.tokens} {
		n += len(t.buckets.kept)
	}
	return n
}
