package main

import (
	"bytes"
	_ "embed" // the dashboards
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"
)

//go:embed dashboards.yaml
var dashboardsFile []byte

type board struct {
	UID, Title, About string
	Sections          []section
}

// section is a row of panels of one size. Without a title it is not shown.
type section struct {
	Title         string
	Width, Height uint32   // of a panel; a row is 24 wide
	Names         []string `yaml:"panels"`
	panels        []panel  // of these names
}

// selectors are what stands for them in the file.
var selectors = strings.NewReplacer(
	"@job", `job=~"$job",instance=~"$instance"`, "@model", `model_type=~"$model"`, "@region", `region=~"$region"`, "@rate", "$__rate_interval",
)

// boards are the dashboards of the file. It panics on a fault: the file is part
// of the program.
func boards() []board {
	var file struct {
		Panels map[string]panel
		Boards []board
	}
	in := yaml.NewDecoder(bytes.NewReader(dashboardsFile))
	in.KnownFields(true)
	if err := in.Decode(&file); err != nil {
		panic(fmt.Sprintf("dashboards.yaml: %v", err))
	}
	for _, b := range file.Boards {
		for i := range b.Sections {
			for _, name := range b.Sections[i].Names {
				p, known := file.Panels[name]
				if !known {
					panic("dashboards.yaml has no panel " + name)
				}
				p.Queries = slices.Clone(p.Queries)
				for n := range p.Queries {
					p.Queries[n].Expr = selectors.Replace(p.Queries[n].Expr)
				}
				b.Sections[i].panels = append(b.Sections[i].panels, p)
			}
		}
	}
	return file.Boards
}

// schemaVersion is that of Grafana 10.0, from which later versions migrate. The
// SDK's own is that of Grafana 12, which older servers refuse.
const schemaVersion = 38

func compose(of board) (dashboard.Dashboard, error) {
	b := dashboard.NewDashboardBuilder(of.Title).Uid(of.UID).Description(of.About).Tags([]string{"headway", "routing-service"}).
		Refresh("15s").Time("now-1h", "now").Timezone("browser").Tooltip(dashboard.DashboardCursorSyncCrosshair).Readonly().
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus").
			Current(dashboard.VariableOption{Selected: ptr(true), Text: shown("default"), Value: shown("default")})).
		WithVariable(labelVariable("job", "Job", ".+", "label_values(active_heads, job)")).
		WithVariable(labelVariable("instance", "Instance", ".+", `label_values(active_heads{job=~"$job"}, instance)`)).
		WithVariable(labelVariable("region", "Region", ".*", `label_values(routing_decisions_total{job=~"$job"}, region)`)).
		WithVariable(labelVariable("model", "Model type", ".*", `label_values(routing_decisions_total{job=~"$job"}, model_type)`)).
		Link(dashboard.NewDashboardLinkBuilder("Runbooks").Url(runbookURL("")).Type(dashboard.DashboardLinkTypeLink).TargetBlank(true))
	d, err := b.Build()
	if err != nil {
		return d, err
	}
	d.SchemaVersion = schemaVersion
	id, y := uint32(1), uint32(0)
	for _, s := range of.Sections {
		if s.Title != "" {
			row := dashboard.RowPanel{Type: "row", Title: &s.Title, Id: id, Panels: []dashboard.Panel{}, GridPos: &dashboard.GridPos{H: 1, W: 24, Y: y}}
			id++
			y++
			d.Panels = append(d.Panels, dashboard.PanelOrRowPanel{RowPanel: &row})
		}
		x, tallest := uint32(0), uint32(0)
		for i := range s.panels {
			p := &s.panels[i]
			if x+s.Width > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			built := p.build(id, dashboard.GridPos{X: x, Y: y, W: s.Width, H: s.Height})
			id++
			x, tallest = x+s.Width, max(tallest, s.Height)
			d.Panels = append(d.Panels, dashboard.PanelOrRowPanel{Panel: &built})
		}
		y += tallest
	}
	return d, nil
}

func shown(s string) dashboard.StringOrArrayOfString {
	return dashboard.StringOrArrayOfString{String: &s}
}

// labelVariable selects values of a label. all is ".*" where series may lack
// it, as failed decisions without a region do.
func labelVariable(name, label, all, definition string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(datasource).
		Query(dashboard.StringOrMap{String: &definition}).Definition(definition).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).IncludeAll(true).AllValue(all).
		Current(dashboard.VariableOption{Selected: ptr(true), Text: shown("All"), Value: shown("$__all")})
}

// dashboards are the files by name.
func dashboards() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, d := range boards() {
		made, err := compose(d)
		if err != nil {
			return nil, err
		}
		raw, err := json.MarshalIndent(made, "", "  ")
		if err != nil {
			return nil, err
		}
		files["grafana/dashboards/"+d.UID+".json"] = append(raw, '\n')
	}
	return files, nil
}

// metricName matches a name in an expression that is no function, keyword or
// label.
var (
	metricName = regexp.MustCompile(`\b([a-zA-Z_][a-zA-Z0-9_]*)\{`)
	bareName   = regexp.MustCompile(`\b(up|ALERTS)\b`)
)

func metricsOf(expr string) (names []string) {
	for _, m := range metricName.FindAllStringSubmatch(expr, -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	if len(names) == 0 {
		names = append(names, bareName.FindString(expr))
	}
	return names
}
