package audit

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// suffixFormat is what the journal appends to the name of a file that it closes.
const suffixFormat = "20060102T150405.000Z"

// rotatedSuffix is what follows the path in the name of a closed file: the
// journal's own, or a number or date of logrotate's, compressed or not.
var rotatedSuffix = regexp.MustCompile(`^[-.][0-9][0-9TZ._-]*(\.gz)?$`)

// ownSuffix is what the journal itself appends.
var ownSuffix = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{3}Z(\.gz)?$`)

// trailFile is one file of a trail.
type trailFile struct {
	path  string
	info  fs.FileInfo
	first uint64 // sequence that it begins with, 0 if none of its first lines is a record
	began string // time of that record, "" if it is not sound
}

// listTrail finds the files of the trail under path, in the order of their
// sequences; those that begin with no record come last. Empty ones are left
// out, and compressed ones that also stand there uncompressed.
func listTrail(ctx context.Context, path string) ([]trailFile, error) {
	names, err := trailNames(path)
	if err != nil {
		return nil, err
	}
	var files []trailFile
	for range 10 {
		if files, err = describeAll(ctx, filepath.Dir(path), names); err != nil {
			return nil, err
		}
		// A file that was renamed meanwhile may have been seen twice or not at all.
		again, err := trailNames(path)
		if err != nil {
			return nil, err
		}
		if maps.Equal(names, again) {
			break
		}
		names = again
	}
	slices.SortFunc(files, func(a, b trailFile) int {
		switch {
		case a.first-1 != b.first-1 && a.first-1 < b.first-1: // 0 is the largest
			return -1
		case a.first != b.first:
			return 1
		}
		return strings.Compare(a.path, b.path)
	})
	return files, nil
}

// trailNames are the names of the files of a trail.
func trailNames(path string) (map[string]bool, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list the files of the audit trail: %w", err)
	}
	names := make(map[string]bool)
	for _, e := range entries {
		if suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(path)); ok && (suffix == "" || rotatedSuffix.MatchString(suffix)) {
			names[e.Name()] = true
		}
	}
	return names, nil
}

func describeAll(ctx context.Context, dir string, names map[string]bool) ([]trailFile, error) {
	files := make([]trailFile, 0, len(names))
	for name := range names {
		if plain, ok := strings.CutSuffix(name, ".gz"); ok && names[plain] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := describe(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if f.info.Mode().IsRegular() && f.info.Size() > 0 {
			files = append(files, f)
		}
	}
	return files, nil
}

// describeBytes is how far a file is read for a line that is sound.
const describeBytes = 1 << 20

// describe looks at a file.
func describe(path string) (trailFile, error) {
	file := trailFile{path: path}
	info, err := os.Stat(path)
	if err != nil {
		return file, fmt.Errorf("look at the audit trail: %w", err)
	}
	if file.info = info; !info.Mode().IsRegular() || info.Size() == 0 {
		return file, nil
	}
	in, err := file.reader()
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return file, nil // whoever reads all of it will say so
	}
	if err != nil {
		return file, err
	}
	defer func() { _ = in.Close() }() // it was only read
	file.info = in.info
	l := newLines(io.LimitReader(in, describeBytes), 64<<10)
	for {
		line, state, err := l.next()
		if err != nil || state == torn {
			return file, nil
		}
		seq, sound, _, _ := inspect(line)
		if file.first == 0 {
			file.first = seq
		}
		if sound {
			if m, ok := split(line); ok {
				file.began = string(m.time)
			}
			file.first = seq
			return file, nil
		}
	}
}

// trailReader reads one file from its beginning, uncompressed.
type trailReader struct {
	io.Reader
	file *os.File
	info fs.FileInfo // of what was opened, which may be another file by now
}

// Close closes the file.
func (r *trailReader) Close() error { return r.file.Close() }

func (f *trailFile) compressed() bool { return strings.HasSuffix(f.path, ".gz") }

// listed opens the file that was listed. renamed is set when another one, or
// none, has its name by now.
func (f *trailFile) listed() (in *trailReader, renamed bool, err error) {
	in, err = f.reader()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, true, nil
	case err != nil:
		return nil, false, err
	case !os.SameFile(in.info, f.info):
		return nil, true, in.Close()
	}
	return in, false, nil
}

func (f *trailFile) reader() (*trailReader, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r := &trailReader{Reader: file, file: file, info: info}
	if f.compressed() {
		if r.Reader, err = gzip.NewReader(bufio.NewReaderSize(file, 256<<10)); err != nil {
			return nil, fmt.Errorf("uncompress %s: %w", f.path, errors.Join(err, file.Close()))
		}
	}
	return r, nil
}

// lines reads a file line by line.
type lines struct {
	r    *bufio.Reader
	n    uint64 // number of the line that was read last
	read int64  // bytes, newlines included
}

func newLines(r io.Reader, buffer int) *lines { return &lines{r: bufio.NewReaderSize(r, buffer)} }

// lineState is how a line ends.
type lineState int

const (
	whole    lineState = iota
	torn               // the file ends without a newline
	overlong           // no record is that long; the rest of it was skipped
)

// next returns a line without its newline, valid until the next call, which may
// be written to. The error is io.EOF after the last.
func (l *lines) next() (line []byte, state lineState, err error) {
	line, err = l.r.ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return nil, whole, err
	}
	l.n++
	l.read += int64(len(line))
	switch {
	case err == nil:
		return line[:len(line)-1], whole, nil
	case errors.Is(err, io.EOF):
		return line, torn, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, whole, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.r.ReadSlice('\n')
		l.read += int64(len(line))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, whole, err
	}
	return nil, overlong, nil
}

// inspect reads the sequence and the hashes of a line, and reports whether the
// line has the hash that it names. seq is 0 and the hashes are nil if the line
// does not begin or end as a record.
func inspect(line []byte) (seq uint64, sound bool, prev, hash []byte) {
	if len(line) < len(lineHead)+lineTail || len(line) >= MaxLine || string(line[:len(lineHead)]) != lineHead {
		return 0, false, nil, nil
	}
	for i := len(lineHead); line[i] >= '0' && line[i] <= '9' && i < len(lineHead)+20; i++ {
		seq = seq*10 + uint64(line[i]-'0')
	}
	tail := line[len(line)-lineTail:]
	prevEnd := len(prevKey) + hashLen
	if string(tail[:len(prevKey)]) != prevKey || tail[prevEnd] != '"' ||
		string(tail[prevEnd+1:prevEnd+1+len(hashKey)]) != hashKey || string(tail[lineTail-2:]) != `"}` {
		return seq, false, nil, nil
	}
	prev, hash = tail[len(prevKey):prevEnd], tail[prevEnd+1+len(hashKey):lineTail-2]
	return seq, sumOf(line) == [hashLen]byte(hash), prev, hash
}
