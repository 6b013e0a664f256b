package boltstore

import (
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// release gives the pages of the file that were read so far back to the kernel,
// which keeps them as long as it has room: who has read the whole file once does
// not hold it in memory beside what was made of it. The transaction keeps the
// file mapped where it is. That the kernel refuses would change nothing.
func release(tx *bolt.Tx) {
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), syscall.MADV_DONTNEED)
}
