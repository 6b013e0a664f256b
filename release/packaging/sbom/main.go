// Command sbom writes the bill of materials of a Go binary as CycloneDX JSON,
// from the build information in the binary, which lists what was linked. It
// fails on an unknown or forbidden licence.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1) //nolint:forbidigo // main ends the process
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("sbom", flag.ContinueOnError)
	binary := flags.String("binary", "", "Go binary to describe (required)")
	version := flags.String("version", "", "its version (required)")
	cache := flags.String("modules", "", "module cache, as go env GOMODCACHE prints it (required)")
	goroot := flags.String("goroot", "", "Go's own directory, as go env GOROOT prints it (required)")
	license := flags.String("license", "Apache-2.0", "licence of the binary's own code")
	epoch := flags.Int64("epoch", 0, "time of the document, in seconds since 1970")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *binary == "" || *version == "" || *cache == "" || *goroot == "" || flags.NArg() > 0 {
		return errors.New("want --binary, --version, --modules and --goroot; see --help")
	}
	parts, err := inventory(*binary, *cache, *goroot)
	if err != nil {
		return err
	}
	if err := permitted(parts); err != nil {
		return err
	}
	sum, err := fileSum(*binary)
	if err != nil {
		return err
	}
	document := newDocument(parts, product{
		name: "headway", version: strings.TrimPrefix(*version, "v"), license: *license,
		sum: sum, made: time.Unix(*epoch, 0),
	})
	out := cyclonedx.NewBOMEncoder(stdout, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	return out.EncodeVersion(document, cyclonedx.SpecVersion1_6)
}
