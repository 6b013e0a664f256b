package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The examples of the page on engines are what the service and the agent take:
// its lists are configurations, its containers run the agent with flags that exist.
func TestTheExamplesOfEnginesAreTaken(t *testing.T) {
	page, err := os.ReadFile("../../docs/engines.md")
	if err != nil {
		t.Fatal(err)
	}
	lists, agents := 0, 0
	for i, block := range strings.Split(string(page), "```") {
		text, isYAML := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !isYAML {
			continue
		}
		if strings.HasPrefix(text, "heads:") || strings.HasPrefix(text, "discovery:") {
			lists++
			file := filepath.Join(t.TempDir(), "headway.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if code, printed, stderr := here(t, "config", "print", "--config", file); code != exitOK || strings.Count(printed, `"engine":`) != 2 {
				t.Errorf("exit code %d of\n%s%s%s", code, text, printed, stderr)
			}
			continue
		}
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
		for _, args := range agentsOf(doc) {
			agents++
			for i, a := range args {
				args[i] = strings.NewReplacer("$(POD_IP)", "10.0.0.7", "$(POD_NAME)", "vllm-0").Replace(a)
			}
			// The label is checked last.
			if code, _, stderr := here(t, append(args, "--label", "a\n=b")...); code != exitUsage || !strings.Contains(stderr, "/labels") {
				t.Errorf("exit code %d of %q: %s", code, args, stderr)
			}
		}
	}
	if lists != 2 || agents != 2 {
		t.Errorf("found %d lists and %d agents", lists, agents)
	}
}

// agentsOf are the arguments of all containers that run the agent.
func agentsOf(doc any) (all [][]string) {
	switch v := doc.(type) {
	case map[string]any:
		for _, name := range []string{"args", "command"} {
			list, _ := v[name].([]any)
			var args []string
			for _, a := range list {
				text, _ := a.(string)
				args = append(args, text)
			}
			if len(args) > 0 && args[0] == "agent" {
				all = append(all, args)
			}
		}
		for _, e := range v {
			all = append(all, agentsOf(e)...)
		}
	case []any:
		for _, e := range v {
			all = append(all, agentsOf(e)...)
		}
	}
	return all
}

// The agent's engines are completed, and its help has examples.
func TestTheAgentsHelp(t *testing.T) {
	_, completed, _ := here(t, "__complete", "agent", "--engine", "")
	names := strings.Fields(completed)
	for _, engine := range []string{"llamacpp", "ollama", "openai", "sglang", "tgi", "triton", "trtllm", "vllm"} {
		if !slices.Contains(names, engine) {
			t.Errorf("%s is not completed: %s", engine, completed)
		}
	}
	if _, help, _ := here(t, "agent", "--help"); strings.Count(help, "\n  headway agent --engine ") < 3 {
		t.Errorf("no examples in %s", help)
	}
}
