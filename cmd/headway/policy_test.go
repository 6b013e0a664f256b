package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// Every reader of a policy file takes the same files, with the same words and
// exit code: check without a service, diff, validate and apply with one, and the
// service itself at its start.
func TestEveryReaderOfAPolicyRefusesTheSameFiles(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, filepath.Join(dir, "data"))
	s := &shell{TB: t, dir: dir}
	for name, c := range map[string]struct{ text, fault string }{
		"two.yaml":     {"default_strategy: random\n---\ndefault_strategy: round_robin\n", "the document: line 2: there is a second document; want one"},
		"anchor.yaml":  {"default_strategy: &a random\nrules:\n  - {match: {}, strategy: *a}\n", "line 1: anchors (&) and aliases (*) are not allowed"},
		"hex.yaml":     {"default_strategy: random\nstrategies:\n  geo_preferred:\n    parameters: {load_ms: 0x10}\n", "/strategies/geo_preferred/parameters/load_ms: line 4: want a plain decimal number"},
		"number.yaml":  {"default_strategy: random\naliases: {1: 2}\n", "/aliases/1: line 2: want a string, not a number; put it in quotes"},
		"name.yaml":    {"default_strategy: random\naliases: {[a]: m}\n", "line 2: a name must be plain text"},
		"twice.yaml":   {"default_strategy: random\ndefault_strategy: round_robin\n", "line 2: "},
		"syntax.yaml":  {"default_strategy: [\n", "the document: not YAML: "},
		"unknown.yaml": {"default_strategy: rondom\n", `/default_strategy: line 1: unknown strategy "rondom"; did you mean "random"?`},
		"empty.yaml":   {"", "the document: want an object"},
		"twice.json":   {`{"default_strategy":"random","default_strategy":"random"}`, "/default_strategy: "},
	} {
		s.write(name, c.text)
		out, errs := s.cli(exitRefused, "policy", "check", name)
		has(t, out, c.fault)
		has(t, errs, name+" is no valid policy; faults: ")
		for _, verb := range []string{"diff", "validate", "apply"} {
			out2, errs2 := s.cli(exitRefused, "policy", verb, name)
			if out2 != "" || errs2 != out+errs {
				t.Errorf("policy %s %s said\n%s%sand check\n%s%s", verb, name, out2, errs2, out, errs)
			}
		}
		told, err := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--redis-mode", "off", "--policy", filepath.Join(dir, name)).CombinedOutput()
		if exitCode(err) == 0 || !strings.Contains(string(told), filepath.Base(name)) {
			t.Errorf("serve --policy %s: %v: %s", name, err, told)
		}
	}
	var policy struct{ Revision int }
	if err := json.Unmarshal(p.must(200, "GET", "/api/v1/policy", ""), &policy); err != nil || policy.Revision != 0 {
		t.Errorf("a file that was refused made revision %d; %v", policy.Revision, err)
	}

	// A name that looks like a number is one all the same.
	s.write("alias.yaml", "default_strategy: random\naliases: {1: m}\n")
	out, _ := s.cli(exitOK, "policy", "check", "alias.yaml")
	has(t, out, "alias.yaml is valid")
	out, _ = s.cli(exitOK, "policy", "validate", "alias.yaml")
	has(t, out, "alias.yaml is valid")
	s.cli(exitOK, "policy", "apply", "alias.yaml")
	s.cli(exitOK, "policy", "diff", "alias.yaml")
}
