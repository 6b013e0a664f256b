package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

// expanded expands a text as the alerts of a rule do, and as Prometheus does.
func expanded(t testing.TB, text string) (ours string, err error, theirs string, theirErr error) {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	long := strings.Repeat("x", 1000)
	data := template.AlertTemplateData(map[string]string{"job": "a<b>", "long": long, "host": "h.example:80"}, nil, "", promql.Sample{F: 1234.5})
	query := func(_ context.Context, q string, _ time.Time) (promql.Vector, error) {
		if q == "none" {
			return nil, nil
		}
		var v promql.Vector
		for i := range 50 {
			v = append(v, promql.Sample{F: float64(i), Metric: labels.FromStrings("i", fmt.Sprint(i%7, i), "long", long)})
		}
		return v, nil
	}
	external := &url.URL{Scheme: "http", Host: "here", Path: "/prometheus"}
	ours, err = expand(ctx, variables+text, "__alert_A", data, query, external, now)
	theirs, theirErr = "", errors.New("not asked")
	if !strings.HasPrefix(t.Name(), "TestHostile") {
		theirs, theirErr = template.NewTemplateExpander(ctx, variables+text, "__alert_A", data, model.Time(timestamp.FromTime(now)), query, external, nil).Expand()
	}
	return ours, err, theirs, theirErr
}

// What is counted says the same as Prometheus.
func TestTemplatesSayWhatPrometheusSays(t *testing.T) {
	well := 0
	for _, text := range []string{
		``, `plain`, `{ {{- $value -}} }`, `{{ "{{" }} { {{- /* nothing */ -}} }`, "\xff{{ $value }}\x00\n",
		`{{ $value | humanize }} of {{ $labels.job }}, {{ $labels.nothing }}|{{ .Labels.nothing }}|{{ $externalLabels }}`,
		`{{ with query "up" }}{{ . | first | value }}{{ end }}{{ with query "none" }}no{{ else }}none{{ end }}`,
		`{{ range $i, $s := query "up" | sortByLabel "i" }}{{ if gt $i 3 }}{{ break }}{{ else if eq $i 1 }}{{ continue }}{{ end }}{{ $i }}={{ $s.Labels.i }},{{ $s | value }};{{ end }}`,
		`{{ define "a" }}<{{ . }}>{{ end }}{{ template "a" $labels.job }}{{ block "b" 3 }}{{ . }}{{ end }}`,
		`{{ $x := printf "%s-%05.2f%%|%q|%v" $labels.job $value $labels.host true }}{{ $x }}{{ $x = "y" }}{{ print $x 1 2 "z" }}{{ println $x }}`,
		`{{ html $labels.job }} {{ js "a'b" }} {{ urlquery "a b&" 1 }} {{ reReplaceAll "(.)x" "$1-$1" "axbx" }}`,
		`{{ reReplaceAll "(" "" "a" }}`,
		`{{ (args 1 "b").arg1 }}{{ (args 1).arg7 }}{{ externalURL }}{{ pathPrefix }}{{ graphLink "up" }}{{ stripPort $labels.host }}`,
		`{{ if }}`, `{{ nothing }}`, `{{ $undefined }}`, `{{ template "missing" }}`, `{{ query "up" | first | label "i" }}`, `{{ index (query "up") 60 }}`,
	} {
		ours, err, theirs, theirErr := expanded(t, text)
		if err == nil {
			well++
		}
		if ours != theirs || (err == nil) != (theirErr == nil) {
			t.Errorf("%s\nis here  %q, %v\nand there %q, %v", text, ours, err, theirs, theirErr)
		}
	}
	if well != 13 {
		t.Errorf("%d of these texts are well, want 13", well)
	}
}

