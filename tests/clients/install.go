package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// installing is the time for the packages of a language.
const installing = 15 * time.Minute

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
				err = os.WriteFile(filepath.Join(dir, f), text, 0o600) //nolint:gosec // below bin/clients
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
	return os.WriteFile(stamp, all, 0o600) //nolint:gosec // below bin/clients
}

// quiet runs a command and shows what it printed if it fails.
func quiet(ctx context.Context, dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, installing)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), errors.New(string(out)))
	}
	return nil
}
