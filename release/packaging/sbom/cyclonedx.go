package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

type product struct {
	name    string
	version string
	license string
	sum     string    // SHA-256 of the file, in hexadecimal
	made    time.Time // of the document
}

// goSum is the property with a module's checksum. It is not in hashes, since it
// is no hash of a file but of a list of hashes.
const goSum = "headway:go.sum"

// newDocument lists the parts of p. The same input gives the same document.
func newDocument(parts []part, p product) *cyclonedx.BOM {
	root := newComponent(cyclonedx.ComponentTypeApplication, part{path: p.name, version: p.version, licenses: []string{p.license}})
	root.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: p.sum}}
	components, refs := []cyclonedx.Component{}, []string{}
	for _, part := range parts {
		c := newComponent(cyclonedx.ComponentTypeLibrary, part)
		if part.sum != "" {
			c.Properties = &[]cyclonedx.Property{{Name: goSum, Value: part.sum}}
		}
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	d := cyclonedx.NewBOM()
	d.SerialNumber = serialNumber(p)
	d.Metadata = &cyclonedx.Metadata{Timestamp: p.made.UTC().Format(time.RFC3339), Component: &root}
	d.Components = &components
	d.Dependencies = &[]cyclonedx.Dependency{{Ref: root.BOMRef, Dependencies: &refs}}
	return d
}

func newComponent(kind cyclonedx.ComponentType, p part) cyclonedx.Component {
	licenses := cyclonedx.Licenses{}
	for _, id := range p.licenses {
		licenses = append(licenses, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	url := purl(p.path, p.version)
	return cyclonedx.Component{Type: kind, BOMRef: url, Name: p.path, Version: p.version, Licenses: &licenses, PackageURL: url}
}

// purl is the package URL. In the versions of Go modules only + needs escaping.
func purl(name, version string) string {
	return "pkg:golang/" + name + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// serialNumber is a UUID version 8 of binary and time, so that a repeated run
// gives the same.
func serialNumber(p product) string {
	u := sha256.Sum256([]byte(p.sum + " " + p.made.UTC().Format(time.RFC3339)))
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
