package trail

import (
	"errors"
	"io/fs"
	"os"

	"headway/internal/audit"
)

// open opens a file that was listed. renamed is set when another file, or none,
// has its name by now.
func open(f *audit.File) (in *audit.Reader, renamed bool, err error) {
	in, err = f.Open()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, true, nil
	case err != nil:
		return nil, false, err
	case !os.SameFile(in.Info, f.Info):
		return nil, true, in.Close()
	}
	return in, false, nil
}
