package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
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

// What the service refuses is shown in its own words, and nothing that a user does
// gives a traceback.
func TestTheExamplesForPythonSayWhatIsWrong(t *testing.T) {
	python := debian(t, "python3", "python3")
	p := serve(t, t.TempDir())
	run := func(ctx context.Context, server string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, python, append([]string{"-I", "-u"}, args...)...)
		cmd.Env = []string{"HEADWAY_SERVER=" + server, "no_proxy=*"}
		return cmd
	}
	const head, caller = "../../examples/python/head.py", "../../examples/python/caller.py"
	for _, try := range []struct {
		server string
		args   []string
		want   string
	}{
		{p.url, []string{head}, "Run: head.py"},
		{p.url, []string{caller, "m"}, "Run: caller.py"},
		{p.url + "/", []string{caller, "nomodel", "Hi"}, "unknown_model_type"},
		{"http://127.0.0.1:1", []string{caller, "m", "Hi"}, "Connection refused"},
	} {
		out, err := run(t.Context(), try.server, try.args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), try.want) || strings.Contains(string(out), "Traceback") {
			t.Errorf("%v: %v: %s", try.args, err, out)
		}
	}
	// A head that was never registered ends quietly on SIGTERM.
	for server, args := range map[string][]string{p.url: {head, "gpu 9", "127.0.0.1:8000", "m", "eu"}, "http://127.0.0.1:1": {head, "gpu-9", "http://127.0.0.1:8000", "m", "eu"}} {
		cmd := run(t.Context(), server, args...)
		errs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewReader(errs)
		first, err := said.ReadString('\n')
		if err != nil || server == p.url && !strings.Contains(first, `"pointer":"/endpoint"`) {
			t.Errorf("%v: said %s", err, first)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		rest, _ := io.ReadAll(said)
		if err := cmd.Wait(); err != nil || strings.Contains(string(rest), "Traceback") {
			t.Errorf("on SIGTERM: %v: %s", err, rest)
		}
	}
}
