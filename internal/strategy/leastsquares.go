package strategy

import "math"

// paceTerms are what explains the time of a step: a constant, the tokens of its prompts, the
// attention over them, and the tokens at the head.
const paceTerms = 4

// leastSquares fits times to terms, and forgets. Coefficients are never negative.
type leastSquares struct {
	coefficients [paceTerms]float64 // s for each of the terms
	a            [paceTerms][paceTerms]float64
	b            [paceTerms]float64
	n            int
}

const (
	fitForgets = 0.999 // of a sample, with each that comes
	fitLeast   = 20    // samples before the first fit
	fitEvery   = 10    // samples
	fitFloor   = 0.01  // s, of the times by which samples are weighted
	fitRidge   = 1e-6
)

func (f *leastSquares) init() { f.coefficients = [paceTerms]float64{usualBase, usualToken} }

// restart forgets all samples, and keeps the coefficients until there are others.
func (f *leastSquares) restart() { *f = leastSquares{coefficients: f.coefficients} }

// model is what the fit says of a prompt that is computed with others, so many in all:
// the constant is theirs together.
func (f *leastSquares) model(together float64) *paceModel {
	c := f.coefficients
	c[0] /= together
	m := &paceModel{rest: c[0], token: c[1], beside: c[3]}
	if c[1] > 0 {
		m.attention, m.each = c[2]/c[1], min(c[0]/c[1], mostEach)
		m.rest -= m.each * c[1]
	}
	return m
}

func (f *leastSquares) predict(x *[paceTerms]float64) float64 {
	sum := 0.
	for i := range x {
		sum += f.coefficients[i] * x[i]
	}
	return max(sum, 1e-4)
}

// add adds a sample, and reports whether the coefficients were fitted again.
func (f *leastSquares) add(x *[paceTerms]float64, y float64) (fitted bool) {
	w := 1 / (f.predict(x) + fitFloor) // the error grows with the time
	for i := range x {
		for j := range x {
			f.a[i][j] = f.a[i][j]*fitForgets + w*x[i]*x[j]
		}
		f.b[i] = f.b[i]*fitForgets + w*x[i]*y
	}
	f.n++
	if fitted = f.n >= fitLeast && f.n%fitEvery == 0; fitted {
		f.solve()
	}
	return fitted
}

// solve leaves out one after the other the term whose coefficient is the most
// negative.
func (f *leastSquares) solve() {
	var out [paceTerms]bool
	for range paceTerms {
		c, ok := f.solveWithout(&out)
		if !ok {
			return
		}
		worst, least := -1, 0.
		for i := range c {
			if size := c[i] * math.Sqrt(f.a[i][i]); size < least {
				worst, least = i, size
			}
		}
		if worst < 0 {
			f.coefficients = c
			return
		}
		out[worst] = true
	}
}

// solveWithout solves the normal equations, scaled to a unit diagonal, by Cholesky's
// decomposition.
func (f *leastSquares) solveWithout(out *[paceTerms]bool) (c [paceTerms]float64, ok bool) {
	var scale [paceTerms]float64
	var l [paceTerms][paceTerms]float64
	for i := range scale {
		if scale[i] = math.Sqrt(f.a[i][i]); scale[i] == 0 {
			out[i] = true
		}
	}
	var z [paceTerms]float64
	for i := range l {
		if out[i] {
			continue
		}
		for j := range i + 1 {
			if out[j] {
				continue
			}
			sum := f.a[i][j] / scale[i] / scale[j]
			if i == j {
				sum += fitRidge
			}
			for k := range j {
				sum -= l[i][k] * l[j][k]
			}
			if i != j {
				l[i][j] = sum / l[j][j]
				continue
			}
			if sum <= 0 {
				return c, false
			}
			l[i][i] = math.Sqrt(sum)
		}
		z[i] = f.b[i] / scale[i]
		for k := range i {
			z[i] -= l[i][k] * z[k]
		}
		z[i] /= l[i][i]
	}
	for i := paceTerms - 1; i >= 0; i-- {
		if out[i] {
			continue
		}
		for k := i + 1; k < paceTerms; k++ {
			z[i] -= l[k][i] * z[k]
		}
		z[i] /= l[i][i]
		c[i] = z[i] / scale[i]
	}
	return c, true
}
