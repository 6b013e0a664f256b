//go:build !linux

package cli

// clock cannot ask this system.
func (f *findings) clock() {
	f.warn("clock", "whether somebody keeps it right cannot be told on this system", "")
}
