package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// object is what a manifest of Kubernetes has in common with all others.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
	Spec      map[string]any
	Data      map[string]string
	Resources []string // of a Kustomization
}

func objects(t *testing.T, file string) (list []object) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := yaml.NewDecoder(f); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		list = append(list, o)
	}
}

// Each kustomization names each file beside it, and what is monitored has the
// names that the rules, the service and Grafana look for.
func TestTheManifestsOfKubernetesFitEachOther(t *testing.T) {
	all := map[string]object{}
	for _, dir := range []string{"../../deploy/kubernetes", "../../deploy/kubernetes/monitoring"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, file := range files {
			if filepath.Base(file) == "kustomization.yaml" {
				continue
			}
			names = append(names, filepath.Base(file))
			for _, o := range objects(t, file) {
				if o.APIVersion == "" || o.Metadata.Name == "" || o.Metadata.Labels["app.kubernetes.io/name"] != "headway" {
					t.Errorf("%s has %+v", file, o.Metadata)
				}
				all[o.Kind+" "+o.Metadata.Name] = o
			}
		}
		resources := slices.Sorted(slices.Values(objects(t, filepath.Join(dir, "kustomization.yaml"))[0].Resources))
		if !slices.Equal(resources, names) {
			t.Errorf("the kustomization of %s names %q; there are %q", dir, resources, names)
		}
	}
	var rules map[string]any
	raw, err := os.ReadFile("../../prometheus/rules/routing-service.rules.yml")
	if err = errors.Join(err, yaml.Unmarshal(raw, &rules)); err != nil || !reflect.DeepEqual(all["PrometheusRule headway"].Spec, rules) {
		t.Errorf("the PrometheusRule has other rules than Prometheus' file: %v", err)
	}
	for _, name := range []string{"routing-service", "routing-service-enhanced"} {
		board := all["ConfigMap "+name]
		raw, err := os.ReadFile("../../grafana/dashboards/" + name + ".json")
		if err != nil || board.Data[name+".json"] != string(raw) || board.Metadata.Labels["grafana_dashboard"] != "1" || len(raw) > 1<<20 {
			t.Errorf("the ConfigMap of %s is other than the dashboard: %v", name, err)
		}
	}
	scraped, _ := yaml.Marshal(all["ServiceMonitor headway"].Spec)
	served, _ := yaml.Marshal(all["Service headway"].Spec)
	for _, want := range []string{"port: https", "replacement: routing-service", "targetLabel: job"} {
		if !strings.Contains(string(scraped), want) {
			t.Errorf("no %q in the ServiceMonitor:\n%s", want, scraped)
		}
	}
	if !strings.Contains(string(served), "name: https") {
		t.Errorf("the service has no port https:\n%s", served)
	}
}

// The commands of the page make the Secret and the first key: the service takes
// the certificates with the configuration of the ConfigMap, and the operator's
// opens it.
func TestTheSecretOfThePageOpensTheService(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Kubernetes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands [][]string
	secret := map[string]string{} // file: key
	for line := range strings.Lines(section) {
		if args, ok := strings.CutPrefix(line, "$ headway "); ok {
			commands = append(commands, strings.Fields(args))
		}
		for field := range strings.FieldsSeq(line) {
			if pair, ok := strings.CutPrefix(field, "--from-file="); ok {
				key, file, _ := strings.Cut(pair, "=")
				secret[file] = key
			}
		}
	}
	if len(commands) != 3 || len(secret) != 3 {
		t.Fatalf("the page has the commands %q and the files %q", commands, secret)
	}
	dir := t.TempDir()
	run := func(args []string) {
		t.Helper()
		cmd := command(t, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("headway %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, args := range commands[:2] {
		run(args)
	}
	mounted := t.TempDir()
	for file, key := range secret {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(mounted, key), string(content))
	}
	config := objects(t, "../../deploy/kubernetes/configmap.yaml")[0].Data["headway.yaml"]
	file := filepath.Join(dir, "headway.yaml")
	write(t, file, strings.ReplaceAll(config, "/etc/headway-tls", mounted))
	p := serve(t, filepath.Join(dir, "data"), "--config", file, "--log-format", "text")
	last := commands[2]
	i := slices.Index(last, "https://localhost:8080")
	if i < 0 {
		t.Fatalf("the page asks another service: %q", last)
	}
	last[i] = "https://localhost:" + p.url[strings.LastIndex(p.url, ":")+1:]
	run(last)
}
