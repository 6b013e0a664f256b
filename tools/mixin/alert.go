// Package mixin is the one table of alerts: alerts/*.yaml and the objectives.
// Rules, their tests, runbooks and the tables of the guide come from it.
package mixin

import (
	"bytes"
	"embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Group is a group of rules that Prometheus evaluates together.
type Group struct {
	Name     string
	Intro    string        // one sentence for the guide
	Interval time.Duration // between evaluations; 0: as configured
	Records  []Record
	Alerts   []*Alert
}

// Record is a recording rule.
type Record struct {
	Name string
	Expr string
}

// Alert is an alerting rule with its documentation.
type Alert struct {
	Name        string
	Expr        string
	For         time.Duration
	Severity    string // critical: act now; warning: within a working day; info: for Alertmanager; none: the watchdog
	Labels      map[string]string
	Summary     string
	Description string // of a firing alert; may use Prometheus' templates
	Meaning     string // for the runbook: what it is
	Causes      []string
	Do          []string
	Fires       Case
	Also        []Case // in which it fires too
	Quiet       Case
	Still       []Case // in which it is quiet too
}

// Case is a test of an alert: samples, and whether it fires at a time.
type Case struct {
	Name   string // of a further case
	Series []Series
	Every  time.Duration     // between samples; 0: 1 m
	At     time.Duration     // when it is looked at
	Labels map[string]string // of the firing alert besides alertname, severity and Alert.Labels
	Says   string            // the description then
}

// Series are samples in the notation of promtool.
type Series struct {
	Name   string `yaml:"series"`
	Values string `yaml:"values"`
}

// Every alert has the label AppLabel with the value App, by which Alertmanager
// inhibits and operators select. It is not "service", which alerts about
// external services have.
const (
	AppLabel = "app"
	App      = "routing-service"
)

// The severities.
const (
	Critical = "critical"
	Warning  = "warning"
	Info     = "info"
	None     = "none"
)

// Anchor is the alert's heading in docs/runbooks.md.
func (a *Alert) Anchor() string { return strings.ToLower(a.Name) }

// RunbookURL is the address of the runbook. The console serves it.
func (a *Alert) RunbookURL() string { return RunbookBase + "#" + a.Anchor() }

// RunbookBase is the page of the runbooks. To keep it elsewhere, change it here
// and run make generate.
const RunbookBase = "http://localhost:8080/console/runbooks"

//go:embed alerts/*.yaml
var files embed.FS

// Groups are all groups, the guide's first.
func Groups() []Group {
	return slices.Concat(read("documented"), read("availability"), objectives(), read("fleet"), read("dataplane"), read("operations"))
}

// read reads one file of alerts. It panics on a fault: the files are part of
// the program.
func read(name string) []Group {
	raw, err := files.ReadFile("alerts/" + name + ".yaml")
	if err != nil {
		panic(err)
	}
	var g Group
	in := yaml.NewDecoder(bytes.NewReader(raw))
	in.KnownFields(true)
	if err := in.Decode(&g); err != nil {
		panic(fmt.Sprintf("alerts/%s.yaml: %v", name, err))
	}
	for _, a := range g.Alerts {
		a.Expr = strings.ReplaceAll(a.Expr, "$owed", owed)
	}
	return []Group{g}
}

// Duration formats a duration as Prometheus does.
func Duration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d%u.unit == 0 {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%dms", d/time.Millisecond)
}
