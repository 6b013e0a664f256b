package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKeysOfHeads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	t.Setenv("OF_AN_ENGINE", "of-the-environment")
	ofEngines := func(endpoint string) string {
		return map[string]string{"http://10.0.3.5:80": "of-a-static-head"}[endpoint]
	}
	var log bytes.Buffer
	keys, err := newHeadKeys([]string{"HTTPS://GPU-1:8000/=" + file, "http://10.0.*=env:OF_AN_ENGINE"}, ofEngines, false, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for endpoint, want := range map[string]string{
		"https://gpu-1:8000": "first", "http://gpu-1:8000": "", "https://gpu-1:8001": "", "http://10.0.3.4:80": "of-the-environment", "http://10.0.3.5:80": "of-a-static-head", "http://evil.example/10.0.1": "",
	} {
		if got := keys.of(endpoint); got != want {
			t.Errorf("%s gets %q, want %q", endpoint, got, want)
		}
	}
	k := keys.exact["https://gpu-1:8000"]
	write("second")
	if got := keys.of("https://gpu-1:8000"); got != "first" {
		t.Errorf("at once %q", got)
	}
	k.at = time.Now().Add(-headKeyAge)
	if got := keys.of("https://gpu-1:8000"); got != "second" {
		t.Errorf("after a replacement %q", got)
	}
	write("two words")
	k.at = time.Now().Add(-headKeyAge)
	if got := keys.of("https://gpu-1:8000"); got != "second" || !strings.Contains(log.String(), "cannot be read again") || strings.Contains(log.String(), "two words") {
		t.Errorf("a faulty file: %q, logged %s", got, log.String())
	}
	for _, wrong := range []string{"http://a:1=/none", "http://a:1=env:NOT_SET", "http://a:1/x=" + file, "http://169.254.169.254=" + file} {
		if _, err := newHeadKeys([]string{wrong}, ofEngines, false, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "two words") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
