// Package disk measures free space, replaces files atomically and durably, and
// notices changes of files.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Free returns the bytes that may still be written to the file system of dir. A
// call takes two microseconds, so it may precede each write.
func Free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // outside Linux they are of other types
}

// Replace gives a file new content. When it returns nil, the file has it for
// good. After an error the file has its old content, except when only the sync
// of the directory failed: the new content is there then, but a failure of power
// may bring the old one back. One caller may replace a file at a time.
func Replace(file string, data []byte, mode fs.FileMode) error {
	return ReplaceWith(file, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// ReplaceWith is Replace with the content that write writes.
func ReplaceWith(file string, mode fs.FileMode, write func(io.Writer) error) error {
	return replace(file, mode, write, (*os.File).Sync)
}

func replace(file string, mode fs.FileMode, write func(io.Writer) error, sync func(*os.File) error) error {
	next := file + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a process that was killed
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(mode), sync(f), f.Close())
	if err == nil {
		err = os.Rename(next, file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(file), sync)
}

// SyncDir makes the names in a directory durable: after a creation, a rename or
// a removal.
func SyncDir(dir string) error { return syncDir(dir, (*os.File).Sync) }

func syncDir(dir string, sync func(*os.File) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(sync(d), d.Close())
}

// Version changes whenever a file is written, replaced, removed or made. It
// does not read the files.
func Version(files ...string) string {
	var b strings.Builder
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		inode := uint64(0)
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = stat.Ino
		}
		fmt.Fprintln(&b, info.ModTime().UnixNano(), info.Size(), inode)
	}
	return b.String()
}
