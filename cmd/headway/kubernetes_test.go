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
