package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"headway/internal/boltstore"
	"headway/internal/disk"
	"headway/internal/local"
	"headway/internal/terminal"
)

// Least free space and open files that let a service run at ease.
const (
	leastFree  = 1 << 30
	leastFiles = 20_000
)

func (f *findings) disk(check, dir string) {
	free, err := disk.Free(dir)
	if err != nil {
		f.warn(check, dir+": "+err.Error(), "name the data directory with --data-dir")
		return
	}
	detail := fmt.Sprintf("%s has %.1f GiB free", dir, float64(free)/(1<<30))
	if free < leastFree {
		f.warn(check, detail, "make room: below state.min_free_bytes nothing more is written")
	} else {
		f.fine(check, detail)
	}
}

var openFiles = regexp.MustCompile(`(?m)^Max open files +(\d+|unlimited) `)

// fileLimit reads the limit of the running service.
func (f *findings) fileLimit(pid int) {
	const check = "file limit"
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		f.warn(check, err.Error(), "run this as the user of the service")
		return
	}
	m := openFiles.FindSubmatch(raw)
	if m == nil {
		f.warn(check, "no limit was found", "")
		return
	}
	soft := string(m[1])
	if n, err := strconv.Atoi(soft); err == nil && n < leastFiles {
		f.warn(check, soft+" open files", "each connection takes one: raise it with LimitNOFILE= in the unit, or ulimit -n")
		return
	}
	f.fine(check, soft+" open files")
}

// state checks the state file of a service that does not run.
func (f *findings) state(dir string) {
	path := filepath.Join(dir, local.StateFile)
	if _, err := os.Stat(path); err != nil {
		f.warn("state file", "there is none at "+path, "the first start makes it; name another directory with --data-dir")
		return
	}
	switch report, err := boltstore.Check(path); {
	case err != nil:
		f.fault("state file", err.Error(), "see docs/operating.md, \"A damaged state file\"")
	case len(report.Faults) > 0:
		f.fault("state file", fmt.Sprintf("%s is damaged in %s", path, terminal.Count(len(report.Faults), "place")), "move it away and restore an export with 'headway state import FILE --data-dir "+dir+"'")
	default:
		f.fine("state file", path+" is sound")
	}
}
