package strict

import "strings"

// Element compares the first element of a pattern with a byte; size is that of
// the element. Neither stars nor an empty pattern are given to it.
type Element func(pattern string, c byte) (ok bool, size int)

// Literal is an element of one byte, which stands for itself.
func Literal(pattern string, c byte) (ok bool, size int) { return pattern[0] == c, 1 }

// Question is Literal, but ? stands for any byte.
func Question(pattern string, c byte) (ok bool, size int) {
	return pattern[0] == c || pattern[0] == '?', 1
}

// Match reports whether text has the form of the pattern, in which * stands for
// any bytes and every other element for one. It takes at most the product of
// both lengths.
func Match(pattern, text string, element Element) bool {
	p, t := 0, 0
	star, from := -1, 0 // the last star, and where what follows it is tried
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, from = p, t
			continue
		}
		if p < len(pattern) {
			if ok, size := element(pattern[p:], text[t]); ok {
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

// Covers reports whether wide, of literals, ? and *, matches all that narrow
// does. It is exact when it says yes, and may miss a yes that takes more than one
// star of wide to show.
func Covers(wide, narrow string) bool {
	return Match(wide, narrow, func(pattern string, c byte) (bool, int) {
		return pattern[0] == c || pattern[0] == '?' && c != '*', 1
	})
}
