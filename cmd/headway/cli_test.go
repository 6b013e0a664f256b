package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"headway/api"
)

// shell runs commands in a directory of its own, as a user would.
type shell struct {
	testing.TB
	dir string
	env []string
}

// cli wants an exit code and returns standard output and standard error.
func (s *shell) cli(code int, args ...string) (stdout, stderr string) {
	s.Helper()
	cmd := command(s, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, &out, &errs
	cmd.Env = append(cmd.Env, s.env...)
	err := cmd.Run()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		s.Fatal(err)
	}
	if got != code {
		s.Fatalf("headway %s: exit code %d; want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func (s *shell) write(name, text string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// has wants each text in what was printed.
func has(t testing.TB, printed string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(printed, text) {
			t.Errorf("no %q in\n%s", text, printed)
		}
	}
}

// A day of an operator, from one directory, without naming the service or a
// credential once.
func TestTheCommandLineFindsTheServiceByItself(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, filepath.Join(dir, "data"), "--lease-base-interval", "60s") // one registration is to last for all
	s := &shell{TB: t, dir: dir}

	out, _ := s.cli(exitOK, "status")
	has(t, out, p.url, "ready", "heads    0")
	s.cli(exitOK, "heads", "register", "gpu-1", "--endpoint", "http://127.0.0.1:9", "--model-type", "m", "--region", "eu", "--status", "active", "--label", "rack=7")
	out, _ = s.cli(exitOK, "status")
	has(t, strings.Join(strings.Fields(out), " "), "IN FLIGHT WAITING model m 1 1 0 0 region eu 1 1 0 -")
	s.cli(exitRefused, "heads", "register", "gpu-2", "--endpoint", "ftp://x", "--model-type", "m", "--region", "eu")
	out, _ = s.cli(exitOK, "heads", "list", "-o", "wide", "--region", "eu")
	has(t, out, "gpu-1", "active", "http://127.0.0.1:9", "rack=7")
	out, _ = s.cli(exitOK, "heads", "get", "gpu-1", "-o", "json")
	var head api.Head
	if err := json.Unmarshal([]byte(out), &head); err != nil || head.ID != "gpu-1" {
		t.Errorf("%v: %s", err, out)
	}
	out, _ = s.cli(exitOK, "heads", "get", "gpu-1", "-o", "yaml")
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(out), &fields); err != nil || fields["region"] != "eu" {
		t.Errorf("%v: %s", err, out)
	}
	_, errs := s.cli(exitNotFound, "heads", "get", "nobody")
	has(t, errs, "head_not_found")

	out, _ = s.cli(exitOK, "decide", "--model-type", "m", "--explain")
	has(t, out, "gpu-1", "because", "formula", "in_flight=0")
	s.cli(exitNotFound, "decide", "--model-type", "other")
	s.cli(exitOK, "heads", "drain", "gpu-1")
	out, _ = s.cli(exitUnavailable, "decide", "--model-type", "m", "--explain", "--timeout", "1s")
	has(t, out, "gpu-1", "admin_state")
	out, _ = s.cli(exitOK, "heads", "maintenance", "gpu-1")
	has(t, out, "gpu-1 is in maintenance, with ")
	s.cli(exitOK, "heads", "undrain", "gpu-1")

	out, _ = s.cli(exitOK, "policy", "get")
	s.write("policy.yaml", out)
	s.cli(exitOK, "policy", "diff", "policy.yaml")
	s.write("policy.yaml", "default_strategy: random\n")
	out, _ = s.cli(exitDifferent, "policy", "diff", "policy.yaml")
	has(t, out, `+ /default_strategy: "random"`)
	out, _ = s.cli(exitOK, "policy", "validate", "policy.yaml")
	has(t, out, "of the last", "decision")
	s.cli(exitConflict, "policy", "apply", "policy.yaml", "--if-revision", "7")
	out, _ = s.cli(exitOK, "policy", "apply", "policy.yaml", "--note", "calmer")
	has(t, out, "revision 1 is in force")
	s.write("wrong.yaml", "default_strategy: fastest\nrules: [{}]\n")
	_, errs = s.cli(exitRefused, "policy", "validate", "wrong.yaml")
	has(t, errs, "/default_strategy", "/rules/0")
	s.cli(exitRefused, "policy", "apply", "wrong.yaml")
	s.cli(exitRefused, "policy", "check", "wrong.yaml")
	s.cli(exitConflict, "policy", "restore", "0", "--if-revision", "0")
	out, _ = s.cli(exitOK, "policy", "restore", "0")
	has(t, out, "revision 2 is in force")
	out, _ = s.cli(exitOK, "policy", "history")
	has(t, out, "calmer", "restore")
	s.cli(exitNotFound, "policy", "restore", "99")
	s.cli(exitUsage, "policy", "restore", "x")

	out, _ = s.cli(exitOK, "audit", "search", "--action", "policy.*", "--outcome", "success")
	has(t, out, "policy.put", "policy.restore", "local:local")
	out, _ = s.cli(exitOK, "audit", "tail", "-n", "3")
	if n := strings.Count(out, "\n"); n != 4 {
		t.Errorf("%d lines; want a header and 3 records:\n%s", n, out)
	}
	out, _ = s.cli(exitOK, "audit", "export", "--since", "1h")
	trail, err := os.ReadFile(filepath.Join(dir, "data", "audit.log"))
	if err != nil || strings.Count(out, "\n") < 10 || !strings.HasPrefix(string(trail), out) {
		t.Errorf("%v: exported as\n%s\nthe trail is\n%s", err, out, trail)
	}
	out, _ = s.cli(exitOK, "audit", "export", "--format", "ocsf")
	has(t, out, `"class_uid":6003`)
	out, _ = s.cli(exitOK, "audit", "verify")
	has(t, out, "is sound")
	s.cli(exitUsage, "audit", "search", "--since", "yesterday")

	out, _ = s.cli(exitOK, "doctor")
	has(t, out, "file limit", "disk of the state", "audit trail", "headway keys create")
	s.cli(exitOK, "heads", "remove", "gpu-1")
	s.cli(exitUsage, "heads", "list", "-o", "xml")

	p.stop()
	out, _ = s.cli(exitUnavailable, "status", "--data-dir", "data")
	if out != "" {
		t.Errorf("of a service that is gone: %s", out)
	}
	text := strings.Replace(string(trail), `"outcome":"success"`, `"outcome":"failure"`, 1)
	s.write("changed.log", text)
	s.cli(exitDamage, "audit", "verify", "--file", "changed.log")
}

