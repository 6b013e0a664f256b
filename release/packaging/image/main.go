// Command image makes the container image without docker and without a
// registry: a tar file that is an OCI layout and accepted by docker load. The
// same input gives the same bytes.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1) //nolint:forbidigo // main ends the process
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	context := flags.String("context", "", "directory with the files of the image (required)")
	out := flags.String("out", "", "tar file to write (required)")
	arch := flags.String("arch", "amd64", "architecture of the binary, as Go names it")
	tag := flags.String("tag", "", "NAME:VERSION (required)")
	epoch := flags.Int64("epoch", 0, "time of all files, in seconds since 1970")
	labels := maps.Clone(labels)
	flags.Func("label", "NAME=VALUE, may be repeated", func(text string) error {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return fmt.Errorf("want NAME=VALUE, not %q", text)
		}
		labels[name] = value
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *context == "" || *out == "" || !strings.Contains(*tag, ":") || flags.NArg() > 0 {
		return errors.New("want --context, --out and --tag NAME:VERSION; see --help")
	}
	from, err := os.OpenRoot(*context) // a link that leads out of it is refused
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	var archive bytes.Buffer
	if err := write(&archive, from.FS(), build{*arch, *tag, time.Unix(*epoch, 0).UTC(), labels}); err != nil {
		return err
	}
	part := filepath.Join(filepath.Dir(*out), ".image.part")
	if err := errors.Join(os.WriteFile(part, archive.Bytes(), 0o644), os.Chmod(part, 0o644)); err != nil { //nolint:gosec // to be passed on
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, *out); err != nil {
		return err
	}
	fmt.Fprintln(stdout, *out)
	return nil
}
