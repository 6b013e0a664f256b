package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestFreeSpace(t *testing.T) {
	if free, err := Free(t.TempDir()); err != nil || free <= 0 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
}

func TestAFileIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	for name, c := range map[string]struct{ before, left string }{
		"a new file": {}, "an old file": {before: "old"}, "a file that a killed process left": {before: "old", left: "half"},
	} {
		for file, content := range map[string]string{file: c.before, file + ".new": c.left} {
			_ = os.Remove(file)
			if content != "" {
				write(t, file, content)
			}
		}
		if err := Replace(file, []byte("new"), 0o640); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o640 || content(t, file) != "new" {
			t.Errorf("%s: it has %q, mode %v, %v", name, content(t, file), info.Mode(), err)
		}
		if _, err := os.Lstat(file + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a file is left: %v", name, err)
		}
	}
}

// The content is on the disk before the name is, and the name before the caller
// goes on.
func TestWhatIsReplacedIsOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "old")
	var synced []string
	sync := func(f *os.File) error {
		synced = append(synced, filepath.Base(f.Name())+" "+content(t, file))
		return f.Sync()
	}
	if err := replace(file, 0o600, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }, sync); err != nil {
		t.Fatal(err)
	}
	if want := []string{"file.new old", filepath.Base(dir) + " new"}; !slices.Equal(synced, want) {
		t.Errorf("synced: %q, want %q", synced, want)
	}
}

func TestAfterAnErrorTheFileIsAsBefore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "old")
	nothing := func(io.Writer) error { return nil }
	for name, err := range map[string]error{
		"written": replace(file, 0o600, func(io.Writer) error { return syscall.EIO }, (*os.File).Sync),
		"synced":  replace(file, 0o600, nothing, func(*os.File) error { return syscall.EIO }),
	} {
		if !errors.Is(err, syscall.EIO) || content(t, file) != "old" {
			t.Errorf("not %s: %v, the file has %q", name, err, content(t, file))
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

func TestAVersionChangesWithTheFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "one")
	before := Version(a, b)
	changes := func(what string, change func()) {
		t.Helper()
		change()
		after := Version(a, b)
		if after == before || Version(a, b) != after {
			t.Errorf("%s: from %q to %q", what, before, after)
		}
		before = after
	}
	changes("made", func() { write(t, b, "two") })
	changes("written", func() { write(t, b, "longer") })
	changes("replaced, with the time and size of before", func() {
		info, err := os.Stat(a)
		if err != nil {
			t.Fatal(err)
		}
		write(t, a+"2", "eno")
		if err := errors.Join(os.Chtimes(a+"2", info.ModTime(), info.ModTime()), os.Rename(a+"2", a)); err != nil {
			t.Fatal(err)
		}
	})
	changes("removed", func() { _ = os.Remove(b) })
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