// secured runs the README's five commands and returns the service with its keys.
func secured(t *testing.T, s *shell) (p *process, admin, head, client string) {
	t.Helper()
	steps := tour(t, "README.md", "Secure it, for other machines to reach")
	if len(steps) != 5 {
		t.Fatalf("the README has %d commands; it promises five", len(steps))
	}
	for _, step := range steps {
		command := strings.ReplaceAll(strings.TrimSpace(step.command), "'", "")
		if args, isCommand := strings.CutPrefix(command, "bin/headway "); isCommand {
			s.cli(exitOK, strings.Fields(args)...)
			continue
		}
		args, isRun := strings.CutPrefix(command, "make run ARGS=")
		if !isRun {
			t.Fatalf("the README has the command %q", command)
		}
		flags := strings.Fields(strings.ReplaceAll(args, ":8443", ":0"))
		for i, f := range flags {
			if strings.HasPrefix(f, "data/") {
				flags[i] = filepath.Join(s.dir, f)
			}
		}
		p = serve(t, filepath.Join(s.dir, "data"), flags...)
	}
	key := func(name string) string {
		file := filepath.Join(s.dir, name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil {
			t.Fatal(err)
		} else if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v; only its owner is to read it", name, info.Mode())
		}
		return string(text)
	}
	return p, key("admin.key"), key("head.key"), key("client.key")
}

// Five commands secure a fresh installation; the README has them.
func TestSecureInFiveCommands(t *testing.T) {
	dir := t.TempDir()
	s := &shell{TB: t, dir: dir, env: []string{"HEADWAY_AUDIT_FILE=" + filepath.Join(dir, "data", "audit.log")}}
	p, admin, headKey, clientKey := secured(t, s)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}

	url := "https://127.0.0.1:" + port
	as := func(key string) *shell {
		return &shell{TB: t, dir: t.TempDir(), env: []string{
			"HEADWAY_SERVER=" + url, "HEADWAY_TOKEN=" + strings.TrimSpace(key), "HEADWAY_CA_FILE=" + filepath.Join(dir, "data", "tls", "ca.pem"),
		}}
	}
	register := []string{"heads", "register", "gpu-1", "--endpoint", "http://127.0.0.1:9", "--model-type", "m", "--region", "eu", "--status", "active"}
	as("").cli(exitRefused, "heads", "list")
	as(clientKey).cli(exitRefused, register...)
	as(headKey).cli(exitOK, register...)
	as(headKey).cli(exitRefused, "heads", "list")
	as(clientKey).cli(exitOK, "decide", "--model-type", "m")
	as(clientKey).cli(exitRefused, "keys", "list")
	out, _ := as(admin).cli(exitOK, "keys", "list")
	has(t, out, "rack-7", "chat")
	var keys []api.Key
	out, _ = as(admin).cli(exitOK, "keys", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys) != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, k := range keys {
		if k.Name == "chat" {
			as(admin).cli(exitOK, "keys", "revoke", k.ID)
		}
	}
	as(clientKey).cli(exitRefused, "decide", "--model-type", "m")
	as(admin).cli(exitNotFound, "keys", "revoke", "000000000000")

	// Without the authority's certificate the service is not trusted.
	untrusting := &shell{TB: t, dir: t.TempDir(), env: []string{"HEADWAY_SERVER=" + url, "HEADWAY_TOKEN=" + strings.TrimSpace(admin)}}
	untrusting.cli(exitUnavailable, "heads", "list", "--timeout", "2s")
	out, _ = s.cli(exitOK, "audit", "search", "--outcome", "denied", "--limit", "100")
	if n := strings.Count(out, "denied"); n == 0 {
		t.Errorf("no denied attempt is in the trail:\n%s", out)
	}
}

