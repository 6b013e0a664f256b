package main

import (
	"errors"
	"net/http"
	"path/filepath"
	"regexp"
	"testing"
)

var decided = regexp.MustCompile(`(?m)^routing_decisions_total\{.*strategy="adaptive"\} [1-9]`)

func TestADemoOutlivesTheFirstKeyAndARestart(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"))
	goesOn := func(p *process) {
		t.Helper()
		eventually(t, patience, "the demo's requests are decided", func() error {
			if text := p.must(http.StatusOK, http.MethodGet, "/metrics", ""); !decided.Match(text) {
				return errors.New("none is")
			}
			return nil
		})
	}
	s.lines("demo", "--plain")
	goesOn(p)
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me", "--out", "admin.key")
	goesOn(p.again())
}

func TestADemoTakesAKey(t *testing.T) {
	p, s := locked(t)
	await(t, s.lines("demo", "--plain", "--server", p.url, "--token-file", "admin.key"), "Heads that are registered and report: 8 of 8.")
}
