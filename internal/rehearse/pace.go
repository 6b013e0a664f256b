package rehearse

import "math"

// pace is a least squares fit of the predicted time to the first token, in ms: of
// something for each prompt, for each token ahead and of the prompt, and for each pair
// of a token and one that it attends to.
type pace struct {
	n   float64
	sum [terms][terms + 1]float64 // of products, of times in the last column
}

const terms = 3

// Units of the terms, so that their sums are alike.
var units = [terms]float64{1, 1e3, 1e6}

func (s *pace) add(tokens, pairs, ms float64) {
	x := [terms + 1]float64{1, tokens / units[1], pairs / units[2], ms}
	s.n++
	for i := range terms {
		for j := range x {
			s.sum[i][j] += x[i] * x[j]
		}
	}
}

// fit is how many ms a token and a pair take; ok is false where that is not known.
func (s *pace) fit() (token, pair float64, ok bool) {
	if s.n < LeastRequests {
		return 0, 0, false
	}
	c, ok := solved(s.sum, terms)
	if !ok || c[2] < 0 {
		c, ok = solved(s.sum, terms-1)
	}
	return c[1] / units[1], c[2] / units[2], ok && c[1] > 0
}

// solved solves the normal equations of the first n terms.
func solved(m [terms][terms + 1]float64, n int) (c [terms]float64, ok bool) {
	for i := range n {
		scale := m[i][i]
		for k := range i {
			f := m[i][k] / m[k][k]
			for j := range m[i] {
				m[i][j] -= f * m[k][j]
			}
		}
		if !(m[i][i] > 1e-9*scale) {
			return c, false
		}
	}
	for i := n - 1; i >= 0; i-- {
		c[i] = m[i][terms]
		for j := i + 1; j < n; j++ {
			c[i] -= m[i][j] * c[j]
		}
		if c[i] /= m[i][i]; math.IsNaN(c[i]) {
			return c, false
		}
	}
	return c, true
}
