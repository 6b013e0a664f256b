package main

import (
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

type panel struct {
	kind    string // stat, timeseries, bargauge, table or heatmap
	title   string
	about   string // without the metrics, which are appended
	unit    string
	queries []query
	width   uint32 // of 24
	height  uint32
	min     *float64
	max     *float64
	steps   []step // thresholds; the first has no bound
	none    string // shown when there is nothing
	stacked bool
	apart   string            // the one series that is not stacked, since it is no part of the sum
	runbook string            // alert whose runbook is linked
	rename  map[string]string // columns of a table
}

type query struct{ expr, legend string }

type step struct {
	color string
	from  float64
}

func ptr[T any](v T) *T { return &v }

// of selects a metric of the chosen job and instances.
func of(metric string, more ...string) string {
	return metric + "{" + strings.Join(append([]string{`job=~"$job"`, `instance=~"$instance"`}, more...), ",") + "}"
}

// Selectors of the variables region and model.
const (
	byRegion = `region=~"$region"`
	byModel  = `model_type=~"$model"`
)

func rate(selector string) string { return "rate(" + selector + "[$__rate_interval])" }

// quantile is a quantile of a histogram, by labels. Without observations it is
// absent rather than NaN, so that the panel says "No data".
func quantile(q, selector string, by ...string) string {
	return "histogram_quantile(" + q + ", sum by (" + strings.Join(append(by, "le"), ", ") + ") (" + rate(selector) + ")) >= 0"
}

// datasource is the variable for every panel.
var datasource = common.DataSourceRef{Type: ptr("prometheus"), Uid: ptr("${datasource}")}

func (p *panel) build(id uint32, at dashboard.GridPos) dashboard.Panel {
	out := dashboard.Panel{
		Type: p.kind, Id: &id, Title: &p.title, Description: ptr(p.description()), Datasource: &datasource,
		GridPos: &at, FieldConfig: &dashboard.FieldConfigSource{Defaults: p.field(), Overrides: p.overrides()},
		Options: p.options(),
	}
	for i, q := range p.queries {
		d := prometheus.Dataquery{Expr: q.expr, RefId: ptr(string(rune('A' + i))), Datasource: &datasource, LegendFormat: ptr(q.legend), EditorMode: ptr(prometheus.QueryEditorModeCode)}
		switch p.kind {
		case "stat", "bargauge":
			d.Instant, d.Range = ptr(true), ptr(false) // what is now, which a range would hold up after it is gone
		case "table":
			d.Instant, d.Range, d.Format = ptr(true), ptr(false), ptr(prometheus.PromQueryFormatTable)
		case "heatmap":
			d.Range, d.Format = ptr(true), ptr(prometheus.PromQueryFormatHeatmap)
		default:
			d.Range = ptr(true)
		}
		out.Targets = append(out.Targets, variants.Dataquery(d))
	}
	if p.runbook != "" {
		out.Links = []dashboard.DashboardLink{{
			Title: "Runbook: " + p.runbook, Type: dashboard.DashboardLinkTypeLink, Url: ptr(runbookURL(p.runbook)), Tags: []string{}, TargetBlank: true,
		}}
	}
	if p.kind == "table" {
		excluded := map[string]bool{"Time": true, "__name__": true}
		out.Transformations = []dashboard.DataTransformerConfig{{
			Id: "organize", Options: map[string]any{"excludeByName": excluded, "renameByName": p.rename, "indexByName": map[string]int{}},
		}}
	}
	return out
}

// description ends with the names of the metrics.
func (p *panel) description() string {
	return p.about + " Metric: " + strings.Join(p.metrics(), ", ") + "."
}

func (p *panel) metrics() (names []string) {
	for _, q := range p.queries {
		for _, name := range metricsOf(q.expr) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (p *panel) field() dashboard.FieldConfig {
	f := dashboard.FieldConfig{Min: p.min, Max: p.max}
	if p.unit != "" {
		f.Unit = &p.unit
	}
	if p.none != "" {
		f.NoValue = &p.none
		f.Mappings = append(f.Mappings, dashboard.ValueMapping{SpecialValueMap: &dashboard.SpecialValueMap{
			Type:    dashboard.MappingTypeSpecialValue,
			Options: dashboard.DashboardSpecialValueMapOptions{Match: dashboard.SpecialValueMatchNullAndNan, Result: dashboard.ValueMappingResult{Text: &p.none, Color: ptr("text")}},
		}})
	}
	steps := p.steps
	if len(steps) == 0 {
		steps = []step{{color: "blue"}} // the default paints what is well red
	}
	f.Thresholds = &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute}
	for i, s := range steps {
		t := dashboard.Threshold{Color: s.color}
		if i > 0 {
			t.Value = ptr(s.from)
		}
		f.Thresholds.Steps = append(f.Thresholds.Steps, t)
	}
	switch p.kind {
	case "timeseries":
		f.Color = &dashboard.FieldColor{Mode: dashboard.FieldColorModeIdPaletteClassic}
		f.Custom = p.lines()
		f.Thresholds = &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute, Steps: []dashboard.Threshold{{Color: "blue"}}}
	case "stat", "bargauge":
		f.Color = &dashboard.FieldColor{Mode: dashboard.FieldColorModeIdThresholds}
	}
	return f
}

func (p *panel) lines() any {
	c := timeseries.NewFieldConfig()
	c.LineWidth, c.FillOpacity = ptr(1.5), ptr(8.0)
	c.ShowPoints = ptr(common.VisibilityModeNever)
	if p.stacked {
		c.FillOpacity = ptr(30.0)
		c.Stacking = &common.StackingConfig{Mode: ptr(common.StackingModeNormal), Group: ptr("A")}
	}
	return c
}

// overrides colour the one distinct series red, filled.
func (p *panel) overrides() []dashboard.DashboardFieldConfigSourceOverrides {
	if p.apart == "" {
		return []dashboard.DashboardFieldConfigSourceOverrides{}
	}
	return []dashboard.DashboardFieldConfigSourceOverrides{{
		Matcher: dashboard.MatcherConfig{Id: "byName", Options: p.apart},
		Properties: []dashboard.DynamicConfigValue{
			{Id: "custom.stacking", Value: map[string]any{"group": "A", "mode": "none"}},
			{Id: "color", Value: map[string]any{"fixedColor": "red", "mode": "fixed"}},
		},
	}}
}

func last() common.ReduceDataOptions {
	return common.ReduceDataOptions{Calcs: []string{"lastNotNull"}, Values: ptr(false)}
}

func (p *panel) options() any {
	switch p.kind {
	case "stat":
		o := stat.NewOptions()
		o.ReduceOptions, o.ColorMode, o.TextMode, o.WideLayout = last(), common.BigValueColorModeValue, common.BigValueTextModeAuto, true
		o.GraphMode = common.BigValueGraphModeNone
		return o
	case "bargauge":
		o := bargauge.NewOptions()
		o.ReduceOptions, o.DisplayMode, o.Orientation, o.ShowUnfilled = last(), common.BarGaugeDisplayModeBasic, common.VizOrientationHorizontal, true
		return o
	case "table":
		o := table.NewOptions()
		o.ShowHeader = true
		return o
	case "heatmap":
		o := heatmap.NewOptions()
		o.YAxis.Unit = &p.unit
		o.Color.Scheme, o.Color.Mode = "Blues", ptr(heatmap.HeatmapColorModeScheme)
		o.Color.Steps = 32
		return o
	}
	o := timeseries.NewOptions()
	o.Legend = common.VizLegendOptions{DisplayMode: common.LegendDisplayModeList, Placement: common.LegendPlacementBottom, ShowLegend: true, Calcs: []string{}}
	o.Tooltip = common.VizTooltipOptions{Mode: common.TooltipDisplayModeMulti, Sort: common.SortOrderDescending}
	return o
}
