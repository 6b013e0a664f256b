// Command typecheck checks the types of all packages of a module and their tests
// for another system, from the sources, and runs go vet's analyzers on those that
// have files which are not for this one. go vet itself would compile every
// dependency for that system first, which takes minutes on a bare machine.
//
//	typecheck DIRECTORY GOOS
package main

import (
	"errors"
	"fmt"
	"go/build"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: typecheck DIRECTORY GOOS")
		os.Exit(2)
	}
	if err := check(os.Stderr, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "typecheck:", err)
		os.Exit(1)
	}
}

// check writes what is wrong with the module in dir for a system, each fault on a
// line, and fails if there is any.
func check(w io.Writer, dir, system string) error {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.LoadAllSyntax | packages.NeedModule,
		Dir:  dir, Tests: true, Env: append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0"),
	}, "./...")
	switch {
	case err != nil:
		return err
	case len(loaded) == 0:
		return fmt.Errorf("%s has no packages", dir)
	}
	faults := 0
	packages.Visit(loaded, nil, func(p *packages.Package) {
		for _, e := range p.Errors {
			fmt.Fprintln(w, e)
			faults++
		}
	})
	if faults > 0 {
		return fmt.Errorf("%d faults of types for %s", faults, system)
	}
	var foreign []*packages.Package
	for _, p := range loaded {
		if isForeign(p) {
			foreign = append(foreign, p)
		}
	}
	graph, err := checker.Analyze(suite, foreign, nil)
	if err != nil {
		return err
	}
	for _, a := range graph.Roots {
		if a.Err != nil {
			return fmt.Errorf("%s: %w", a, a.Err)
		}
		faults += len(a.Diagnostics)
	}
	if faults == 0 {
		return nil
	}
	return errors.Join(fmt.Errorf("%d faults for %s", faults, system), graph.PrintText(w, -1))
}

// isForeign reports whether a package has a file that is not for this system, so
// that go vet does not see it here.
func isForeign(p *packages.Package) bool {
	for _, name := range p.GoFiles {
		if here, err := build.Default.MatchFile(filepath.Split(name)); err == nil && !here {
			return true
		}
	}
	return false
}
