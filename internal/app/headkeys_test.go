package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	write("second")
	if got := keys.of("https://gpu-1:8000"); got != "first" {
		t.Errorf("at once %q", got)
	}
	keys.readAgain()
	if got := keys.of("https://gpu-1:8000"); got != "second" {
		t.Errorf("after a replacement %q", got)
	}
	write("two words")
	keys.readAgain()
	if got := keys.of("https://gpu-1:8000"); got != "second" || !strings.Contains(log.String(), "cannot be read again") || strings.Contains(log.String(), "two words") {
		t.Errorf("a faulty file: %q, logged %s", got, log.String())
	}
	for _, wrong := range []string{"http://a:1=/none", "http://a:1=env:NOT_SET", "http://a:1/x=" + file, "http://169.254.169.254=" + file, "http://gpu.*:80=" + file} {
		if _, err := newHeadKeys([]string{wrong}, ofEngines, false, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "two words") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// The stars of a pattern do not leave the part of the address that they stand in.
func TestNoAddressGetsTheKeyOfOthers(t *testing.T) {
	for pattern, c := range map[string]struct{ has, hasNot string }{
		"http://10.0.0.*:8000":          {"http://10.0.0.7:8000", "http://10.0.0.evil.example:8000 http://10.0.0.evil:8000 http://10.0.0.7:8001 http://10.0.0.7 https://10.0.0.7:8000 http://10.0.0.07:8000"},
		"http://10.0.*":                 {"http://10.0.3.4:80 http://10.0.3.4", "http://10.0.evil.example:80 http://10.0.evil http://10.1.3.4:80"},
		"http://10.*.0.1:80":            {"http://10.2.0.1:80", "http://10.2.evil.0.1:80 http://10.2.3.1:80"},
		"http://gpu-*:8000":             {"http://gpu-1:8000", "http://gpu-1.evil.example:8000 http://gpu-1.evil.example:80"},
		"http://gpu-*":                  {"http://gpu-1:8000 http://gpu-1", "http://gpu-1.evil.example:8000"},
		"https://gpu-*.fleet.example:1": {"https://gpu-1.fleet.example:1", "https://gpu-1.evil.example:1 https://gpu-1.a.fleet.example:1"},
		"http://*.fleet.example:8000":   {"http://gpu-1.fleet.example:8000 http://a.b.fleet.example:8000", "http://fleet.example:8000 http://evil.example:8000 http://a.fleet.example.evil:8000"},
		"http://fleet.*.example:80":     {"http://fleet.eu.example:80", "http://fleet.evil.org.example:80"},
		"http://gpu-1:80*":              {"http://gpu-1:8000 http://gpu-1:80", "http://gpu-1:90 http://gpu-1 http://gpu-1.evil:8000"},
		"http://[fd00::*]:80":           {"http://[fd00::1]:80", "http://[fd00::1:2]:80 http://[fd01::1]:80 http://fd00.example:80"},
		"http*://gpu-1:80":              {"https://gpu-1:80 http://gpu-1:80", "http://evil:80"},
		"http://*:80":                   {"http://gpu-1:80 http://a.example:80 http://10.0.0.1:80", "http://gpu-1:81"},
	} {
		p := newEndpointPattern(pattern)
		for endpoint := range strings.FieldsSeq(c.has) {
			if !p.matches(endpoint) {
				t.Errorf("%s has not %s", pattern, endpoint)
			}
		}
		for endpoint := range strings.FieldsSeq(c.hasNot) {
			if p.matches(endpoint) {
				t.Errorf("%s has %s", pattern, endpoint)
			}
		}
	}
}
