package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// product is the binary that a document is about.
type product struct {
	name    string
	version string
	license string
	sum     string    // SHA-256 of the file, in hexadecimal
	made    time.Time // of the document
}

// What follows is the part of CycloneDX 1.6 that we fill.

type document struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string          `json:"type"`
	Ref        string          `json:"bom-ref"`
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	Hashes     []hash          `json:"hashes,omitempty"`
	Licenses   []licenseChoice `json:"licenses"`
	PURL       string          `json:"purl"`
	Properties []property      `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licenseChoice struct {
	License license `json:"license"`
}

type license struct {
	ID string `json:"id"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// goSum is the property with a module's checksum. It is no entry of hashes,
// since it is not the hash of any file: it is that of the list of the hashes of
// all files.
const goSum = "headway:go.sum"

// newDocument lists parts as what p is made of. The same input gives the same
// document.
func newDocument(parts []part, p product) document {
	root := component{
		Type: "application", Name: p.name, Version: p.version,
		Hashes:   []hash{{"SHA-256", p.sum}},
		Licenses: choices([]string{p.license}),
		PURL:     purl(p.name, p.version),
	}
	root.Ref = root.PURL
	d := document{
		Format: "CycloneDX", SpecVersion: "1.6", SerialNumber: serialNumber(p), Version: 1,
		Metadata:     metadata{Timestamp: p.made.UTC().Format(time.RFC3339), Component: root},
		Components:   []component{},
		Dependencies: []dependency{{Ref: root.Ref, DependsOn: []string{}}},
	}
	for _, part := range parts {
		c := component{
			Type: "library", Name: part.path, Version: part.version,
			Licenses: choices(part.licenses), PURL: purl(part.path, part.version),
		}
		c.Ref = c.PURL
		if part.sum != "" {
			c.Properties = []property{{goSum, part.sum}}
		}
		d.Components = append(d.Components, c)
		d.Dependencies[0].DependsOn = append(d.Dependencies[0].DependsOn, c.Ref)
	}
	return d
}

func choices(ids []string) []licenseChoice {
	all := make([]licenseChoice, len(ids))
	for i, id := range ids {
		all[i] = licenseChoice{license{id}}
	}
	return all
}

// purl is the package URL. In a version only + and what is no letter, digit or
// one of .-_~ is escaped; the versions of Go modules have nothing but +.
func purl(name, version string) string {
	return "pkg:golang/" + name + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// serialNumber is a UUID of version 8 made from the binary and the time, so
// that a repeated run names the same document.
func serialNumber(p product) string {
	u := sha256.Sum256([]byte(p.sum + " " + p.made.UTC().Format(time.RFC3339)))
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// fileSum is the SHA-256 of a file, in hexadecimal.
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
