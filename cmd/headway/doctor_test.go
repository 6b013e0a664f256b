package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// finding is what a program reads of the doctor.
type finding struct{ Check, State, Detail, Fix string }

const (
	fine     = "ok"
	warning  = "warning"
	fault    = "fault"
	notAsked = "not asked"
)

// found is what the doctor says, by check.
func (s *shell) found(code int, args ...string) map[string]finding {
	s.Helper()
	out, _ := s.cli(code, append([]string{"doctor", "-o", "json"}, args...)...)
	var list []finding
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	by := map[string]finding{}
	for _, f := range list {
		if by[f.Check] = f; f.State != fine && f.State != notAsked && f.Fix == "" {
			s.Errorf("%+v does not say what helps", f)
		}
	}
	return by
}

// All that the design wants to be checked.
func TestTheDoctorLooksAtEverything(t *testing.T) {
	dir := t.TempDir()
	serve(t, filepath.Join(dir, "data"), "--queue-listen", "127.0.0.1:0")
	found := (&shell{TB: t, dir: dir}).found(exitOK)
	for _, check := range []string{"clock", "file limit", "disk of the state", "disk of the audit trail", "ready: state", "ready: queue", "audit trail", "audit on Redis", "access", "scrape", "alert rules", "alerts", "dashboards"} {
		if found[check].State == "" {
			t.Errorf("%s is not checked", check)
		}
	}
	for check, detail := range map[string]string{"scrape": "all that the guide names", "alert rules": "rules (built in)", "dashboards": "2 at /console/"} {
		if f := found[check]; f.State != fine || !strings.Contains(f.Detail, detail) {
			t.Errorf("%+v", f)
		}
	}
}

func TestTheDoctorSaysThatTheMonitorIsOff(t *testing.T) {
	dir := t.TempDir()
	serve(t, filepath.Join(dir, "data"), "--monitor-enabled=false")
	found := (&shell{TB: t, dir: dir}).found(exitOK)
	for _, check := range []string{"alert rules", "dashboards"} {
		if f := found[check]; f.State != warning || !strings.Contains(f.Fix, "monitor.enabled") {
			t.Errorf("%+v", f)
		}
	}
}

// A proxy that answers with its own pages is no service.
func TestTheDoctorSeesWhatIsNoService(t *testing.T) {
	answers := map[string]string{
		"/readyz":                  `{"status":"ok","checks":[]}`,
		"/metrics":                 "active_heads 3\n",
		"/prometheus/api/v1/rules": `{"data":{"groups":[{"file":"mine.yml","rules":[{"name":"A","health":"err","lastError":"many-to-many"},{"name":"B","health":"ok","state":"firing","labels":{"severity":"warning"}},{"name":"Watchdog","health":"ok","state":"firing","labels":{"severity":"none"}}]}]}}`,
		"/console/dashboards/routing-service.json": "<html>",
	}
	s := &shell{TB: t, dir: t.TempDir()}
	found := func() map[string]finding {
		t.Helper()
		served := maps.Clone(answers)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if served[r.URL.Path] == "" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(served[r.URL.Path]))
		}))
		defer server.Close()
		return s.found(exitError, "--server", server.URL)
	}
	wants := func(f finding, state, detail string) {
		t.Helper()
		if f.State != state || !strings.Contains(f.Detail, detail) {
			t.Errorf("%+v; want %s with %q", f, state, detail)
		}
	}
	all := found()
	wants(all["scrape"], fault, "lacks routing_decisions_total")
	wants(all["alert rules"], fault, "1 of 3 (mine.yml) fail: A: many-to-many")
	wants(all["alerts"], warning, "firing: B")
	if strings.Contains(all["alerts"].Detail, "Watchdog") {
		t.Errorf("%+v", all["alerts"])
	}
	wants(all["dashboards"], fault, "cannot be read")
	answers["/prometheus/api/v1/rules"] = `{"data":{"groups":[]}}`
	answers["/console/dashboards/routing-service.json"] = `{"title":"x","panels":[]}`
	all = found()
	wants(all["alert rules"], fault, "there are none")
	wants(all["dashboards"], fault, "nothing to draw")
}