// However a template makes its text long, it ends early and stays small.
func TestHostileTemplatesAreBounded(t *testing.T) {
	double := strings.Repeat(`{{ $x = printf "%s%s" $x $x }}`, 60)
	for name, text := range map[string]string{
		"a loop over a number":            `{{ range 1000000000000 }}x{{ end }}`,
		"an empty loop":                   `{{ range 1000000000000 }}{{ end }}`,
		"a loop that assigns":             `{{ $x := 0 }}{{ range $i := 1000000000000 }}{{ $x = $i }}{{ end }}`,
		"loops within each other":         `{{ $q := query "up" }}{{ range $q }}{{ range $q }}{{ range $q }}{{ range $q }}{{ range $q }}a{{ end }}{{ end }}{{ end }}{{ end }}{{ end }}`,
		"a template that calls itself":    `{{ define "a" }}x{{ template "a" . }}{{ template "a" . }}{{ end }}{{ template "a" . }}`,
		"one that ends, doubling":         `{{ define "a" }}{{ if . }}{{ $r := slice . 1 }}{{ template "a" $r }}{{ template "a" $r }}{{ end }}{{ end }}{{ template "a" "` + strings.Repeat("y", 60) + `" }}`,
		"a text that doubles":             `{{ $x := "ab" }}` + double + `{{ $x }}`,
		"one that is not shown":           `{{ $x := "ab" }}` + double,
		"by print":                        `{{ $x := "ab" }}` + strings.ReplaceAll(double, `printf "%s%s"`, `print`) + `{{ $x }}`,
		"by println":                      `{{ $x := "ab" }}` + strings.ReplaceAll(double, `printf "%s%s"`, `println`) + `{{ $x }}`,
		"by html":                         `{{ $x := "<>" }}` + strings.ReplaceAll(double, `printf "%s%s"`, `html`) + `{{ $x }}`,
		"by js":                           `{{ $x := "<>" }}` + strings.ReplaceAll(double, `printf "%s%s"`, `js`) + `{{ $x }}`,
		"by urlquery":                     `{{ $x := "<>" }}` + strings.ReplaceAll(double, `printf "%s%s"`, `urlquery`) + `{{ $x }}`,
		"by a regular expression":         `{{ $x := "a" }}` + strings.Repeat(`{{ $x = reReplaceAll "." "$0$0" $x }}`, 60) + `{{ $x }}`,
		"a wide number":                   `{{ printf "%999999d" 1 }}`,
		"a width that is given":           `{{ printf "%*d" 999999 1 }}`,
		"a precision":                     `{{ printf "%.999999f" 1.0 }}`,
		"a width that would fit":          `{{ printf "%1000s" "" }}`,
		"a text many times":               `{{ $x := printf "%60000s" "" }}{{ printf "` + strings.Repeat("%[1]s", 5000) + `" $x }}`,
		"a label many times":              `{{ printf "` + strings.Repeat("%[1]s", 5000) + `" $labels.long }}`,
		"labels of all":                   `{{ range query "up" }}{{ .Labels.long }}{{ .Labels.long }}{{ end }}`,
		"all at once":                     `{{ $q := query "up" }}{{ range 1000 }}{{ query "up" }}{{ end }}`,
		"long as it stands":               strings.Repeat("x", maxExpanded) + `{{ $value }}`,
		"long in a place never looked at": strings.Repeat(`{{ $x := "`+strings.Repeat("y", 1000)+`" }}{{ $x }}`, 70),
	} {
		text, err, _, _ := expanded(t, text)
		if err == nil || !strings.Contains(err.Error(), "64 KiB") && !strings.Contains(err.Error(), "three digits") {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
}

// FuzzTemplate expands anything: it ends soon, and what it becomes is bounded.
func FuzzTemplate(f *testing.F) {
	f.Add(`{{ $value | humanize }} of {{ $labels.job }}{{ range $i, $s := query "up" }}{{ $i }}{{ break }}{{ end }}`)
	f.Add(`{{ define "a" }}{{ if . }}{{ template "a" (slice . 1) }}{{ end }}{{ end }}{{ template "a" "xyz" }}`)
	f.Add(`{{ $x := printf "%5s%q" $labels.long "b" }}{{ range 9 }}{{ $x = reReplaceAll "." "$0$0" $x }}{{ end }}{{ $x }}`)
	f.Fuzz(func(t *testing.T, text string) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		data := template.AlertTemplateData(map[string]string{"job": "a", "long": strings.Repeat("x", 1000)}, nil, "", promql.Sample{F: 1})
		query := func(context.Context, string, time.Time) (promql.Vector, error) {
			return promql.Vector{{F: 1, Metric: labels.FromStrings("a", "b")}, {F: 2}}, nil
		}
		text, _ = expand(ctx, variables+text, "__alert_A", data, query, &url.URL{}, time.Unix(0, 0))
		if len(text) > maxExpanded || ctx.Err() != nil {
			t.Errorf("%d bytes, %v", len(text), ctx.Err())
		}
	})
}
