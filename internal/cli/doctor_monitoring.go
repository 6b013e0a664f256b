package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"headway/internal/terminal"
)

// promised are the metrics of the monitoring guide, which dashboards and alerts
// are made of. Each has a series from the first scrape on.
var promised = []string{
	"routing_decisions_total", "head_registrations_total", "head_status_updates_total", "active_heads",
	"http_requests_total", "http_request_duration_seconds_bucket", "cache_hits_total", "cache_misses_total",
	"external_service_calls_total", "process_cpu_seconds_total", "process_resident_memory_bytes",
	"sse_connections", "websocket_connections", "message_queue_messages_total",
}

// scrape judges whether Prometheus gets what it should.
func (f *findings) scrape(values map[string]float64) {
	there := map[string]bool{}
	for series := range values {
		name, _, _ := strings.Cut(series, "{")
		there[name] = true
	}
	missing := slices.DeleteFunc(slices.Clone(promised), func(name string) bool { return there[name] })
	if len(missing) > 0 {
		f.fault("scrape", "/metrics lacks "+strings.Join(missing, ", "), behindProxy+" Dashboards and alerts need them")
		return
	}
	f.fine("scrape", fmt.Sprintf("/metrics has %d series, and all that the guide names", len(values)))
}

const (
	behindProxy = "is there a proxy that answers in the place of the service?"
	monitorOff  = "unless monitor.enabled is false by intent, set it; without it load prometheus/rules and grafana/dashboards into servers of your own"
	maxPage     = 16 << 20 // bytes that are read of a page
)

// page reads as JSON what the service serves besides its API. found is false if
// there is no such page.
func (r *remote) page(ctx context.Context, path string, into any) (found bool, err error) {
	transport, url, err := r.Open()
	if err != nil {
		return false, err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+path, http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: r.Timeout}).Do(req)
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

// rules judges the alert rules and what fires, as Prometheus' API shows them.
func (f *findings) rules(ctx context.Context, r *remote) {
	const check = "alert rules"
	var answer struct {
		Data struct {
			Groups []struct {
				File  string
				Rules []struct {
					Name, State, Health, LastError string
					Labels                         map[string]string
				}
			}
		}
	}
	found, err := r.page(ctx, "/prometheus/api/v1/rules", &answer)
	if err != nil {
		f.fault(check, err.Error(), "name a key that may read with --token-file, or run this as the user of the service on its machine")
		return
	}
	if !found {
		f.warn(check, "the service evaluates none", monitorOff)
		return
	}
	rules, from := 0, "nowhere"
	var broken, firing []string
	for _, group := range answer.Data.Groups {
		from = group.File
		for _, rule := range group.Rules {
			rules++
			if rule.Health == "err" {
				broken = append(broken, rule.Name+": "+rule.LastError)
			}
			if rule.State == "firing" && rule.Labels["severity"] != "none" { // of which that it fires is no news
				firing = append(firing, rule.Name)
			}
		}
	}
	switch {
	case rules == 0:
		f.fault(check, "there are none", "'promtool check rules' says what is wrong with the file of monitor.rules_file")
	case len(broken) > 0:
		f.fault(check, fmt.Sprintf("%d of %d (%s) fail: %s", len(broken), rules, from, strings.Join(broken, "; ")), "mend them in the file of monitor.rules_file, which is read again when it changes")
	default:
		f.fine(check, fmt.Sprintf("%s (%s), all of which can be evaluated", terminal.Count(rules, "rule"), from))
	}
	if len(firing) > 0 {
		f.warn("alerts", "firing: "+strings.Join(firing, ", "), "docs/runbooks.md, and /console/runbooks, say what helps against each")
	} else {
		f.fine("alerts", "none fires")
	}
}

// dashboards judges what the console and Grafana draw.
func (f *findings) dashboards(ctx context.Context, r *remote) {
	const check = "dashboards"
	panels := 0
	for _, name := range []string{"routing-service", "routing-service-enhanced"} {
		var dashboard struct {
			Title  string
			Panels []json.RawMessage
		}
		found, err := r.page(ctx, "/console/dashboards/"+name+".json", &dashboard)
		switch {
		case err != nil:
			f.fault(check, err.Error(), behindProxy)
			return
		case !found:
			f.warn(check, "the service shows none", monitorOff)
			return
		case dashboard.Title == "" || len(dashboard.Panels) == 0:
			f.fault(check, name+" has nothing to draw", behindProxy)
			return
		}
		panels += len(dashboard.Panels)
	}
	f.fine(check, "2 at /console/, with "+terminal.Count(panels, "panel"))
}
