// Command image builds the container image of a Dockerfile that starts FROM
// scratch, without docker and without a registry: one tar file that is an OCI
// layout and what docker load takes. The same input gives the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
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
	dockerfile := flags.String("file", "", "the Dockerfile (required)")
	context := flags.String("context", "", "directory that COPY takes from (required)")
	out := flags.String("out", "", "tar file to write (required)")
	arch := flags.String("arch", "amd64", "architecture of the binary, as Go names it")
	tag := flags.String("tag", "", "NAME:VERSION (required)")
	epoch := flags.Int64("epoch", 0, "time of all files, in seconds since 1970")
	labels := make(map[string]string)
	flags.Func("label", "NAME=VALUE, may be repeated", func(text string) error {
		return assign(text, func(name, value string) { labels[name] = value })
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dockerfile == "" || *context == "" || *out == "" || !strings.Contains(*tag, ":") || flags.NArg() > 0 {
		return errors.New("want --file, --context, --out and --tag NAME:VERSION; see --help")
	}
	text, err := os.ReadFile(*dockerfile)
	if err != nil {
		return err
	}
	r, err := parseDockerfile(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", *dockerfile, err)
	}
	b := build{arch: *arch, tag: *tag, created: time.Unix(*epoch, 0), labels: labels}
	if err := writeFile(*out, func(w io.Writer) error {
		return writeArchive(w, r, os.DirFS(*context), b)
	}); err != nil {
		return fmt.Errorf("write %s: %w", *out, err)
	}
	fmt.Fprintln(stdout, *out)
	return nil
}

// writeFile leaves no half-written file behind.
func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".image-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
