package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"headway/internal/history"
)

// withSeries is a monitor that holds n series with a label of 50 bytes.
func withSeries(t *testing.T, n int) *Monitor {
	t.Helper()
	m, err := New(Options{
		Gatherer: prometheus.NewRegistry(), Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Instance: "here", URL: &url.URL{Path: "/"}, Interval: 15 * time.Second, Retention: 24 * time.Hour, MaxSeries: 20_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	var samples []history.Sample
	for i := range n {
		samples = append(samples, history.Sample{Labels: labels.FromStrings("__name__", "x", "head", fmt.Sprintf("%050d", i)), Value: float64(i)})
	}
	if _, err := m.store.Add(1_000_000, samples, nil); err != nil {
		t.Fatal(err)
	}
	return m
}

// Each bound lets pass what reaches it and refuses what is beyond.
func TestWhatAQueryMayTake(t *testing.T) {
	m := withSeries(t, 20_000)
	join := func(n int, of string) string {
		return "label_join(" + of + `, "head", ""` + strings.Repeat(`, "head"`, n) + ")"
	}
	replace := func(n int, of string) string {
		return "label_replace(" + of + `, "head", "` + strings.Repeat("$1", n) + `", "head", "(.*)")`
	}
	one := `x{head="` + fmt.Sprintf("%050d", 7) + `"}`
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		name    string
		pass    string
		refuse  string
		reason  string
		minutes int // of a range with a step of 10 s
	}{
		{"bytes", `x{a="` + strings.Repeat("a", 16_000) + `"}`, `x{a="` + strings.Repeat("a", 16_400) + `"}`, "bytes", 0},
		{"words", "1" + strings.Repeat("+1", 1900), "1" + strings.Repeat("+1", 2100), "words", 0},
		{"brackets", strings.Repeat("(", 100) + "1" + strings.Repeat(")", 100), strings.Repeat("(", 101) + "1" + strings.Repeat(")", 101), "brackets", 0},
		{"a pattern", `x{head=~"(aaaaaaaaaa){900}"}`, `x{head=~"(` + strings.Repeat("a", 30) + `){900}"}`, "regular expression", 0},
		{"a pattern that repeats without end", `x{head=~"(a{300,}){3}"}`, `x{head=~"(` + strings.Repeat("[ab]", 90) + `){300,}"}`, "regular expression", 0},
		{"steps", "sum_over_time(" + one + "[249999s:1s])", "sum_over_time(" + one + "[250001s:1s])", "steps", 0},
		{"steps at a fixed time", "sum_over_time(" + one + "[249999s:1s] @ 1000)", "sum_over_time(" + one + "[250001s:1s] @ 1000)", "steps", 10},
		{"steps over a range", "sum_over_time(" + one + "[249000s:1s])", "sum_over_time(" + one + "[249999s:1s])", "steps", 10},
		{"steps of 1 ms", "sum_over_time(" + one + "[1s:1ms])", "sum_over_time(" + one + "[1s:0.0005])", "1ms", 0},
		{"label_join", join(8, join(8, join(8, one))), join(8, join(8, join(8, join(8, one)))), "label value", 0},
		{"label_replace", replace(8, replace(8, replace(8, one))), replace(8, replace(8, replace(8, replace(8, one)))), "label value", 0},
		{"the time of label_replace", `label_replace(x, "a", "$1", "head", "(a{50})")`, `label_replace(x, "a", "$1", "head", "(a{900})")`, "too long", 0},
		{"labels of many series", join(8, "x"), join(8, join(30, "x")), "memory", 0},
		{"or", "x or x or x or x", "x or x or x or x or x or x or x or x", "memory", 0},
		{"many selectors", strings.Join([]string{"sum(x)", "sum(x)", "sum(x)", "sum(x)"}, "+"), "sum(x)" + strings.Repeat("+sum(x)", 100), "memory", 0},
		{"count_values", `count_values("v", ` + one + ")", `count_values("v", x)`, "memory", 60},
		{"steps of many series", "sum(x)", "x * x + x", "memory", 60},
	} {
		ask := func(expr string) error {
			if c.minutes == 0 {
				_, err := m.prepare(t.Context(), nil, expr, at, at, 0)
				return err
			}
			_, err := m.prepare(t.Context(), nil, expr, at, at.Add(time.Duration(c.minutes)*time.Minute), 10*time.Second)
			return err
		}
		if err := ask(c.pass); err != nil {
			t.Errorf("%s: what is allowed is refused: %v", c.name, err)
		}
		if err := ask(c.refuse); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: what is too much gives %v, want %q", c.name, err, c.reason)
		}
	}
}