// The file of a key is made for one key: nothing is overwritten, and nothing is
// left where no key was made.
func TestAKeyGoesIntoAFileOfItsOwn(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	s.env = []string{"HEADWAY_AUDIT_FILE=" + filepath.Join(s.dir, "audit.log")}
	create := func(role, file string) []string {
		return []string{"keys", "create", "--data-dir", "data", "--name", "me", "--role", role, "--out", file}
	}
	s.cli(exitRefused, create("emperor", "a.key")...)
	if _, err := os.Stat(filepath.Join(s.dir, "a.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of a key that was not made: %v", err)
	}
	out, errs := s.cli(exitOK, create("admin", "a.key")...)
	has(t, errs, "it is in a.key")
	key, err := os.ReadFile(filepath.Join(s.dir, "a.key"))
	if err != nil || !strings.HasPrefix(string(key), "hw_") || strings.Contains(out+errs, strings.TrimSpace(string(key))) {
		t.Errorf("%v: the file has %d bytes; printed were %q and %q", err, len(key), out, errs)
	}
	_, errs = s.cli(exitError, create("viewer", "a.key")...)
	has(t, errs, "a.key", "file exists", "name another file with --out")
	s.cli(exitError, create("viewer", "missing/b.key")...)
	if again, err := os.ReadFile(filepath.Join(s.dir, "a.key")); err != nil || string(again) != string(key) {
		t.Errorf("the file was changed: %v", err)
	}
	out, _ = s.cli(exitOK, "keys", "list", "--data-dir", "data", "-o", "json")
	if n := strings.Count(out, `"id"`); n != 1 {
		t.Errorf("%d keys were made:\n%s", n, out)
	}
}

// Every command has a man page, help, and completion.
func TestEveryCommandIsDescribed(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	s.cli(exitOK, "man", ".")
	for _, args := range [][]string{
		{"heads", "list"},
		{"heads", "register"},
		{"decide"},
		{"policy", "apply"},
		{"policy", "restore"},
		{"keys", "create"},
		{"audit", "verify"},
		{"doctor"},
		{"status"},
		{"config", "print"},
		{"tls", "init"},
	} {
		if _, err := os.Stat(filepath.Join(s.dir, "headway-"+strings.Join(args, "-")+".1")); err != nil {
			t.Error(err)
		}
		out, _ := s.cli(exitOK, append(args, "--help")...)
		has(t, out, "Usage:")
	}
	out, _ := s.cli(exitOK, "__complete", "keys", "create", "--role", "")
	has(t, out, "operator")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, _ := s.cli(exitOK, "completion", shell)
		has(t, out, "headway")
	}
}

// A program that reads a list gets a list, also when nothing is in it.
func TestListsOfNothingAreLists(t *testing.T) {
	dir := t.TempDir()
	serve(t, filepath.Join(dir, "data"))
	s := &shell{TB: t, dir: dir}
	s.write("policy.yaml", "default_strategy: adaptive\ncaller_may: [strategy, region_mode, exclude, labels, explain, region, session, priority]\n")
	for _, args := range [][]string{
		{"heads", "list"},
		{"keys", "list"},
		{"audit", "search", "--action", "nothing"},
		{"policy", "diff", "policy.yaml"},
	} {
		for _, format := range []string{"json", "yaml"} {
			if out, _ := s.cli(exitOK, slices.Concat(args, []string{"-o", format})...); out != "[]\n" {
				t.Errorf("headway %s -o %s printed %q", strings.Join(args, " "), format, out)
			}
		}
	}
}
