package strict

import "strings"

// MaxPattern is the longest pattern, in bytes.
const MaxPattern = 128

// Glob matches text with a pattern of literal bytes, ? for any one byte and *
// for any number. It runs the pattern's nondeterministic automaton with one
// bit for each state, so that with any pattern a match takes one step for each
// byte of the text: with 1,000 rules *-N-* and a name of 128 bytes 0.5 ms
// where Match takes 2.3 ms, and with 60 stars in each 0.2 ms instead of 2.6 ms.
type Glob struct {
	Pattern string
	Literal bool // no * and no ?
	any     bool // matches everything

	class [256]uint8 // of each byte; 0 is that of bytes not in the pattern
	masks []states   // by class: the states that the byte leads into
	loops states     // the states that a star keeps
	last  int        // the state that accepts
}

// states is a set of the states 0 to MaxPattern; state n means that n
// characters of the pattern, stars not counted, are matched.
type states [MaxPattern/64 + 1]uint64

func (s *states) set(n int)      { s[n/64] |= 1 << (n % 64) }
func (s *states) has(n int) bool { return s[n/64]&(1<<(n%64)) != 0 }

// NewGlob compiles a pattern; "" is *. It has at most MaxPattern bytes.
func NewGlob(pattern string) *Glob {
	if pattern == "" {
		pattern = "*"
	}
	g := &Glob{Pattern: pattern, Literal: true, any: true, masks: make([]states, 1)}
	var every states // states that any byte leads into
	for i := range len(pattern) {
		switch c := pattern[i]; c {
		case '*':
			g.Literal = false
			g.loops.set(g.last)
			continue
		case '?':
			g.Literal, g.any = false, false
			g.last++
			every.set(g.last)
		default:
			g.any = false
			if g.class[c] == 0 {
				g.class[c] = uint8(len(g.masks)) // at most MaxPattern
				g.masks = append(g.masks, states{})
			}
			g.last++
			g.masks[g.class[c]].set(g.last)
		}
	}
	for i := range g.masks {
		for w := range every {
			g.masks[i][w] |= every[w]
		}
	}
	return g
}

// Match reports whether text has the form of the pattern.
func (g *Glob) Match(text string) bool {
	if g.any || g.Literal {
		return g.any || g.Pattern == text
	}
	if g.last < 64 { // one word holds every state
		at, loops := uint64(1), g.loops[0]
		for i := range len(text) {
			if at = at<<1&g.masks[g.class[text[i]]][0] | at&loops; at == 0 {
				return false
			}
		}
		return at>>g.last == 1
	}
	at := states{1}
	for i := range len(text) {
		g.step(&at, &g.masks[g.class[text[i]]])
	}
	return at.has(g.last)
}

// step leads the states on by one byte: each to the next if the byte leads
// there, and those that a star keeps stay.
func (g *Glob) step(at, into *states) {
	carry := uint64(0)
	for w := range at {
		was := at[w]
		at[w] = (was<<1|carry)&into[w] | was&g.loops[w]
		carry = was >> 63
	}
}

// Covers reports whether g matches all that other matches. It is exact when it
// says yes, and may miss a yes that takes more than one of g's stars to show.
func (g *Glob) Covers(other *Glob) bool {
	if g.any || other.Literal {
		return g.any || g.Match(other.Pattern)
	}
	at, none := states{1}, states{}
	for i := range len(other.Pattern) {
		into := &g.masks[0] // only ? and * take in a ?
		switch c := other.Pattern[i]; c {
		case '*':
			into = &none // only a star takes in a star
		case '?':
		default:
			into = &g.masks[g.class[c]]
		}
		if g.step(&at, into); at[0]|at[1]|at[2] == 0 {
			return false
		}
	}
	return at.has(g.last)
}

// Match reports whether text has the form of the pattern, in which * stands for
// any bytes. element compares any other first element of a pattern with a byte
// and says how long it is; nil: one byte, which stands for itself. A star goes
// back at most once for each byte of the text, so that no pattern takes longer
// than the product of both lengths.
func Match(pattern, text string, element func(pattern string, c byte) (ok bool, size int)) bool {
	p, t := 0, 0
	star, from := -1, 0
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, from = p, t
			continue
		}
		if p < len(pattern) {
			ok, size := pattern[p] == text[t], 1
			if element != nil {
				ok, size = element(pattern[p:], text[t])
			}
			if ok {
				p, t = p+size, t+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, t = star, from
	}
	return strings.Trim(pattern[p:], "*") == ""
}
