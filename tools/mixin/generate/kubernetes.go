package main

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kubernetes adds the rules as a PrometheusRule, and each dashboard as a
// ConfigMap with the label of Grafana's sidecar.
func kubernetes(files map[string][]byte) error {
	var rules struct {
		Groups []any `yaml:"groups"`
	}
	if err := yaml.Unmarshal(files["prometheus/rules/routing-service.rules.yml"], &rules); err != nil {
		return err
	}
	const dir = "deploy/kubernetes/monitoring/"
	var err error
	files[dir+"prometheusrule.yaml"], err = manifests(manifest{
		APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule", Metadata: named("headway", nil), Spec: rules,
	})
	if err != nil {
		return err
	}
	var boards []manifest
	for _, name := range slices.Sorted(maps.Keys(files)) {
		folder, file := path.Split(name)
		if folder != "grafana/dashboards/" {
			continue
		}
		boards = append(boards, manifest{
			APIVersion: "v1", Kind: "ConfigMap", Metadata: named(strings.TrimSuffix(file, ".json"), map[string]string{"grafana_dashboard": "1"}),
			Data: map[string]string{file: string(files[name])},
		})
	}
	if len(boards) == 0 {
		return fmt.Errorf("there are no dashboards for %s", dir)
	}
	files[dir+"dashboards.yaml"], err = manifests(boards...)
	return err
}

type manifest struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   metadata          `yaml:"metadata"`
	Spec       any               `yaml:"spec,omitempty"`
	Data       map[string]string `yaml:"data,omitempty"`
}

type metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

func named(name string, labels map[string]string) metadata {
	all := map[string]string{"app.kubernetes.io/name": "headway"}
	maps.Copy(all, labels)
	return metadata{name, all}
}

func manifests(list ...manifest) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Made from tools/mixin by 'go run ./tools/mixin/generate'; change it there.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, m := range list {
		if err := e.Encode(m); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), e.Close()
}
