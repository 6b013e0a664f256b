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

const suffixFormat = "20060102T150405.000Z"

// rotatedSuffix matches rotated files, of the journal or of logrotate.
var rotatedSuffix = regexp.MustCompile(`^[-.][0-9][0-9TZ._-]*(\.gz)?$`)

// ownSuffix matches the journal's own rotated files.
var ownSuffix = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{3}Z(\.gz)?$`)

// File is one file of a trail.
type File struct {
	Path  string
	Info  fs.FileInfo
	First uint64 // sequence that it begins with, 0 if none of its first lines is a record
	Began string // time of that record, "" if it is not sound
}

// Files lists the files of the trail under path by sequence, files without a
// record last. Empty files, and compressed copies of listed files, are skipped.
func Files(ctx context.Context, path string) ([]File, error) {
	names, err := trailNames(path)
	if err != nil {
		return nil, err
	}
	var files []File
	for range 10 {
		if files, err = describeAll(ctx, filepath.Dir(path), names); err != nil {
			return nil, err
		}
		// A rename during the listing may show a file twice or not at all.
		again, err := trailNames(path)
		if err != nil {
			return nil, err
		}
		if maps.Equal(names, again) {
			break
		}
		names = again
	}
	slices.SortFunc(files, func(a, b File) int {
		switch {
		case a.First-1 != b.First-1 && a.First-1 < b.First-1: // 0 is the largest
			return -1
		case a.First != b.First:
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	return files, nil
}

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

func describeAll(ctx context.Context, dir string, names map[string]bool) ([]File, error) {
	files := make([]File, 0, len(names))
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
		if f.Info.Mode().IsRegular() && f.Info.Size() > 0 {
			files = append(files, f)
		}
	}
	return files, nil
}

// describeBytes is how far a file is searched for a sound line.
const describeBytes = 1 << 20

func describe(path string) (File, error) {
	file := File{Path: path}
	info, err := os.Stat(path)
	if err != nil {
		return file, fmt.Errorf("look at the audit trail: %w", err)
	}
	if file.Info = info; !info.Mode().IsRegular() || info.Size() == 0 {
		return file, nil
	}
	in, err := file.Open()
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return file, nil // reading all of it finds that
	}
	if err != nil {
		return file, err
	}
	defer func() { _ = in.Close() }() // it was only read
	file.Info = in.Info
	l := NewLines(io.LimitReader(in, describeBytes), 64<<10)
	for {
		line, state, err := l.Next()
		if err != nil || state == Torn {
			return file, nil
		}
		seq, sound, _, _ := Inspect(line)
		if file.First == 0 {
			file.First = seq
		}
		if sound {
			if m, ok := Split(line); ok {
				file.Began = string(m.Time)
			}
			file.First = seq
			return file, nil
		}
	}
}

// Reader reads one file from the start, decompressed.
type Reader struct {
	io.Reader
	File *os.File
	Info fs.FileInfo // of what was opened, which may be another file by now
}

// Close closes the file.
func (r *Reader) Close() error { return r.File.Close() }

// Compressed reports whether the file is one of gzip.
func (f *File) Compressed() bool { return strings.HasSuffix(f.Path, ".gz") }

// Open opens the file from its beginning.
func (f *File) Open() (*Reader, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r := &Reader{Reader: file, File: file, Info: info}
	if f.Compressed() {
		if r.Reader, err = gzip.NewReader(bufio.NewReaderSize(file, 256<<10)); err != nil {
			return nil, fmt.Errorf("uncompress %s: %w", f.Path, errors.Join(err, file.Close()))
		}
	}
	return r, nil
}

// Lines reads a file line by line.
type Lines struct {
	r    *bufio.Reader
	N    uint64 // number of the line that was read last
	Read int64  // bytes, newlines included
}

// NewLines reads from r by a buffer of so many bytes.
func NewLines(r io.Reader, buffer int) *Lines { return &Lines{r: bufio.NewReaderSize(r, buffer)} }

// LineState is how a line ends.
type LineState int

// The states.
const (
	Whole    LineState = iota
	Torn               // the file ends without a newline
	Overlong           // no record is that long; the rest of it was skipped
)

// Next returns a line without its newline, valid and writable until the next
// call. The error is io.EOF after the last.
func (l *Lines) Next() (line []byte, state LineState, err error) {
	line, err = l.r.ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return nil, Whole, err
	}
	l.N++
	l.Read += int64(len(line))
	switch {
	case err == nil:
		return line[:len(line)-1], Whole, nil
	case errors.Is(err, io.EOF):
		return line, Torn, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, Whole, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.r.ReadSlice('\n')
		l.Read += int64(len(line))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, Whole, err
	}
	return nil, Overlong, nil
}

// Inspect reads the sequence and hashes of a line; sound says whether the hash
// fits. seq is 0 and the hashes nil if the line is not a record.
func Inspect(line []byte) (seq uint64, sound bool, prev, hash []byte) {
	if len(line) < len(lineHead)+lineTail || len(line) >= MaxLine || string(line[:len(lineHead)]) != lineHead {
		return 0, false, nil, nil
	}
	for i := len(lineHead); line[i] >= '0' && line[i] <= '9' && i < len(lineHead)+20; i++ {
		seq = seq*10 + uint64(line[i]-'0')
	}
	tail := line[len(line)-lineTail:]
	prevEnd := len(prevKey) + HashLen
	if string(tail[:len(prevKey)]) != prevKey || tail[prevEnd] != '"' ||
		string(tail[prevEnd+1:prevEnd+1+len(hashKey)]) != hashKey || string(tail[lineTail-2:]) != `"}` {
		return seq, false, nil, nil
	}
	prev, hash = tail[len(prevKey):prevEnd], tail[prevEnd+1+len(hashKey):lineTail-2]
	return seq, sumOf(line) == [HashLen]byte(hash), prev, hash
}
