package audit

import (
	"errors"
	"os"
	"syscall"
)

// datasync returns when what was written to f, and its size, are on the disk.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
