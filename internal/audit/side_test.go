package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"headway/internal/audit"
)

// The variables of a child process that opens a trail, writes a record and ends.
const (
	visitPath = "AUDIT_TEST_VISIT"
	visitSide = "AUDIT_TEST_VISIT_SIDE"
)

// visit is the child.
func visit() {
	log := &logbook{}
	j, err := audit.Open(audit.Options{Path: os.Getenv(visitPath), SideDir: os.Getenv(visitSide), Node: "child", Log: log.logger()})
	if err == nil {
		_, err = j.Record(context.Background(), audit.Result, change("policy.put"))
		err = errors.Join(err, j.Close())
	}
	fmt.Fprint(os.Stdout, log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// closedDir is a directory as /var/log is for a service: one file in it is its
// own, and it may make no others. The journal runs in a process without root's
// privileges, to which permissions say nothing.
type closedDir struct {
	*world
	side string
	who  *syscall.Credential // nil: we are not root ourselves
}

func newClosedDir(t *testing.T) *closedDir {
	w := newWorld(t)
	d := &closedDir{world: w, side: t.TempDir()}
	if err := os.WriteFile(w.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		if err := os.Chmod(filepath.Dir(w.path), 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Dir(w.path), 0o700) })
		return d
	}
	const otherUser = 65534
	d.who = &syscall.Credential{Uid: otherUser, Gid: otherUser}
	for _, dir := range []string{filepath.Dir(filepath.Dir(w.path)), filepath.Dir(w.path)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chown(w.path, otherUser, otherUser), os.Chown(d.side, otherUser, otherUser)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *closedDir) visit() (log string, err error) {
	// By this name a program is found that lies where another user may not go.
	child := exec.CommandContext(d.t.Context(), "/proc/self/exe", "-test.run=^$")
	child.Env = append(os.Environ(), visitPath+"="+d.path, visitSide+"="+d.side)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: d.who}
	var out, errs strings.Builder
	child.Stdout, child.Stderr = &out, &errs
	if err := child.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, &errs)
	}
	return out.String(), nil
}

// aside is a file of the trail in the side directory.
func (d *closedDir) aside(suffix string) string {
	return filepath.Join(d.side, strings.ReplaceAll(d.path[1:], "/", "-")+suffix)
}

// A service that owns its trail, and not the directory of it, starts after a
// kill and keeps checkpoints all the same.
func TestTheSideDirectoryTakesWhatTheTrailsDoesNot(t *testing.T) {
	d := newClosedDir(t)
	const begun = `{"v":1,"seq":9,"time":"2026-`
	for round := range 3 {
		log, err := d.visit()
		if err != nil {
			t.Fatalf("start %d: %v", round, err)
		}
		if strings.Contains(log, `"level":"WARN"`) || strings.Contains(log, `"level":"ERROR"`) {
			t.Fatalf("start %d: %s", round, log)
		}
		if round > 0 {
			if torn, err := os.ReadFile(d.aside(".torn")); err != nil || string(torn) != begun {
				t.Fatalf("aside is %q, %v", torn, err)
			}
			starts := of("audit.start", d.records())
			if reason := starts[len(starts)-1].Reason; !strings.Contains(reason, fmt.Sprintf("the %d bytes are in %s", len(begun), d.aside(".torn"))) {
				t.Errorf("the start says %q", reason)
			}
		}
		newest, err := audit.NewestCheckpoint(d.path, t.TempDir(), d.side)
		if err != nil || newest.Seq != uint64(3*(round+1)) {
			t.Fatalf("the checkpoint is of record %d, %v", newest.Seq, err)
		}
		d.soundUpTo(&newest)
		f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(begun); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}

	// That the end is missing shows by the checkpoint in the side directory.
	lines := d.lines()
	if err := os.WriteFile(d.path, []byte(strings.Join(lines[:5], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.visit(); err != nil {
		t.Fatal(err)
	}
	if found := d.one("audit.damaged"); !strings.Contains(found.Reason, "records 6 to 9 are missing") {
		t.Errorf("found: %s", found.Reason)
	}
}

// With no place at all the start says which ones it tried, and the line stays.
func TestATornLineWithoutAPlaceStays(t *testing.T) {
	w := newWorld(t)
	w.fill(1)
	w.o.SideDir = filepath.Join(t.TempDir(), "missing")
	if err := os.Mkdir(w.path+".torn", 0o700); err != nil { // a file does not replace it, not even root's
		t.Fatal(err)
	}
	text := strings.Join(w.lines(), "") + "\n" + `{"v":1,"se`
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := audit.Open(w.o)
	if err == nil || !strings.Contains(err.Error(), "must be writable") || !strings.Contains(err.Error(), w.path+".torn") || !strings.Contains(err.Error(), w.o.SideDir) {
		t.Errorf("opened: %v", err)
	}
	if left, err := os.ReadFile(w.path); err != nil || string(left) != text {
		t.Errorf("the trail was changed: %v", err)
	}
}

// Of checkpoints in both places the newer one counts.
func TestTheNewestCheckpointCounts(t *testing.T) {
	w := newWorld(t)
	w.o.SideDir = t.TempDir()
	if _, err := audit.NewestCheckpoint(w.path, w.o.SideDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without any: %v", err)
	}
	w.fill(1)
	old, err := os.ReadFile(audit.CheckpointPath(w.path))
	if err != nil {
		t.Fatal(err)
	}
	w.fill(1)
	newer := *w.checkpoint()
	d := &closedDir{world: w, side: w.o.SideDir}
	if err := os.WriteFile(d.aside(".checkpoint"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := audit.NewestCheckpoint(w.path, w.o.SideDir); err != nil || c.Seq != newer.Seq {
		t.Errorf("the older one is aside: %+v, %v", c, err)
	}
	if err := errors.Join(os.Rename(audit.CheckpointPath(w.path), d.aside(".checkpoint")), os.WriteFile(audit.CheckpointPath(w.path), old, 0o600)); err != nil {
		t.Fatal(err)
	}
	if c, err := audit.NewestCheckpoint(w.path, w.o.SideDir); err != nil || c.Seq != newer.Seq {
		t.Errorf("the newer one is aside: %+v, %v", c, err)
	}
}
