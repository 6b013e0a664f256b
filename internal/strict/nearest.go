package strict

import "strings"

// maxName is the longest name that is compared, in bytes.
const maxName = 64

// Nearest returns the known name that differs least from name, case aside, or
// "" when none is nearer than a third of its length or name is longer than 64
// bytes.
func Nearest(name string, known []string) string {
	best, least := "", 1+most(name)
	if len(name) > maxName {
		return ""
	}
	for _, k := range known {
		if !Comparable(name, k) {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k), least); d < least {
			best, least = k, d
		}
	}
	return best
}

// most is how much a name may differ from the one that was meant.
func most(name string) int { return max(1, len(name)/3) }

// Comparable reports whether the lengths of the two allow that Nearest finds
// known for name.
func Comparable(name, known string) bool {
	d := len(name) - len(known)
	return len(name) <= maxName && max(d, -d) <= most(name)
}

// distance is the number of bytes to insert, delete, replace or swap with their
// neighbour that make b of a (optimal string alignment), or limit or more when it is
// not less than that.
func distance(a, b string, limit int) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			least = min(least, row[j+1])
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		if least > limit { // a swap costs one and looks two rows back
			return least
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
