package mixin

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const generated = "# Made from tools/mixin by 'go run ./tools/mixin/generate'; change it there.\n"

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name     string `yaml:"name"`
	Interval string `yaml:"interval,omitempty"`
	Rules    []rule `yaml:"rules"`
}

type rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// RuleFile is a rule file for Prometheus.
func RuleFile(groups []Group) ([]byte, error) {
	var f ruleFile
	for _, g := range groups {
		out := ruleGroup{Name: g.Name, Interval: durationOf(g.Interval)}
		for _, r := range g.Records {
			out.Rules = append(out.Rules, rule{Record: r.Name, Expr: r.Expr})
		}
		for _, a := range g.Alerts {
			out.Rules = append(out.Rules, rule{Alert: a.Name, Expr: a.Expr, For: durationOf(a.For), Labels: a.labels(), Annotations: map[string]string{
				"summary": a.Summary, "description": a.Description, "runbook_url": a.RunbookURL(),
			}})
		}
		f.Groups = append(f.Groups, out)
	}
	return encode(f)
}

func durationOf(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return Duration(d)
}

func (a *Alert) labels() map[string]string {
	labels := map[string]string{"severity": a.Severity, AppLabel: App}
	maps.Copy(labels, a.Labels)
	return labels
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(generated)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	return b.Bytes(), nil
}

type testFile struct {
	RuleFiles          []string   `yaml:"rule_files"`
	EvaluationInterval string     `yaml:"evaluation_interval"`
	Tests              []ruleTest `yaml:"tests"`
}

type ruleTest struct {
	Name           string          `yaml:"name"`
	Interval       string          `yaml:"interval"`
	InputSeries    []Series        `yaml:"input_series"`
	AlertRuleTests []alertRuleTest `yaml:"alert_rule_test"`
}

type alertRuleTest struct {
	EvalTime  string     `yaml:"eval_time"`
	Alertname string     `yaml:"alertname"`
	ExpAlerts []expAlert `yaml:"exp_alerts"`
}

type expAlert struct {
	ExpLabels      map[string]string `yaml:"exp_labels"`
	ExpAnnotations map[string]string `yaml:"exp_annotations"`
}

// TestFiles are promtool tests by file name. Each alert fires in one case, with
// its labels and annotations, and stays quiet in another. The objectives with
// their long windows have a file of their own.
func TestFiles(groups []Group, rules string) (map[string][]byte, error) {
	files := map[string]*testFile{}
	for _, g := range groups {
		name, every := "alerts.test.yml", "1m"
		if len(g.Records) > 0 {
			name, every = "objectives.test.yml", "5m"
		}
		f := files[name]
		if f == nil {
			f = &testFile{RuleFiles: []string{rules}, EvaluationInterval: every}
			files[name] = f
		}
		for _, a := range g.Alerts {
			f.Tests = append(f.Tests, a.test("fires", &a.Fires, true))
			for j := range a.Also {
				f.Tests = append(f.Tests, a.test("fires, "+a.Also[j].Name, &a.Also[j], true))
			}
			if len(a.Quiet.Series) > 0 {
				f.Tests = append(f.Tests, a.test("is quiet", &a.Quiet, false))
			}
			for j := range a.Still {
				f.Tests = append(f.Tests, a.test("is quiet, "+a.Still[j].Name, &a.Still[j], false))
			}
		}
	}
	out := map[string][]byte{}
	for name, f := range files {
		content, err := encode(f)
		if err != nil {
			return nil, err
		}
		out[name] = content
	}
	return out, nil
}

func (a *Alert) test(what string, c *Case, fires bool) ruleTest {
	expected := alertRuleTest{EvalTime: Duration(c.At), Alertname: a.Name, ExpAlerts: []expAlert{}}
	if fires {
		labels := a.labels()
		maps.Copy(labels, c.Labels)
		expected.ExpAlerts = append(expected.ExpAlerts, expAlert{labels, map[string]string{
			"summary": fillLabels(a.Summary, labels), "description": c.Says, "runbook_url": a.RunbookURL(),
		}})
	}
	return ruleTest{
		Name: a.Name + " " + what, Interval: Duration(cmp.Or(c.Every, minute)),
		InputSeries: c.Series, AlertRuleTests: []alertRuleTest{expected},
	}
}

// fillLabels expands the labels of an annotation template.
func fillLabels(text string, labels map[string]string) string {
	for name, value := range labels {
		text = strings.ReplaceAll(text, "{{ $labels."+name+" }}", value)
	}
	return text
}

// Runbooks is the page of the runbooks in Markdown.
func Runbooks(groups []Group) []byte {
	var b bytes.Buffer
	b.WriteString("# Runbooks\n\n<!-- Made from tools/mixin by 'go run ./tools/mixin/generate'; change it there. -->\n\n" +
		"One for each alert of [prometheus/rules/routing-service.rules.yml](../prometheus/rules/routing-service.rules.yml). " +
		"`critical`: act now; `warning`: within a working day.\n\n")
	b.WriteString("| alert | severity | fires after | when |\n|---|---|---|---|\n")
	for _, g := range groups {
		for _, a := range g.Alerts {
			fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s |\n", a.Name, a.Anchor(), a.Severity, Duration(a.For), cell(a.Meaning))
		}
	}
	for _, g := range groups {
		if len(g.Alerts) == 0 {
			continue // a record has no alert
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", g.Name, g.Intro)
		for _, a := range g.Alerts {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n```promql\n%s\n```\n\n", a.Name, a.Meaning, a.Expr)
			list(&b, "Causes", a.Causes)
			list(&b, "What to do", a.Do)
		}
	}
	return b.Bytes()
}

// AlertTable lists the alerts by group, for the guide.
func AlertTable(groups []Group) string {
	var b strings.Builder
	for _, g := range groups {
		if len(g.Alerts) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n**`%s`**: %s\n\n| alert | severity | for | expression |\n|---|---|---|---|\n", g.Name, g.Intro)
		for _, a := range g.Alerts {
			fmt.Fprintf(&b, "| [%s](runbooks.md#%s) | %s | %s | `%s` |\n", a.Name, a.Anchor(), a.Severity, Duration(a.For), strings.ReplaceAll(a.Expr, "|", `\|`))
		}
	}
	return b.String() + "\n"
}

// cell is the first sentence, for a table.
func cell(s string) string {
	first, _, _ := strings.Cut(s, ". ")
	return strings.TrimSuffix(strings.ReplaceAll(first, "|", `\|`), ".")
}

func list(b *bytes.Buffer, title string, items []string) {
	fmt.Fprintf(b, "%s:\n\n", title)
	for _, i := range items {
		b.WriteString("- " + i + "\n")
	}
	b.WriteString("\n")
}
