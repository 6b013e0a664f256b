package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"headway/api"
	"headway/internal/audit"
	"headway/internal/httpapi"
)

// stateFile is a state of two lines, which fails as it is set.
type stateFile struct {
	broken  error         // instead of the first line
	cut     error         // instead of the second
	damaged []string      // what a check finds
	begun   chan struct{} // is closed when an export begins; nil: no test waits
	goOn    chan struct{} // an export waits until it is closed
}

func (f *stateFile) Export(_ context.Context, w io.Writer) error {
	if f.begun != nil {
		close(f.begun)
		<-f.goOn
	}
	if f.broken != nil {
		return f.broken
	}
	if _, err := io.WriteString(w, "{\"format\":\"headway-state\"}\n"); err != nil || f.cut != nil {
		return errors.Join(err, f.cut)
	}
	_, err := io.WriteString(w, "{\"end\":{}}\n")
	return err
}

func (f *stateFile) Check(context.Context) (api.StateReport, error) {
	return api.StateReport{
		Sound: len(f.damaged) == 0, Buckets: []api.StateBucket{{Name: "heads", Records: 1}}, Faults: append([]string{}, f.damaged...),
	}, f.broken
}

func TestTheStateIsExportedAndChecked(t *testing.T) {
	w := newWorld(t)
	c := theContract(t)
	for _, target := range []string{"/api/v1/state/export", "/api/v1/state/check"} {
		a := w.must(http.StatusOK, http.MethodGet, target, "")
		c.answer(t, newRequest(t, http.MethodGet, target, ""), a)
		e := w.recorded.take()
		if len(e) != 1 || e[0].Outcome != audit.Success || e[0].Category != audit.Admin || e[0].Target.Type != "state" {
			t.Errorf("%s is recorded as %+v", target, e)
		}
	}
	if a := w.must(http.StatusOK, http.MethodGet, "/api/v1/state/export", ""); strings.Count(string(a.body), "\n") != 2 || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("exported %q with %v", a.body, a.header)
	}
	w.state.damaged = []string{"page 7 is used twice"}
	if r := into[api.StateReport](t, w.must(http.StatusOK, http.MethodGet, "/api/v1/state/check", "")); r.Sound || len(r.Faults) != 1 {
		t.Errorf("%+v", r)
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		w.problem(http.StatusMethodNotAllowed, api.CodeMethodNotAllowed, w.do(method, "/api/v1/state/export", ""))
	}
}

// Of a state that cannot be read whole nothing passes for a copy: before the
// first line there is a problem, after it the connection breaks.
func TestHalfAnExportIsNoExport(t *testing.T) {
	w := newWorld(t)
	address := w.listen()
	w.state.broken = errors.New("the file /var/lib/x is damaged")
	for _, target := range []string{"/api/v1/state/export", "/api/v1/state/check"} {
		if p := w.problem(http.StatusInternalServerError, api.CodeInternal, w.do(http.MethodGet, target, "")); strings.Contains(p.Detail, "/var") {
			t.Errorf("%s says %q", target, p.Detail)
		}
	}
	w.state.broken, w.state.cut = nil, errors.New("the disk is gone")
	w.recorded.take()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/api/v1/state/export", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("half of an export arrived as a whole one")
	}
	e := w.recorded.take()
	if len(e) != 2 || e[1].Outcome != audit.Failure || e[1].Action != "state.export" {
		t.Errorf("recorded %+v", e)
	}
}

// Each export is in memory, so there is one at a time; the next learns when.
func TestOneExportAtATime(t *testing.T) {
	w := newWorld(t)
	w.state.begun, w.state.goOn = make(chan struct{}), make(chan struct{})
	first := make(chan *answer)
	go func() { first <- w.do(http.MethodGet, "/api/v1/state/export", "") }()
	<-w.state.begun
	for _, target := range []string{"/api/v1/state/export", "/api/v1/state/check"} {
		a := w.do(http.MethodGet, target, "")
		w.problem(http.StatusTooManyRequests, api.CodeRateLimited, a)
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %v", target, a.header)
		}
	}
	close(w.state.goOn)
	if a := <-first; a.status != http.StatusOK {
		t.Errorf("the first: %d %s", a.status, a.body)
	}
	w.must(http.StatusOK, http.MethodGet, "/api/v1/state/check", "")
}

func TestAServiceWithoutAStateFileSaysSo(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.State = nil })
	for _, target := range []string{"/api/v1/state/export", "/api/v1/state/check"} {
		w.problem(http.StatusServiceUnavailable, api.CodeStateUnavailable, w.do(http.MethodGet, target, ""))
	}
}
