//go:build !linux

package doctor

// clock cannot ask this system.
func (f *findings) clock() {
	f.warn("clock", "whether it is kept right cannot be read on this system", "")
}
