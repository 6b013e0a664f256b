//go:build !linux

package cli

// clockFinding cannot tell on this system.
func clockFinding() finding {
	return finding{"clock", warning, "whether somebody keeps it right cannot be told on this system", ""}
}
