package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"headway/internal/freeport"
)

var consoleBlock = regexp.MustCompile("(?s)\n```console\n(.*?)\n```\n")

// consoles are the steps of all console blocks of a page.
func consoles(t *testing.T, page string) []step {
	t.Helper()
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for _, block := range consoleBlock.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1] + "\n") {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				steps = append(steps, step{command: command})
			} else if len(steps) == 0 {
				t.Fatalf("%s: output before the first command: %s", page, line)
			} else {
				steps[len(steps)-1].output += line
			}
		}
	}
	if strings.Contains(string(text), "\n```console\n") != (len(steps) > 0) {
		t.Fatalf("the blocks of %s cannot be read", page)
	}
	return steps
}

// onATerminal runs steps as they would be typed: headway is the program, what it
// says on standard error is seen too, and a service goes to the background until
// the tour ends.
func onATerminal(t *testing.T, steps []step, dir string, replace ...string) {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "headway")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(asHeadway, "1")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("HEADWAY_AUDIT_FILE", filepath.Join(dir, "audit.log"))
	t.Setenv("HEADWAY_REDIS_MODE", "off")
	t.Setenv("HEADWAY_LEASE_BASE_INTERVAL", "60s") // a busy machine is slower than a tour
	typed := []step{{command: "exec 2>&1; trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"}}
	for _, s := range steps {
		if strings.HasPrefix(s.command, "headway serve ") {
			s.command = strings.TrimSuffix(s.command, "\n") + " >serve.log 2>&1 & until headway status --data-dir data >/dev/null 2>&1 || ! kill -0 $!; do sleep 0.1; done"
		}
		typed = append(typed, s)
	}
	reproduces(t, typed, dir, strings.NewReplacer(replace...))
}

func TestThePageOfTheCommandLineReproduces(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, filepath.Join(dir, "data"), "--lease-base-interval", "60s")
	for _, body := range []string{
		`{"id":"gpu-1","endpoint":"http://127.0.0.1:8001","model_types":["llama-3.1-8b"],"region":"us-east","status":"active"}`,
		`{"id":"gpu-2","endpoint":"http://127.0.0.1:8002","model_types":["llama-3.1-8b"],"region":"eu-west","status":"active"}`,
	} {
		p.must(http.StatusCreated, "POST", "/api/v1/heads", body)
	}
	steps := consoles(t, "docs/command-line.md")
	if len(steps) < 15 {
		t.Fatalf("%d commands", len(steps))
	}
	onATerminal(t, steps, dir)
}

func TestThePageOfAccessReproduces(t *testing.T) {
	steps := consoles(t, "docs/access.md")
	if len(steps) < 12 {
		t.Fatalf("%d commands", len(steps))
	}
	address := freeport.Address(t)
	_, port, _ := strings.Cut(address, ":")
	onATerminal(t, steps, t.TempDir(),
		"--listen 0.0.0.0:8443", "--listen "+address,
		"https://gateway.internal:8443", "--resolve gateway.internal:"+port+":127.0.0.1 https://gateway.internal:"+port)
}

func TestThePageOfThePolicyReproduces(t *testing.T) {
	const page = "docs/policy.md"
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(text), "\n## An example with everything in it\n\n```yaml\n")
	example, _, ended := strings.Cut(example, "\n```\n")
	if !found || !ended {
		t.Fatalf("%s has no example", page)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy.yaml"), example+"\n")
	steps := consoles(t, page)
	if len(steps) < 5 {
		t.Fatalf("%d commands", len(steps))
	}
	onATerminal(t, steps, dir, "headway serve --policy", "headway serve --listen 127.0.0.1:0 --policy")
}

func TestThePageOfTheAuditTrailReproduces(t *testing.T) {
	debian(t, "openssl", "openssl")
	debian(t, "redis-cli", "redis-tools")
	steps := consoles(t, "docs/audit.md")
	if len(steps) < 20 {
		t.Fatalf("%d commands", len(steps))
	}
	address, redis := freeport.Address(t), freeport.Address(t)
	_, redisPort, _ := strings.Cut(redis, ":")
	const (
		subscribe = "subscribe audit:routing:logs > channel"
		compare   = "grep policy.put channel | cmp"
	)
	until := func(condition string) string {
		return "for i in {1..300}; do " + condition + " && break; sleep 0.1; done; "
	}
	onATerminal(t, steps, t.TempDir(),
		"headway serve --audit", "headway serve --listen "+address+" --redis-mode embedded --redis-listen "+redis+" --audit",
		"localhost:8080", address,
		// The service ends it, of which a shell that waits for it would tell.
		"redis-cli -p 6380 "+subscribe+" &", "(redis-cli -p "+redisPort+" "+subscribe+" 2>/dev/null &); "+until("grep -qsx 1 channel"),
		compare, until("[ $(grep -c policy.put channel) -ge 2 ]")+compare,
		`kill -INT $(grep -o '"pid":[0-9]*' data/server.json | cut -d: -f2); sleep 5`, "kill $(jobs -p); wait")
}
