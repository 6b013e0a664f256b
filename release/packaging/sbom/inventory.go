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

// part is one linked module.
type part struct {
	path     string
	version  string
	sum      string   // as go.sum has it; empty for the standard library
	licenses []string // SPDX identifiers, sorted
}

// standardLibrary is its name in vulnerability databases.
const standardLibrary = "stdlib"

// allowed are the licences that we may redistribute: they require a notice, not
// our source. MPL requires changes to its own files, and we make none.
var allowed = []string{
	"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0",
}

var (
	errNoLicense  = errors.New("no licence that is known")
	errNotAllowed = errors.New("a licence that is not allowed")
)

// inventory lists the linked modules of a binary by path, the standard library
// last. cache is the module cache of the build.
func inventory(binary, cache, goroot string) ([]part, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the build information: %w", err)
	}
	var parts []part
	for _, dep := range info.Deps {
		// The replacement was compiled, under the name of the replaced.
		if dep.Replace != nil {
			dep = dep.Replace
		}
		if dep.Sum == "" {
			return nil, fmt.Errorf("%s %s: replaced by a directory, so that its version is unknown", dep.Path, dep.Version)
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
	// A toolchain may append words to its version.
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

// leastCover is the percentage of a file that must be known licence text. The
// rest is the copyright line.
const leastCover = 75

// licenses identifies all licence files at the top of a module. An unknown file
// is an error, since it may hold a condition.
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

// permitted returns an error that names every part with a licence outside
// allowed.
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
