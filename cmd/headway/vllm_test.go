package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"headway/internal/mockhead"
)

// The README's three vLLM servers are heads by ten lines of YAML, and by agents:
// mock heads stand for them, which have vLLM's health, models and metrics.
func TestThreeVLLMServersInTheREADME(t *testing.T) {
	const title = "Three vLLM servers in two minutes"
	steps := tour(t, "README.md", title)
	if len(steps) != 4 {
		t.Fatalf("found %d commands", len(steps))
	}
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## "+title+"\n")
	_, file, _ := strings.Cut(section, "```yaml\n")
	file, _, _ = strings.Cut(file, "```")
	if n := strings.Count(file, "\n"); n == 0 || n > 10 {
		t.Fatalf("the file has %d lines; the page promises few", n)
	}
	var names []string
	for i := range 3 {
		head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"Qwen/Qwen2.5-7B-Instruct"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(head.Close)
		names = append(names, fmt.Sprintf("http://10.0.0.%d:8000", i+1), head.URL())
	}
	here := strings.NewReplacer(names...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asHeadway, "1")
	ask := func(t *testing.T, p *process) {
		t.Helper()
		eventually(t, time.Minute, "all three are there", func() error {
			_, body, err := p.do("GET", "/api/v1/heads", "")
			if n := bytes.Count(body, []byte(`"routable":true`)); n != 3 || bytes.Count(body, []byte(`"kv_cache_usage"`)) != 3 {
				return fmt.Errorf("%d are: %s %w", n, body, errors.Join(err, errors.ErrUnsupported))
			}
			return nil
		})
		reproduces(t, steps[1:3], t.TempDir(), strings.NewReplacer(
			"localhost:8080", strings.TrimPrefix(p.url, "http://"), "bin/headway heads list", self+" heads list --server "+p.url))
	}
	t.Run("static", func(t *testing.T) {
		dir := t.TempDir()
		configured := filepath.Join(dir, "headway.yaml")
		if err := os.WriteFile(configured, []byte(here.Replace(file)), 0o600); err != nil {
			t.Fatal(err)
		}
		args := regexp.MustCompile(`^make run ARGS='(--config) headway\.yaml'\n$`).FindStringSubmatch(steps[0].command)
		if args == nil {
			t.Fatalf("the first command is %q", steps[0].command)
		}
		p := serve(t, dir, args[1], configured)
		ask(t, p)
		p.stop()
	})
	t.Run("agents", func(t *testing.T) {
		dir := t.TempDir()
		p := serve(t, dir)
		command, isAgent := strings.CutPrefix(strings.TrimSpace(steps[3].command), "bin/headway ")
		if !isAgent {
			t.Fatalf("the last command is %q", steps[3].command)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 3)
		for i := range 3 {
			n := fmt.Sprint(i + 1)
			text := here.Replace(strings.NewReplacer("10.0.0.1", "10.0.0."+n, "gpu-1", "gpu-"+n).Replace(command))
			go func() {
				var stdout, stderr bytes.Buffer
				if code := run(ctx, append(strings.Fields(text), "--data-dir", dir), &stdout, &stderr); code != exitOK {
					done <- fmt.Errorf("%s: exit code %d: %s", text, code, &stderr)
					return
				}
				done <- nil
			}()
		}
		ask(t, p)
		stop()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		p.stop()
	})
}
