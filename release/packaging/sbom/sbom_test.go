package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// built is the program as it is passed on.
func built(t *testing.T) (binary, cache, goroot string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "headway")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./cmd/headway")
	build.Dir = "../../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(out))
	return binary, dirs[0], dirs[1]
}

func TestEveryDependencyHasALicenceThatIsAllowed(t *testing.T) {
	binary, cache, goroot := built(t)
	parts, err := inventory(binary, cache, goroot)
	if err != nil {
		t.Fatal(err)
	}
	if err := permitted(parts); err != nil {
		t.Error(err)
	}
	if len(parts) < 10 || parts[len(parts)-1].path != standardLibrary {
		t.Errorf("only %d parts were found, or the standard library is not among them", len(parts))
	}
}

func TestDocumentOfTheProgram(t *testing.T) {
	binary, cache, goroot := built(t)
	args := []string{"--binary", binary, "--version", "v1.2.3", "--modules", cache, "--goroot", goroot, "--epoch", "1700000000"}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run(args, out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("a second run gave other bytes")
	}
	d := new(cyclonedx.BOM)
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(first.Bytes()), cyclonedx.BOMFileFormatJSON).Decode(d); err != nil {
		t.Fatal(err)
	}
	if d.BOMFormat != "CycloneDX" || d.SpecVersion != cyclonedx.SpecVersion1_6 || d.Metadata.Timestamp != "2023-11-14T22:13:20Z" || d.Metadata.Component.Version != "1.2.3" {
		t.Errorf("%+v", d.Metadata)
	}
	if ok := regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(d.SerialNumber); !ok {
		t.Errorf("serial number %s", d.SerialNumber)
	}
	refs := make(map[string]bool)
	for _, c := range *d.Components {
		if refs[c.BOMRef] || c.BOMRef != c.PackageURL || len(*c.Licenses) == 0 || (*c.Licenses)[0].License.ID == "" || c.Version == "" {
			t.Errorf("component %+v", c)
		}
		refs[c.BOMRef] = true
		hasSum := c.Properties != nil && (*c.Properties)[0].Name == goSum && strings.HasPrefix((*c.Properties)[0].Value, "h1:")
		if hasSum == (c.Name == standardLibrary) {
			t.Errorf("%s: properties %+v", c.Name, c.Properties)
		}
	}
	of := *d.Dependencies
	if len(of) != 1 || len(*of[0].Dependencies) != len(*d.Components) {
		t.Errorf("dependencies %+v", of)
	}
	for _, ref := range *of[0].Dependencies {
		if !refs[ref] {
			t.Errorf("%s is no component", ref)
		}
	}
}

const isc = `ISC License

Copyright (c) 2026 Somebody

Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES
WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR
ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF
OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

func TestLicenceFiles(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, c := range map[string]struct {
		module fstest.MapFS
		want   string // "": none that is known
	}{
		"LICENSE":               {fstest.MapFS{"LICENSE": file(isc)}, "ISC"},
		"any case and ending":   {fstest.MapFS{"Copying.md": file(isc)}, "ISC"},
		"with a suffix":         {fstest.MapFS{"LICENSE-ISC": file(isc)}, "ISC"},
		"no file":               {fstest.MapFS{"README": file(isc)}, ""},
		"words of their own":    {fstest.MapFS{"LICENSE": file("Ask before you sell it.\n")}, ""},
		"a condition added":     {fstest.MapFS{"LICENSE": file(isc + strings.Repeat("You must not run it on Mondays. ", 40))}, ""},
		"one known, one is not": {fstest.MapFS{"LICENSE": file(isc), "LICENSE-EXTRA": file("Ask before you sell it.\n")}, ""},
		"empty":                 {fstest.MapFS{"LICENSE": file("")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := licenses(c.module)
			if strings.Join(got, " ") != c.want || (c.want == "") != errors.Is(err, errNoLicense) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestLicenceThatIsNotAllowedIsNamed(t *testing.T) {
	err := permitted([]part{
		{path: "example.org/free", version: "v1.0.0", licenses: []string{"MIT"}},
		{path: "example.org/bound", version: "v2.0.0", licenses: []string{"AGPL-3.0", "MIT"}},
	})
	if !errors.Is(err, errNotAllowed) || !strings.Contains(err.Error(), "example.org/bound v2.0.0") || strings.Contains(err.Error(), "free") {
		t.Errorf("%v", err)
	}
}

func TestPackageURL(t *testing.T) {
	if got, want := purl("example.org/a/v2", "v2.0.0+incompatible"), "pkg:golang/example.org/a/v2@v2.0.0%2Bincompatible"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestDocumentChangesWithTheBinary(t *testing.T) {
	p := product{name: "headway", version: "1", license: "Apache-2.0", sum: "aa", made: time.Unix(0, 0)}
	q := p
	q.sum = "bb"
	if newDocument(nil, p).SerialNumber == newDocument(nil, q).SerialNumber {
		t.Error("two binaries have one serial number")
	}
}
