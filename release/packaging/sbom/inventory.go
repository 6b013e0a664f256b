package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
	"golang.org/x/mod/module"
)

// part is one module that is linked into a binary.
type part struct {
	path     string
	version  string
	sum      string   // as go.sum has it; empty for the standard library
	licenses []string // SPDX identifiers, sorted
}

// standardLibrary is the name under which vulnerability databases know it.
const standardLibrary = "stdlib"

// allowed are the licences under which we may pass on what we link: all of them
// ask for a notice, none for our source. MPL asks for changes to its own files,
// and we change none.
var allowed = []string{
	"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0",
}

var (
	errNoLicense  = errors.New("no licence that is known")
	errNotAllowed = errors.New("a licence that is not allowed")
)

// inventory lists what is linked into a binary, sorted by path, the standard
// library last. cache is the module cache that the binary was built from.
func inventory(binary, cache, goroot string) ([]part, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the build information: %w", err)
	}
	var parts []part
	for _, dep := range info.Deps {
		// What was compiled is the replacement, under the name of the replaced.
		if dep.Replace != nil {
			dep = dep.Replace
		}
		if dep.Sum == "" {
			return nil, fmt.Errorf("%s %s: replaced by a directory, so that nobody can tell what it is", dep.Path, dep.Version)
		}
		dir, err := cached(cache, dep.Path, dep.Version)
		if err != nil {
			return nil, err
		}
		found, err := licenses(os.DirFS(dir))
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", dep.Path, dep.Version, err)
		}
		parts = append(parts, part{dep.Path, dep.Version, dep.Sum, found})
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.path, b.path) })
	found, err := licenses(os.DirFS(goroot))
	if err != nil {
		return nil, fmt.Errorf("the standard library: %w", err)
	}
	// A toolchain may append words of its own to its version.
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	return append(parts, part{path: standardLibrary, version: version, licenses: found}), nil
}

func cached(cache, name, version string) (string, error) {
	escapedPath, err := module.EscapePath(name)
	if err != nil {
		return "", err
	}
	escapedVersion, err := module.EscapeVersion(version)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, filepath.FromSlash(escapedPath)+"@"+escapedVersion), nil
}

// leastCover is the share of a file, in percent, that must be text of known
// licences. What is left over is the copyright line, and may be no condition.
const leastCover = 75

// licenses names those of all licence files at the top of a module. A file that
// is not understood is an error: it may hold a condition.
func licenses(dir fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLicense, err)
	}
	var found []string
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !isLicense(entry.Name()) {
			continue
		}
		text, err := fs.ReadFile(dir, entry.Name())
		if err != nil {
			return nil, err
		}
		cover := licensecheck.Scan(text)
		if cover.Percent < leastCover {
			return nil, fmt.Errorf("%w: %.0f %% of %s is text of a known one, at least %d is wanted", errNoLicense, cover.Percent, entry.Name(), leastCover)
		}
		for _, match := range cover.Match {
			found = append(found, match.ID)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: there is no file LICENSE or COPYING", errNoLicense)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

func isLicense(name string) bool {
	stem := strings.ToUpper(strings.TrimSuffix(name, path.Ext(name)))
	return slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "UNLICENSE"}, stem) ||
		strings.HasPrefix(strings.ToUpper(name), "LICENSE-") || strings.HasPrefix(strings.ToUpper(name), "LICENSE_")
}

// permitted names every part with a licence that is not allowed.
func permitted(parts []part) error {
	var errs []error
	for _, p := range parts {
		for _, id := range p.licenses {
			if !slices.Contains(allowed, id) {
				errs = append(errs, fmt.Errorf("%s %s: %w: %s", p.path, p.version, errNotAllowed, id))
			}
		}
	}
	return errors.Join(errs...)
}
