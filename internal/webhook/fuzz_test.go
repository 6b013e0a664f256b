package webhook_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headway/internal/webhook"
)

// FuzzFile reads files of endpoints: what is taken fits the documented bounds,
// and what is refused is refused with a sentence that names the file's field and
// holds no secret.
func FuzzFile(f *testing.F) {
	const secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
	f.Add("endpoints:\n- name: a\n  url: https://example.com/x\n  secret_file: secret\n  types: [head.*]\n")
	f.Add("endpoints: [{name: a, url: 'http://user:pa55word@127.0.0.1', secret_file: secret}]")
	f.Add("endpoints: &a [*a]\n")
	f.Add("endpoints:\n- {name: a, secret_file: ../../etc/passwd}\n---\nendpoints: 3\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		path := filepath.Join(dir, "webhooks.yaml")
		for name, content := range map[string]string{"webhooks.yaml": text, "secret": secret} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		list, err := webhook.Read(path, false)
		if err != nil {
			if !strings.Contains(err.Error(), "webhooks.file") || strings.Contains(err.Error(), secret) {
				t.Fatalf("the refusal is %q", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, e := range list {
			if e.Name == "" || seen[e.Name] || !strings.HasPrefix(e.URL, "http") || len(e.Secret) < 24 || len(e.Secret) > 64 {
				t.Fatalf("taken was %+v", e)
			}
			seen[e.Name] = true
		}
	})
}
