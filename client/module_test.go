package client_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"headway/client"
)

// Another module uses the SDK as its page says.
func TestAnotherModuleUsesTheSDK(t *testing.T) {
	page, err := os.ReadFile("../docs/sdk.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n```bash\n(go mod edit .*?)```\n").FindStringSubmatch(string(page))
	root, err := filepath.Abs("..")
	if block == nil || err != nil {
		t.Fatalf("the page has no commands, or %v", err)
	}
	module := strings.TrimSuffix(reflect.TypeFor[client.Client]().PkgPath(), "/client")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.com/caller\n\ngo 1.26\n",
		"main.go": "package main\n\nimport (\n\t\"fmt\"\n\n\t\"" + module + "/client\"\n)\n\nfunc main() {\n\t_, err := client.New(\"http://127.0.0.1:8080\")\n\tfmt.Println(err)\n}\n",
		// What the module needs is fetched already; a tidy of another one may not
		// reach a registry.
		"go.sum": "",
	} {
		if name == "go.sum" {
			sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
			if err != nil {
				t.Fatal(err)
			}
			text = string(sums)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	commands := strings.ReplaceAll(block[1], "../headway", root) + "go run .\n"
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", commands)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "<nil>\n") {
		t.Errorf("%v: %s", err, out)
	}
}
