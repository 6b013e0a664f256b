package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A change that does not compile says nothing about the tests, and a run finds it
// only after many minutes.
func TestEveryChangeCompiles(t *testing.T) {
	for _, err := range uncompiled(t, "..") {
		t.Error(err)
	}
	found := uncompiled(t, "testdata/house")
	if len(found) != 1 || !strings.Contains(found[0].Error(), "does not compile: missing return") {
		t.Errorf("of a change without its return: %v", found)
	}
}

// uncompiled checks the types of each changed file.
func uncompiled(t *testing.T, root string) (faults []error) {
	t.Helper()
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	all, err := readAll(root)
	if err != nil {
		t.Fatal(err)
	}
	m := list(t, root)
	for _, c := range all {
		text, err := c.apply(root)
		if err == nil {
			err = m.check(filepath.Join(root, filepath.FromSlash(c.file)), text)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", c.at, c.title, err))
		}
	}
	return faults
}

// sources are the packages of a module and what they import.
type sources struct {
	fset     *token.FileSet
	importer types.Importer
	files    map[string][]string  // that are compiled, by directory
	outlines map[string]*ast.File // files without the bodies of their functions
}

// list compiles what the packages of a module import, as far as the cache lacks it.
func list(t *testing.T, root string) *sources {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	m := &sources{fset: token.NewFileSet(), files: map[string][]string{}, outlines: map[string]*ast.File{}}
	exports := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Export, Dir string
			GoFiles                 []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath], m.files[p.Dir] = p.Export, p.GoFiles
	}
	m.importer = importer.ForCompiler(m.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	return m
}

// check returns the first fault in the file with another text. Of the other files
// of the package it knows the declarations, and does not look for faults there.
func (m *sources) check(path string, text []byte) error {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if !slices.Contains(m.files[dir], name) {
		return nil // not of Go, or of another system
	}
	changed, err := parser.ParseFile(m.fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	files := []*ast.File{changed}
	for _, other := range m.files[dir] {
		if other == name {
			continue
		}
		outline, err := m.outline(filepath.Join(dir, other))
		if err != nil {
			return err
		}
		files = append(files, outline)
	}
	var first error
	conf := types.Config{Importer: m.importer, Error: func(err error) {
		fault, ok := errors.AsType[types.Error](err)
		if at := m.fset.Position(fault.Pos); first == nil && ok && at.Filename == path {
			first = fmt.Errorf("%s (line %d of the changed file)", fault.Msg, at.Line)
		}
	}}
	_, _ = conf.Check(dir, m.fset, files, nil)
	return first
}

// outline parses a file and leaves the bodies out: to check them once more for each
// change takes most of the time.
func (m *sources) outline(path string) (*ast.File, error) {
	if f := m.outlines[path]; f != nil {
		return f, nil
	}
	f, err := parser.ParseFile(m.fset, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			fn.Body = nil
		}
	}
	m.outlines[path] = f
	return f, nil
}
