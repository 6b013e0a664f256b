package trail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"headway/internal/audit"
)

// walk opens the files of a trail in order, oldest first or backward, while
// files may be rotated, renamed and compressed.
type walk struct {
	path     string
	after    uint64 // forward: begin with the file that has the record after this one; 0: with the oldest
	backward bool
	before   uint64 // backward: through files that begin before this record
	since    string // forward: leave out files whose records are all older
	damaged  bool   // with files that begin with no record

	file  audit.File    // the last one
	in    *audit.Reader // nil: it cannot be read
	lines *audit.Lines
	begun []byte       // of a line that has no end yet
	left  []audit.File // listed and not opened yet
	again bool         // the file was returned a second time
	found bool         // there is a file
	read  int64        // bytes of the files before
}

// checkEvery is how many lines are read between checks of the context.
const checkEvery = 256

// next opens the next file, or reports that there is none. If newer files
// appeared, the last file is returned once more for its rest. After an error
// with more, the next call continues behind that file.
func (w *walk) next(ctx context.Context) (more bool, err error) {
	if len(w.left) == 0 {
		if w.backward && w.found {
			return false, nil // new files are newer
		}
		if err := w.list(ctx); err != nil {
			return false, err
		}
		if len(w.left) > 0 && w.in != nil && !w.again {
			w.again = true
			return true, nil
		}
	}
	for range 5 {
		w.left = slices.DeleteFunc(w.left, func(f audit.File) bool { return w.backward && f.First >= w.before })
		if len(w.left) == 0 {
			return false, nil
		}
		f := w.left[0]
		in, err := f.Open()
		switch {
		case err == nil && os.SameFile(in.Info, f.Info):
			w.enter(f, in)
			return true, nil
		case err == nil:
			err = in.Close()
		case !errors.Is(err, fs.ErrNotExist):
			w.enter(f, nil)
			return true, err
		}
		if err := errors.Join(err, w.list(ctx)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, errors.New("read the audit trail: its files are renamed all the time")
}

func (w *walk) enter(f audit.File, in *audit.Reader) {
	if w.close(); w.found {
		w.read += w.file.Info.Size()
	}
	w.file, w.in, w.lines, w.begun, w.again, w.found, w.left = f, in, nil, nil, false, true, w.left[1:]
	w.before = f.First
	if in != nil {
		w.lines = audit.NewLines(in, 256<<10)
	}
}

func (w *walk) list(ctx context.Context) error {
	files, err := audit.Files(ctx, w.path)
	if err != nil {
		return err
	}
	if !w.damaged {
		files = slices.DeleteFunc(files, func(f audit.File) bool { return f.First == 0 })
	}
	switch {
	case w.backward:
		slices.Reverse(files)
	case w.found:
		files = slices.DeleteFunc(files, func(f audit.File) bool { return f.First-1 <= w.file.First-1 }) // 0 is the largest
	default:
		for len(files) > 1 && (w.after > 0 && files[1].First-1 <= w.after || files[1].Began != "" && files[1].Began < w.since) {
			files = files[1:]
		}
	}
	w.left = files
	return nil
}

func (w *walk) total() int64 {
	n := w.read + w.file.Info.Size()
	for _, f := range w.left {
		n += f.Info.Size()
	}
	return n
}

// line returns the next whole line without its newline, valid until the next
// call, or nil if there is none yet. Overlong lines are skipped.
func (w *walk) line() ([]byte, error) {
	for {
		line, state, err := w.lines.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("read the audit trail: %w", err)
		case state == audit.Torn: // it is being written, or was cut
			if len(w.begun) < audit.MaxLine {
				w.begun = append(w.begun, line...)
			}
			return nil, nil
		case state == audit.Overlong:
			w.begun = w.begun[:0]
			continue
		case len(w.begun) > 0:
			line = append(w.begun, line...)
			w.begun = line[:0]
		}
		return line, nil
	}
}

func (w *walk) close() {
	if w.in != nil {
		_ = w.in.Close() // it was only read
	}
}
