//go:build !linux

package audit

import "os"

// datasync returns when what was written to f is on the disk.
func datasync(f *os.File) error { return f.Sync() }
