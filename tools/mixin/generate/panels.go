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
	Kind    string // stat, timeseries, bargauge, table or heatmap
	Title   string
	About   string // without the metrics, which are appended
	Unit    string
	Queries []query
	Min     *float64
	Max     *float64
	Steps   []step // thresholds; the first has no bound
	None    string // shown when there is nothing
	Stacked bool
	Apart   string            // the one series that is not stacked, since it is no part of the sum
	Runbook string            // alert whose runbook is linked
	Rename  map[string]string // columns of a table
}

type query struct{ Expr, Legend string }

type step struct {
	Color string
	From  float64
}

func ptr[T any](v T) *T { return &v }

// datasource is the variable for every panel.
var datasource = common.DataSourceRef{Type: ptr("prometheus"), Uid: ptr("${datasource}")}

func (p *panel) build(id uint32, at dashboard.GridPos) dashboard.Panel {
	out := dashboard.Panel{
		Type: p.Kind, Id: &id, Title: &p.Title, Description: ptr(p.description()), Datasource: &datasource,
		GridPos: &at, FieldConfig: &dashboard.FieldConfigSource{Defaults: p.field(), Overrides: p.overrides()},
		Options: p.options(),
	}
	for i, q := range p.Queries {
		d := prometheus.Dataquery{Expr: q.Expr, RefId: ptr(string(rune('A' + i))), Datasource: &datasource, LegendFormat: ptr(q.Legend), EditorMode: ptr(prometheus.QueryEditorModeCode)}
		switch p.Kind {
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
	if p.Runbook != "" {
		out.Links = []dashboard.DashboardLink{{
			Title: "Runbook: " + p.Runbook, Type: dashboard.DashboardLinkTypeLink, Url: ptr(runbookURL(p.Runbook)), Tags: []string{}, TargetBlank: true,
		}}
	}
	if p.Kind == "table" {
		excluded := map[string]bool{"Time": true, "__name__": true}
		out.Transformations = []dashboard.DataTransformerConfig{{
			Id: "organize", Options: map[string]any{"excludeByName": excluded, "renameByName": p.Rename, "indexByName": map[string]int{}},
		}}
	}
	return out
}

// description ends with the names of the metrics.
func (p *panel) description() string {
	return p.About + " Metric: " + strings.Join(p.metrics(), ", ") + "."
}

func (p *panel) metrics() (names []string) {
	for _, q := range p.Queries {
		for _, name := range metricsOf(q.Expr) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (p *panel) field() dashboard.FieldConfig {
	f := dashboard.FieldConfig{Min: p.Min, Max: p.Max}
	if p.Unit != "" {
		f.Unit = &p.Unit
	}
	if p.None != "" {
		f.NoValue = &p.None
		f.Mappings = append(f.Mappings, dashboard.ValueMapping{SpecialValueMap: &dashboard.SpecialValueMap{
			Type:    dashboard.MappingTypeSpecialValue,
			Options: dashboard.DashboardSpecialValueMapOptions{Match: dashboard.SpecialValueMatchNullAndNan, Result: dashboard.ValueMappingResult{Text: &p.None, Color: ptr("text")}},
		}})
	}
	steps := p.Steps
	if len(steps) == 0 {
		steps = []step{{Color: "blue"}} // the default paints what is well red
	}
	f.Thresholds = &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute}
	for i, s := range steps {
		t := dashboard.Threshold{Color: s.Color}
		if i > 0 {
			t.Value = ptr(s.From)
		}
		f.Thresholds.Steps = append(f.Thresholds.Steps, t)
	}
	switch p.Kind {
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
	if p.Stacked {
		c.FillOpacity = ptr(30.0)
		c.Stacking = &common.StackingConfig{Mode: ptr(common.StackingModeNormal), Group: ptr("A")}
	}
	return c
}

// overrides colour the one distinct series red, filled.
func (p *panel) overrides() []dashboard.DashboardFieldConfigSourceOverrides {
	if p.Apart == "" {
		return []dashboard.DashboardFieldConfigSourceOverrides{}
	}
	return []dashboard.DashboardFieldConfigSourceOverrides{{
		Matcher: dashboard.MatcherConfig{Id: "byName", Options: p.Apart},
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
	switch p.Kind {
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
		o.YAxis.Unit = &p.Unit
		o.Color.Scheme, o.Color.Mode = "Blues", ptr(heatmap.HeatmapColorModeScheme)
		o.Color.Steps = 32
		return o
	}
	o := timeseries.NewOptions()
	o.Legend = common.VizLegendOptions{DisplayMode: common.LegendDisplayModeList, Placement: common.LegendPlacementBottom, ShowLegend: true, Calcs: []string{}}
	o.Tooltip = common.VizTooltipOptions{Mode: common.TooltipDisplayModeMulti, Sort: common.SortOrderDescending}
	return o
}
