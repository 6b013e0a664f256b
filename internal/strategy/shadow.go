package strategy

// MaxShadows is how many strategies can be asked beside the one that decides.
const MaxShadows = 3

// Before is what a choice changes of an Input.
type Before struct {
	tiers                     []Tier
	at, shadow                int
	rand                      Rand
	fullOnly, passed, keyless bool
	recalled                  Recalled
}

// Before is what Restore takes back to.
func (in *Input) Before() Before {
	return Before{
		tiers: in.Tiers, at: in.At, shadow: in.shadow, rand: in.Rand,
		fullOnly: in.FullOnly, passed: in.Passed, keyless: in.Keyless, recalled: in.Recalled,
	}
}

// Restore takes in back to what it was.
func (in *Input) Restore(b *Before) {
	in.Tiers, in.At, in.shadow, in.Rand = b.tiers, b.at, b.shadow, b.rand
	in.FullOnly, in.Passed, in.Keyless, in.Recalled = b.fullOnly, b.passed, b.keyless, b.recalled
}

// Shadow prepares for the choice of another strategy, which has turns and random
// numbers of its own: n is 1 to MaxShadows.
func (in *Input) Shadow(n int) {
	in.shadow, in.Rand = n, Rand{Mix(in.Rand.state, uint64(n))}
	in.At, in.FullOnly, in.Passed = 0, false, false
	in.ForgetSession()
}
