package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// change is one entry of a file of changes:
//
//	== an equal sequence is accepted
//	file internal/registry/report.go
//	-	if report.Sequence <= e.sequence {
//	+	if report.Sequence < e.sequence {
//	test TestLateReportsRenewTheLease|TestReports
//
// The lines after - are the old text and stand exactly once in the file; those
// after + are the new text. TestA/part runs the parts of TestA whose names hold
// that. The tests run in the package of the file, or in
// that of a first word such as ./cmd/headway. In place of the line of tests,
// "unnoticed REASON" marks a change that no test notices.
type change struct {
	at        string // file and line of the entry
	room      string
	title     string
	file      string // from the root, with slashes
	old, new  []string
	tests     test
	unnoticed string
}

// test is a set of tests of one package, run by one binary.
type test struct {
	pkg   string // as in ./internal/registry
	names string // joined by |
}

type changes []change

var testNames = regexp.MustCompile(`^(Test|Fuzz|Example)\w*(/[^|/]+)?(\|(Test|Fuzz|Example)\w*(/[^|/]+)?)*$`)

// top is the top-level test of a name like TestA/part.
func top(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

// pattern is the -test.run pattern: whole names of tests, substrings of parts.
func (t test) pattern() string {
	var patterns []string
	for name := range strings.SplitSeq(t.names, "|") {
		_, part, inPart := strings.Cut(name, "/")
		p := "^" + top(name) + "$"
		if inPart {
			p += "/" + part
		}
		patterns = append(patterns, p)
	}
	return strings.Join(patterns, "|")
}

func readAll(root string) (changes, error) {
	names, err := filepath.Glob(filepath.Join(root, "mutants", "*.txt"))
	if err != nil {
		return nil, err
	}
	var all changes
	var errs []error
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		room := strings.TrimSuffix(filepath.Base(name), ".txt")
		found, err := parse(room, string(text))
		errs = append(errs, err)
		for _, c := range found {
			_, err := c.apply(root)
			errs = append(errs, err)
		}
		all = append(all, found...)
	}
	return all, errors.Join(errs...)
}

// parse reads one file of changes. Lines that begin with # are comments.
func parse(room, text string) (changes, error) {
	var all changes
	var errs []error
	var c *change
	finish := func() {
		if c != nil {
			errs = append(errs, c.check())
			all = append(all, *c)
			c = nil
		}
	}
	for n, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("mutants/%s.txt:%d", room, n+1)
		if title, begins := strings.CutPrefix(line, "== "); begins {
			finish()
			c = &change{at: at, room: room, title: strings.TrimSpace(title)}
			continue
		}
		switch {
		case strings.TrimSpace(line) == "":
			finish()
		case strings.HasPrefix(line, "#"):
		case c == nil:
			errs = append(errs, fmt.Errorf("%s: %q belongs to no entry; an entry begins with == and its title", at, line))
		default:
			if err := c.add(line); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", at, err))
			}
		}
	}
	finish()
	return all, errors.Join(errs...)
}

func (c *change) add(line string) error {
	if old, ok := strings.CutPrefix(line, "-"); ok {
		if len(c.new) > 0 {
			return errors.New("all lines of the old text come before the new")
		}
		c.old = append(c.old, old)
		return nil
	}
	if added, ok := strings.CutPrefix(line, "+"); ok {
		c.new = append(c.new, added)
		return nil
	}
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case word == "file" && c.file == "":
		c.file = rest
	case word == "test" && c.tests.names == "":
		if pkg, names, elsewhere := strings.Cut(rest, " "); elsewhere {
			c.tests = test{pkg: pkg, names: names}
		} else {
			c.tests.names = rest
		}
	case word == "unnoticed" && c.unnoticed == "":
		c.unnoticed = rest
	default:
		return fmt.Errorf("%q is none of file, -, +, test and unnoticed, or stands twice", line)
	}
	return nil
}

// check validates the entry, and defaults its tests to the package of the file.
func (c *change) check() error {
	dir, _ := filepath.Split(filepath.FromSlash(c.file))
	if c.tests.pkg == "" {
		c.tests.pkg = "./" + strings.TrimSuffix(filepath.ToSlash(dir), "/")
	}
	below := "internal/" + c.room + "/"
	switch {
	case c.title == "":
		return fmt.Errorf("%s: an entry needs a title", c.at)
	case !strings.HasPrefix(c.file, below) && !strings.HasPrefix(c.file, "tools/"+c.room+"/"):
		return fmt.Errorf("%s: the file is %q; this file of changes is for those below %s", c.at, c.file, below)
	case len(c.old) == 0:
		return fmt.Errorf("%s: an entry needs the old text, in lines that begin with -", c.at)
	case slices.Equal(c.old, c.new):
		return fmt.Errorf("%s: the new text is the old", c.at)
	case (c.tests.names == "") == (c.unnoticed == ""):
		return fmt.Errorf("%s: an entry needs either its tests or the reason why none notices it", c.at)
	case c.unnoticed == "" && !testNames.MatchString(c.tests.names):
		return fmt.Errorf("%s: %q is no list of tests as in TestA|TestB", c.at, c.tests.names)
	case !strings.HasPrefix(c.tests.pkg, "./"):
		return fmt.Errorf("%s: the package of the tests is %q; it begins with ./", c.at, c.tests.pkg)
	}
	return nil
}

// apply returns the text of the file with the change.
func (c *change) apply(root string) ([]byte, error) {
	if len(c.old) == 0 {
		return nil, nil // refused by check
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(c.file)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.at, err)
	}
	lines := strings.Split(string(text), "\n")
	found := -1
	for i := range len(lines) - len(c.old) + 1 {
		if !slices.Equal(lines[i:i+len(c.old)], c.old) {
			continue
		}
		if found >= 0 {
			return nil, fmt.Errorf("%s: the old text of %q stands in lines %d and %d of %s; it must stand once", c.at, c.title, found+1, i+1, c.file)
		}
		found = i
	}
	if found < 0 {
		return nil, fmt.Errorf("%s: the old text of %q does not stand in %s; the code has moved on, and so must the entry", c.at, c.title, c.file)
	}
	return []byte(strings.Join(slices.Concat(lines[:found], c.new, lines[found+len(c.old):]), "\n")), nil
}

func (all changes) of(o options) changes {
	var chosen changes
	for _, c := range all {
		if (o.room == "" || c.room == o.room) && strings.Contains(c.title, o.only) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// roomsWithout lists the packages of internal/ without a change.
func roomsWithout(root string, all changes) ([]string, error) {
	sources, err := filepath.Glob(filepath.Join(root, "internal", "*", "*.go"))
	if err != nil {
		return nil, err
	}
	var without []string
	for _, source := range sources {
		room := filepath.Base(filepath.Dir(source))
		of := func(c change) bool { return c.room == room }
		if !strings.HasSuffix(source, "_test.go") && !slices.Contains(without, room) && !slices.ContainsFunc(all, of) {
			without = append(without, room)
		}
	}
	return without, nil
}
