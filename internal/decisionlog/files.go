package decisionlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"headway/internal/disk"
)

// Names of files begin with when they were begun, so that their order is that of time.
const (
	filePrefix = "decisions-"
	fileSuffix = ".jsonl.gz"
	fileTime   = "20060102T150405.000000000Z"
)

// fileCount is how many files there are, so that the oldest part of the log goes by
// parts.
const fileCount = 16

// files are those of the log: chunks, one behind the other. A process appends to files
// that it began, since the last one of another may end within a chunk. It is used by one
// goroutine.
type files struct {
	dir     string
	most    int64 // bytes of all
	minFree int64
	bytes   int64    // of all
	now     *os.File // nil: the next chunk begins one
	size    int64    // of now
	failing bool
	newest  uint64 // no chunk that was there at first has a greater number
}

// coarse is by how much at most a file system says that a file is older than it is.
const coarse = 2 * time.Second

func openFiles(dir string, most, minFree int64) (*files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the decision log: %w", err)
	}
	f := &files{dir: dir, most: most, minFree: minFree}
	there, err := listFiles(dir)
	for i := range there {
		f.newest = max(f.newest, uint64(max(there[i].to.Add(coarse).UnixNano(), 0)))
	}
	return f, errors.Join(err, f.prune(0))
}

// write appends a chunk. After an error the file is as it was, or is not written any more.
func (f *files) write(c *chunk) error {
	size := int64(len(c.packed))
	if free, err := disk.Free(f.dir); err == nil && free < f.minFree+size {
		return fmt.Errorf("%d MiB are free on its disk, and %d MiB are left for what matters more", free>>20, f.minFree>>20)
	}
	if f.now != nil && f.size+size > f.most/fileCount {
		if err := f.close(); err != nil {
			return err
		}
	}
	if f.now == nil {
		if err := f.begin(c, size); err != nil {
			return err
		}
	}
	n, err := f.now.Write(c.packed)
	if err != nil {
		if n > 0 && f.now.Truncate(f.size) != nil {
			_ = f.close()
		}
		return fmt.Errorf("write the decision log: %w", err)
	}
	f.size += size
	f.bytes += size
	return nil
}

// begin begins a file for a chunk, and makes room for it.
func (f *files) begin(c *chunk, size int64) error {
	if err := f.prune(max(f.most/fileCount, size)); err != nil {
		return err
	}
	name := filePrefix + time.Unix(0, int64(c.number)).UTC().Format(fileTime) + fileSuffix
	now, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("begin a file of the decision log: %w", err)
	}
	f.now, f.size = now, 0
	return nil
}

// prune removes the oldest files until the others leave that much room.
func (f *files) prune(room int64) error {
	list, err := listFiles(f.dir)
	if err != nil {
		return err
	}
	f.bytes = 0
	for i := range list {
		f.bytes += list[i].size
	}
	for i := 0; i < len(list) && f.bytes > max(f.most-room, 0); i++ {
		if err := os.Remove(list[i].path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the oldest file of the decision log: %w", err)
		}
		f.bytes -= list[i].size
	}
	return nil
}

func (f *files) close() error {
	if f.now == nil {
		return nil
	}
	err := f.now.Close()
	f.now, f.size = nil, 0
	return err
}

// file is one of the files.
type file struct {
	path string
	size int64
	to   time.Time // of its last chunk
}

// listFiles are the files of a directory, oldest first.
func listFiles(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the files of the decision log: %w", err)
	}
	var all []file
	for _, e := range entries { // sorted by name
		if !strings.HasPrefix(e.Name(), filePrefix) || !strings.HasSuffix(e.Name(), fileSuffix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list the files of the decision log: %w", err)
		}
		all = append(all, file{filepath.Join(dir, e.Name()), info.Size(), info.ModTime()})
	}
	return slices.Clip(all), nil
}
