package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"headway/internal/local"
	"headway/internal/terminal"
)

const (
	behindProxy = "is there a proxy that answers in the place of the service?"
	monitorOff  = "unless monitor.enabled is false by intent, set it; without it load prometheus/rules and grafana/dashboards into servers of your own"
	maxPage     = 16 << 20 // bytes that are read of a page
)

// page reads as JSON what the service serves besides its API. found is false if
// there is no such page.
func page(ctx context.Context, target local.Target, path string, into any) (found bool, err error) {
	transport, url, err := target.Open()
	if err != nil {
		return false, err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+path, http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: target.Timeout}).Do(req)
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
func (f *findings) rules(ctx context.Context, target local.Target) {
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
	found, err := page(ctx, target, "/prometheus/api/v1/rules", &answer)
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
		f.fault(check, fmt.Sprintf("%d of %d (%s) fail: %s", len(broken), rules, from, strings.Join(broken, "; ")), "correct them in the file of monitor.rules_file, which is read again when it changes")
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
func (f *findings) dashboards(ctx context.Context, target local.Target) {
	const check = "dashboards"
	panels := 0
	for _, name := range []string{"routing-service", "routing-service-enhanced"} {
		var dashboard struct {
			Title  string
			Panels []json.RawMessage
		}
		found, err := page(ctx, target, "/console/dashboards/"+name+".json", &dashboard)
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
