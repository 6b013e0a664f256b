package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The archive of a release has each file that its compose file mounts.
func TestTheArchiveHasWhatItsComposeFileMounts(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "../../release/tree", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(dir, "deploy", "docker-compose.yml"))
	var file struct {
		Services map[string]struct{ Volumes []string }
		Volumes  map[string]any
	}
	if err = errors.Join(err, yaml.Unmarshal(content, &file)); err != nil {
		t.Fatal(err)
	}
	mounted := 0
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, kept := file.Volumes[from]; kept {
				continue
			}
			mounted++
			if found, err := os.ReadDir(filepath.Join(dir, "deploy", from)); err != nil || len(found) == 0 {
				t.Errorf("%s mounts %s, of which the archive has %v: %v", name, from, found, err)
			}
		}
	}
	if mounted < 4 {
		t.Errorf("%d mounts were found", mounted)
	}
	for _, want := range []string{"prometheus/rules/routing-service.rules.yml", "grafana/dashboards/routing-service.json", "deploy/alertmanager/receiver", "examples/python/head.py", "CHANGELOG.md"} {
		if _, err := os.Stat(filepath.Join(dir, want)); err != nil {
			t.Error(err)
		}
	}
}

// What the compose file sets lets a browser of this machine reach the service,
// and no client without a key: it starts with one only.
func TestTheComposeFile(t *testing.T) {
	content, err := os.ReadFile("../../deploy/docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Environment map[string]string
			NetworkMode string `yaml:"network_mode"`
			Ports       []string
		}
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	published := false
	for name, s := range file.Services {
		if name != "network" && s.NetworkMode != "service:network" {
			t.Errorf("%s has the network %q", name, s.NetworkMode)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s to others than this machine", name, p)
			}
			published = published || strings.HasSuffix(p, ":8080:8080")
		}
	}
	if !published {
		t.Error("the service's port is not published")
	}

	dir := t.TempDir()
	own := strings.NewReplacer("/var/lib/headway", dir, ":8080", ":0")
	set := map[string]string{}
	for name, value := range file.Services["headway"].Environment {
		set[name] = own.Replace(value)
	}
	if set["HEADWAY_LISTEN"] != "0.0.0.0:0" {
		t.Fatalf("it listens at %s", set["HEADWAY_LISTEN"])
	}
	composed := func(args ...string) *exec.Cmd {
		cmd := command(t, args...)
		for name, value := range set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		return cmd
	}
	if out, err := composed("serve").CombinedOutput(); err == nil || !strings.Contains(string(out), "headway keys create") {
		t.Fatalf("without a key: %v: %s", err, out)
	}
	key, err := composed("keys", "create", "--role", "admin", "--name", "me", "--data-dir", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range set {
		t.Setenv(name, value)
	}
	p := serve(t, dir, "--listen", set["HEADWAY_LISTEN"])
	p.url = strings.Replace(p.url, "[::]", "127.0.0.1", 1)
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/console/", "", 200},
		{"/console/runbooks", "", 200},
		{"/metrics", "", 200},
		{"/api/v1/heads", "", 401},
		{"/prometheus/api/v1/rules", "", 401},
		{"/api/v1/heads", strings.TrimSpace(string(key)), 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "headway:8080" // as another container names it
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		res, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s with key %t: %d; want %d", c.path, c.token != "", res.StatusCode, c.want)
		}
	}
}
