// Command clients runs the programs of this folder, which use the official
// clients of the API, against a mock head or against what -base-url names.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"headway/internal/mockhead"
)

// program is a client with what installs it.
type program struct {
	name    string
	command []string
}

const (
	folder  = "tests/clients"
	limit   = 5 * time.Minute  // for one program
	install = 15 * time.Minute // for the packages of a language
	model   = "llama-3.1-8b"
)

var programs = []program{
	{"curl", []string{"bash", "curl_client"}},
	{"openai", []string{"python", "openai_client.py"}},
	{"anthropic", []string{"python", "anthropic_client.py"}},
	{"litellm", []string{"python", "litellm_client.py"}},
	{"langchain", []string{"python", "langchain_client.py"}},
	{"node", []string{"node", "openai_client.mjs"}},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func run() error {
	base := flag.String("base-url", os.Getenv("HEADWAY_TEST_BASE_URL"), "what is tried, such as http://localhost:8080; empty: a mock head")
	faults := flag.String("faults-url", os.Getenv("HEADWAY_TEST_FAULTS_URL"), "the /faults of the head behind it; empty: checks of faults are skipped")
	only := flag.String("only", "", "one program: curl, openai, anthropic, litellm, langchain or node")
	cache := flag.String("cache", "bin/clients", "where packages are installed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := missing(ctx); err != nil {
		return err
	}
	bin, err := filepath.Abs(*cache)
	if err != nil {
		return err
	}
	if err := installAll(ctx, bin); err != nil {
		return err
	}
	if *base == "" {
		head, err := mockhead.Start(ctx, mockhead.Options{Models: []string{model}, Speed: 20, Control: true})
		if err != nil {
			return err
		}
		defer head.Close()
		*base, *faults = head.URL(), head.URL()+"/faults"
	}
	env := append(os.Environ(), "HEADWAY_TEST_BASE_URL="+*base, "HEADWAY_TEST_FAULTS_URL="+*faults, "PYTHONDONTWRITEBYTECODE=1")
	var failed []string
	for _, p := range programs {
		if *only != "" && *only != p.name {
			continue
		}
		began := time.Now()
		if err := p.run(ctx, bin, env); err != nil {
			failed = append(failed, p.name)
		}
		fmt.Printf("== %s: %.1f s\n", p.name, time.Since(began).Seconds())
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// missing says in one line what this machine lacks.
func missing(ctx context.Context) error {
	var packages []string
	for command, packaged := range map[string]string{"python3": "python3-venv", "npm": "nodejs npm", "curl": "curl", "bash": "bash"} {
		if _, err := exec.LookPath(command); err != nil {
			packages = append(packages, packaged)
		}
	}
	if len(packages) == 0 && exec.CommandContext(ctx, "python3", "-c", "import ensurepip, venv").Run() != nil {
		packages = append(packages, "python3-venv")
	}
	if len(packages) > 0 {
		return fmt.Errorf("missing on this machine; get it with: apt-get install -y %s", strings.Join(packages, " "))
	}
	return nil
}

// installAll installs the packages of both lock files, unless they are there.
func installAll(ctx context.Context, bin string) error {
	python, node := filepath.Join(bin, "python"), filepath.Join(bin, "node")
	err := once(bin, "python", []string{"requirements.lock"}, func() error {
		if err := os.RemoveAll(python); err != nil {
			return err
		}
		if err := quiet(ctx, "", "python3", "-m", "venv", python); err != nil {
			return err
		}
		return quiet(ctx, "", filepath.Join(python, "bin/pip"), "install", "--quiet", "--disable-pip-version-check",
			"--require-hashes", "--requirement", filepath.Join(folder, "requirements.lock"))
	})
	if err != nil {
		return err
	}
	// A program finds its packages above its own folder, so it is copied there.
	return once(bin, "node", []string{"package.json", "package-lock.json", "openai_client.mjs"}, func() error {
		return quiet(ctx, node, "npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
	})
}

// once copies files and installs, when they differ from the last time's.
func once(bin, name string, files []string, installPackages func() error) error {
	dir := filepath.Join(bin, name)
	stamp := filepath.Join(bin, name+".stamp")
	var all []byte
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(folder, f))
		if err != nil {
			return err
		}
		all = append(all, text...)
	}
	if old, err := os.ReadFile(stamp); err == nil && string(old) == string(all) {
		return nil
	}
	began := time.Now()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if name == "node" {
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(folder, f))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, f), text, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := installPackages(); err != nil {
		return err
	}
	fmt.Printf("== packages for %s: %.1f s\n", name, time.Since(began).Seconds())
	return os.WriteFile(stamp, all, 0o600)
}

// quiet runs a command and shows what it printed if it fails.
func quiet(ctx context.Context, dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, install)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), errors.New(string(out)))
	}
	return nil
}

func (p program) run(ctx context.Context, bin string, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	name, args, dir := p.command[0], p.command[1:], folder
	switch name {
	case "python":
		name = filepath.Join(bin, "python/bin/python")
	case "node":
		dir = filepath.Join(bin, "node")
	}
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = dir, env, os.Stdout, os.Stderr
	return c.Run()
}
