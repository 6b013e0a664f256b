package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"headway/internal/mockhead"
)

// The examples for Python run as they stand, with nothing but its standard
// library: a head stays registered, also when the service forgets it, and a
// caller's request arrives there. On Ctrl-C the head deregisters.
func TestTheExamplesForPython(t *testing.T) {
	python := debian(t, "python3", "python3")
	engine, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama-3.1-8b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	p := serve(t, t.TempDir(), "--lease-base-interval", "200ms")
	run := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), python, append([]string{"-I"}, args...)...)
		cmd.Env = []string{"HEADWAY_SERVER=" + p.url, "no_proxy=*"}
		return cmd
	}
	head := run("../../examples/python/head.py", "gpu-1", engine.URL(), "llama-3.1-8b", "us-east")
	if err := head.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = head.Process.Kill(); _ = head.Wait() }()
	p.until(patience, "active_heads 1")
	p.must(204, "DELETE", "/api/v1/heads/gpu-1", "")
	p.until(patience, "active_heads 1")
	out, err := run("../../examples/python/caller.py", "llama-3.1-8b", "Hello?").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		t.Fatalf("%v: %s", err, out)
	}
	if recent := string(p.must(200, "GET", "/api/v1/decisions", "")); !strings.Contains(recent, `"result":"ok"`) {
		t.Errorf("the outcome is not reported: %s", recent)
	}
	if err := head.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := head.Wait(); err != nil {
		t.Errorf("on Ctrl-C the head ends with %v", err)
	}
	p.must(404, "GET", "/api/v1/heads/gpu-1", "")
	p.until(patience, "headway_lease_expirations_total 0")
}
