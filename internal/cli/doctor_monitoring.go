package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// promised are the metrics of the monitoring guide, which dashboards and alerts
// are made of. Each has a series from the first scrape on.
var promised = []string{
	"routing_decisions_total", "head_registrations_total", "head_status_updates_total", "active_heads",
	"http_requests_total", "http_request_duration_seconds_bucket", "cache_hits_total", "cache_misses_total",
	"external_service_calls_total", "process_cpu_seconds_total", "process_resident_memory_bytes",
	"sse_connections", "websocket_connections", "message_queue_messages_total",
}

// scrapeFinding judges whether Prometheus gets what it should.
func scrapeFinding(values map[string]float64) finding {
	there := map[string]bool{}
	for series := range values {
		name, _, _ := strings.Cut(series, "{")
		there[name] = true
	}
	missing := slices.DeleteFunc(slices.Clone(promised), func(name string) bool { return there[name] })
	if len(missing) > 0 {
		return finding{
			"scrape", fault, "/metrics lacks " + strings.Join(missing, ", "),
			"is there a proxy that answers in the place of the service? Dashboards and alerts need them",
		}
	}
	return finding{"scrape", fine, fmt.Sprintf("/metrics has %d series, and all that the guide names", len(values)), ""}
}

// pages reads what the service serves besides its API.
type pages struct {
	url  string
	http *http.Client
}

func (r *remote) pages() (*pages, error) {
	transport, url, err := r.open()
	if err != nil {
		return nil, err
	}
	return &pages{strings.TrimSuffix(url, "/"), &http.Client{Transport: transport, Timeout: r.timeout}}, nil
}

// maxPage is the longest page that is read, in bytes.
const maxPage = 16 << 20

// get reads a page as JSON. found is false if there is no such page.
func (p *pages) get(ctx context.Context, path string, into any) (found bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return false, nil
	default:
		return false, fmt.Errorf("%s answers %s", path, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPage)).Decode(into); err != nil {
		return false, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return true, nil
}

const monitorOff = "unless monitor.enabled is false by intent, set it; without it load prometheus/rules and grafana/dashboards into servers of your own"

func (p *pages) examine(ctx context.Context) []finding {
	return append(p.rules(ctx), p.dashboards(ctx))
}

// rules are the findings about alerts.
func (p *pages) rules(ctx context.Context) []finding {
	const check = "alert rules"
	var answer struct {
		Data struct {
			Groups []struct {
				File  string
				Rules []rule
			}
		}
	}
	found, err := p.get(ctx, "/prometheus/api/v1/rules", &answer)
	switch {
	case err != nil:
		return []finding{{check, fault, err.Error(), "name a key that may read with --token-file, or run this as the user of the service on its machine"}}
	case !found:
		return []finding{{check, warning, "the service evaluates none", monitorOff}}
	}
	var rules []rule
	from := "nowhere"
	for _, g := range answer.Data.Groups {
		rules, from = append(rules, g.Rules...), g.File
	}
	return judgeRules(rules, from)
}

// rule is a rule as Prometheus' API shows it.
type rule struct {
	Name, State, Health, LastError string
	Labels                         map[string]string
}

func judgeRules(rules []rule, from string) []finding {
	var broken, firing []string
	for _, r := range rules {
		if r.Health == "err" {
			broken = append(broken, r.Name+": "+r.LastError)
		}
		if r.State == "firing" && r.Labels["severity"] != "none" { // of which that it fires is no news
			firing = append(firing, r.Name)
		}
	}
	health := finding{"alert rules", fine, fmt.Sprintf("%s (%s), all of which can be evaluated", counted(len(rules), "rule"), from), ""}
	switch {
	case len(rules) == 0:
		health.State, health.Detail, health.Fix = fault, "there are none", "'promtool check rules' says what is wrong with the file of monitor.rules_file"
	case len(broken) > 0:
		health.State, health.Detail = fault, fmt.Sprintf("%d of %d (%s) fail: %s", len(broken), len(rules), from, strings.Join(broken, "; "))
		health.Fix = "mend them in the file of monitor.rules_file, which is read again when it changes"
	}
	alerts := finding{"alerts", fine, "none fires", ""}
	if len(firing) > 0 {
		alerts.State, alerts.Detail, alerts.Fix = warning, "firing: "+strings.Join(firing, ", "), "docs/runbooks.md, and /console/runbooks, say what helps against each"
	}
	return []finding{health, alerts}
}

// dashboards is the finding about what the console and Grafana draw.
func (p *pages) dashboards(ctx context.Context) finding {
	const check = "dashboards"
	panels := 0
	for _, name := range []string{"routing-service", "routing-service-enhanced"} {
		var dashboard struct {
			Title  string
			Panels []json.RawMessage
		}
		found, err := p.get(ctx, "/console/dashboards/"+name+".json", &dashboard)
		switch {
		case err != nil:
			return finding{check, fault, err.Error(), "is there a proxy that answers in the place of the service?"}
		case !found:
			return finding{check, warning, "the service shows none", monitorOff}
		case dashboard.Title == "" || len(dashboard.Panels) == 0:
			return finding{check, fault, name + " has nothing to draw", "is there a proxy that answers in the place of the service?"}
		}
		panels += len(dashboard.Panels)
	}
	return finding{check, fine, "2 at /console/, with " + counted(panels, "panel"), ""}
}
