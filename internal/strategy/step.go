package strategy

import "time"

// step is what a head computed at once. An engine computes short prompts together, and
// their first tokens come together: the first of them took all of the time since the
// token before, and the others none. Counted one by one, a head whose prompts are
// computed with more others seems faster, and then gets more still.
type step struct {
	x       [paceTerms]float64 // once the constant and the tokens at the head, and the sum of the others of its prompts
	took    float64            // s
	prompts float64
	at      time.Time // of the first of its first tokens; 0: there is no step
}

// stepLeast is less than a step takes, and more than what first tokens of the same are
// apart where they arrive.
const stepLeast = 2 * time.Millisecond

// begins adds a first token. If it is that of another step than those before, it returns
// theirs, which is over.
func (s *step) begins(next step) (over step, is bool) {
	if !s.at.IsZero() && next.at.Sub(s.at).Abs() < stepLeast {
		s.took += next.took
		s.prompts++
		s.x[1] += next.x[1]
		s.x[2] += next.x[2]
		return step{}, false
	}
	over, *s = *s, next
	return over, !over.at.IsZero()
}