// The time is looked at all along only where a range is long, since that takes
// a third of the time of a query.
func TestWhereTheTimeIsLookedAt(t *testing.T) {
	m := withSeries(t, 1)
	for _, c := range []struct {
		expr  string
		steps float64 // of 15 s
		want  bool
	}{
		{"sum(x)", 11_000, false},
		{"rate(x[5m])", 11_000, false},
		{"max_over_time(x[1d])", 1, false},
		{"max_over_time(x[1d])", 240, true},
		{"sum(1 - max_over_time(x[1d]))", 240, true},
		{"max_over_time(rate(x[5m])[1h:])", 240, false},
		{"max_over_time(rate(x[5m])[1d:])", 240, true},
		{"max_over_time(max_over_time(x[1d])[1h:])", 1, true},
		{"max_over_time(x[60h:1s])", 1, false},
	} {
		expr, err := m.parser.ParseExpr(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		w := &weighing{m: m, ctx: t.Context()}
		if w.weigh(expr, grid{(c.steps - 1) * 15_000, 15_000}); w.err != nil {
			t.Fatal(w.err)
		}
		if got := w.unseen > maxUnseen; got != c.want {
			t.Errorf("%s at %.0f times reads up to %.0f samples without a look at the time", c.expr, c.steps, w.unseen)
		}
	}
}

// A query of few series ends with its time, however long their ranges are.
func TestALongRangeEndsWithItsTime(t *testing.T) {
	m := withSeries(t, 1)
	from := time.Unix(1000, 0)
	for name, expr := range map[string]string{
		"a subquery":        `quantile_over_time(0.5, vector(time())[240000s:1s])`,
		"one in a function": `abs(quantile_over_time(0.5, vector(time())[240000s:1s]))`,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		q, err := m.prepare(ctx, nil, expr, from, from.Add(9999*time.Second), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- q.Exec(ctx).Err }()
		time.AfterFunc(100*time.Millisecond, cancel)
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s ended before its time", name)
			}
		case <-time.After(20 * time.Second): // a minute and more without a look at the time
			t.Fatalf("%s goes on after its time", name)
		}
	}
}

// A rule is bounded like a query, and so is the file of rules.
func TestRulesAreBounded(t *testing.T) {
	m := withSeries(t, 1)
	deep := strings.Repeat("(", 101) + "1" + strings.Repeat(")", 101)
	if err := m.rules.load([]byte("groups: [{name: g, rules: [{record: r, expr: '" + deep + "'}]}]")); err == nil || !strings.Contains(err.Error(), "brackets") {
		t.Errorf("a rule that is nested too deep: %v", err)
	}
	if err := m.rules.load([]byte("#" + strings.Repeat("x", maxRules))); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a rule file that is too long: %v", err)
	}
	if _, err := m.instant(t.Context(), "sum_over_time(x[100y:1s])", time.Unix(1000, 0)); err == nil || !strings.Contains(err.Error(), "steps") {
		t.Errorf("a rule with too many steps: %v", err)
	}
}

// An answer that is too long to read is not written.
func TestAnAnswerIsBounded(t *testing.T) {
	m := withSeries(t, 10)
	w := httptest.NewRecorder()
	form := url.Values{"query": {"x * 0 + 1.5e308"}, "start": {"1000"}, "end": {"1299.99"}, "step": {"0.03"}}
	m.Handler("").ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/query_range?"+form.Encode(), nil))
	if w.Code != http.StatusOK {
		t.Fatalf("ten series: %d %.200s", w.Code, w.Body)
	}
	m = withSeries(t, 40)
	w = httptest.NewRecorder()
	m.Handler("").ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/query_range?"+form.Encode(), nil))
	if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "64 MiB") {
		t.Errorf("forty series: %d, %d bytes, %.200s", w.Code, w.Body.Len(), w.Body)
	}
}

// What reads series ends when its time is over, and not after the last of them.
func TestACallAboutSeriesEndsWithItsTime(t *testing.T) {
	m := withSeries(t, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	form := url.Values{"match[]": {`{__name__=~".+"}`}}
	for name, do := range map[string]call{"series": m.series, "labels": m.labelNames} {
		if _, err := do(ctx, form, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.store.Extent(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("extent: %v", err)
	}
	form["match[]"] = make([]string, maxSelectors+1)
	if _, err := m.series(t.Context(), form, nil); err == nil || !strings.Contains(err.Error(), "match[]") {
		t.Errorf("65 selectors: %v", err)
	}
}
