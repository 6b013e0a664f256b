// Package prometheus holds the files that Prometheus uses, for those that the
// binary needs as well.
package prometheus

import (
	"bytes"
	_ "embed"
	"strings"
)

var (
	//go:embed rules/routing-service.rules.yml
	rules []byte
	//go:embed prometheus.yml
	config []byte
)

// The console that the files link to, and what they scrape.
const (
	console = "http://localhost:8080/console"
	target  = "localhost:8080"
)

// RulesFor is rules/routing-service.rules.yml with links to the service at a URL.
func RulesFor(external string) []byte {
	return bytes.ReplaceAll(rules, []byte(console), []byte(external+"/console"))
}

// ConfigFor is prometheus.yml, which scrapes the targets, each HOST:PORT.
func ConfigFor(targets []string) []byte {
	items := make([]string, len(targets))
	for i, t := range targets {
		if items[i] = t; strings.HasPrefix(t, "[") {
			items[i] = "'" + t + "'" // an IPv6 address, which is a list in YAML
		}
	}
	return bytes.ReplaceAll(config, []byte(target), []byte(strings.Join(items, ", ")))
}
