//go:build race

package routing

// raceEnabled says that the race detector makes this run slow and lets pools
// forget.
const raceEnabled = true
