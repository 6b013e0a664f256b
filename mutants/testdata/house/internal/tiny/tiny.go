// Package tiny is what the tests of the command change.
package tiny

// Below says whether n is below the limit.
func Below(n, limit int) bool {
	return n < limit
}

// Count counts to n.
func Count(n int) int {
	count := 0
	for count < n {
		count++
	}
	return count
}
