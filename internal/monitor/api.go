package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// Limits of the read API.
const (
	maxPoints    = 11_000   // of one series in a range query, as in Prometheus
	maxForm      = 64 << 10 // bytes of the parameters
	maxListed    = 20_000   // of series, names and values in one answer
	maxSelectors = 64       // of one call about series
)

// The kinds of errors that Prometheus' clients know.
const (
	badData       = "bad_data"
	execution     = "execution"
	queryTimedOut = "timeout"
	canceled      = "canceled"
	unavailable   = "unavailable"
	notFound      = "not_found"
)

// apiError is an error of the read API.
type apiError struct {
	kind string
	err  error
}

func (e *apiError) Error() string { return e.err.Error() }

func bad(format string, args ...any) error { return &apiError{badData, fmt.Errorf(format, args...)} }

// statuses are those of HTTP for the kinds of errors.
var statuses = map[string]int{
	badData: http.StatusBadRequest, execution: http.StatusUnprocessableEntity, notFound: http.StatusNotFound,
	queryTimedOut: http.StatusServiceUnavailable, canceled: http.StatusServiceUnavailable, unavailable: http.StatusServiceUnavailable,
}

// answer is the body of every answer.
type answer struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitzero"`
	ErrorType string   `json:"errorType,omitzero"`
	Error     string   `json:"error,omitzero"`
	Warnings  []string `json:"warnings,omitempty"`
	Infos     []string `json:"infos,omitempty"`
}

// result is what a call answers with.
type result struct {
	data  any
	notes annotations.Annotations
	expr  string
}

type call func(ctx context.Context, form url.Values, r *http.Request) (result, error)

// api is the whole read API. Calls that read series or gather take a place. The
// others are answered at once.
func (m *Monitor) api() http.Handler {
	mux := http.NewServeMux()
	mount := func(calls map[string]call, admit func(call) call) {
		for path, do := range calls {
			mux.HandleFunc("GET /api/v1/"+path, m.serve(admit(do)))
			mux.HandleFunc("POST /api/v1/"+path, m.serve(admit(do)))
		}
	}
	mount(map[string]call{
		"query":               m.query,
		"query_range":         m.queryRange,
		"series":              m.series,
		"labels":              m.labelNames,
		"label/{name}/values": m.labelValues,
		"metadata":            m.metadata,
	}, m.inPlace)
	known := func(data func() any) call {
		return func(context.Context, url.Values, *http.Request) (result, error) { return result{data: data()}, nil }
	}
	mount(map[string]call{
		"rules":              m.listRules,
		"alerts":             known(m.listAlerts),
		"query_exemplars":    known(func() any { return []any{} }),
		"status/buildinfo":   known(m.buildInfo),
		"status/config":      known(m.config),
		"status/runtimeinfo": known(m.runtimeInfo),
	}, func(do call) call { return do })
	for _, path := range []string{"/-/healthy", "/-/ready"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ready\n") })
	}
	mux.HandleFunc("/", m.serve(func(_ context.Context, _ url.Values, r *http.Request) (result, error) {
		return result{}, &apiError{notFound, fmt.Errorf("there is nothing at %q", r.URL.Path)}
	}))
	return mux
}

// serve makes a handler of a call.
func (m *Monitor) serve(do call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		res, err := bounded(w, r, do)
		a := answer{Status: "success", Data: res.data}
		if err != nil {
			var known *apiError
			if !errors.As(err, &known) {
				known = toAPIError(err)
			}
			m.metrics.refused[known.kind].Inc()
			status := statuses[known.kind]
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "1")
			}
			w.WriteHeader(status)
			a = answer{Status: "error", ErrorType: known.kind, Error: known.Error()}
		}
		a.Warnings, a.Infos = res.notes.AsStrings(res.expr, 10, 10)
		_ = json.MarshalWrite(w, a, asPrometheus) // what fails is the connection
	}
}

func bounded(w http.ResponseWriter, r *http.Request, do call) (result, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if len(r.URL.RawQuery) > maxForm {
		return result{}, bad("the parameters have more than %d bytes", maxForm)
	}
	if err := r.ParseForm(); err != nil {
		return result{}, bad("the parameters cannot be read: %w", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	return do(ctx, r.Form, r)
}

// inPlace makes a call wait for a place, as long as it has time.
func (m *Monitor) inPlace(do call) call {
	return func(ctx context.Context, form url.Values, r *http.Request) (result, error) {
		if m.asked.Add(1) > maxWaiting+int64(cap(m.places)) {
			m.asked.Add(-1)
			return result{}, &apiError{unavailable, errors.New("too many queries wait; ask again in a second")}
		}
		defer m.asked.Add(-1)
		select {
		case m.places <- struct{}{}:
		case <-ctx.Done():
			return result{}, &apiError{unavailable, errors.New("too many queries are under way; ask again in a second")}
		}
		defer func() { <-m.places }()
		return do(ctx, form, r)
	}
}

func toAPIError(err error) *apiError {
	switch {
	case errors.As(err, new(promql.ErrQueryTimeout)), errors.Is(err, context.DeadlineExceeded):
		return &apiError{queryTimedOut, err}
	case errors.As(err, new(promql.ErrQueryCanceled)), errors.Is(err, context.Canceled):
		return &apiError{canceled, err}
	case errors.As(err, new(parser.ParseErrors)):
		return &apiError{badData, err}
	}
	return &apiError{execution, err}
}

// parseTime reads a time as Prometheus does: seconds since 1970 or RFC 3339.
func parseTime(form url.Values, name string, def time.Time) (time.Time, error) {
	text := form.Get(name)
	if text == "" {
		if def.IsZero() {
			return def, bad("invalid parameter %q: it is required", name)
		}
		return def, nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(seconds) < 1e12 {
		whole, fraction := math.Modf(seconds)
		return time.Unix(int64(whole), int64(math.Round(fraction*1000))*int64(time.Millisecond)).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, bad("invalid parameter %q: cannot parse %q to a valid timestamp", name, text)
	}
	return t, nil
}

// duration reads a time as Prometheus does: seconds, or 5m.
func duration(form url.Values, name, def string) (time.Duration, error) {
	text := cmp.Or(form.Get(name), def)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if d := seconds * float64(time.Second); math.Abs(d) < math.MaxInt64 {
			return time.Duration(d), nil
		}
	} else if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, bad("invalid parameter %q: cannot parse %q to a valid duration", name, text)
}

func (m *Monitor) query(ctx context.Context, form url.Values, _ *http.Request) (result, error) {
	at, err := parseTime(form, "time", m.o.Now())
	if err != nil {
		return result{}, err
	}
	return m.evaluate(ctx, form, at, at, 0)
}

func (m *Monitor) queryRange(ctx context.Context, form url.Values, _ *http.Request) (result, error) {
	from, err := parseTime(form, "start", time.Time{})
	if err != nil {
		return result{}, err
	}
	to, err := parseTime(form, "end", time.Time{})
	if err != nil {
		return result{}, err
	}
	step, err := duration(form, "step", "")
	switch {
	case err != nil:
		return result{}, err
	case to.Before(from):
		return result{}, bad("invalid parameter \"end\": end timestamp must not be before start time")
	case step > 0 && step < time.Millisecond:
		return result{}, bad("invalid parameter \"step\": the shortest step is 1ms")
	case step <= 0:
		return result{}, bad("invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer")
	case to.Sub(from)/step > maxPoints:
		return result{}, bad("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	return m.evaluate(ctx, form, from, to, step)
}

func (m *Monitor) evaluate(ctx context.Context, form url.Values, from, to time.Time, step time.Duration) (result, error) {
	limit, err := duration(form, "timeout", queryTimeout.String())
	if err != nil {
		return result{}, err
	}
	back, err := duration(form, "lookback_delta", "0")
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	expr := form.Get("query")
	q, err := m.prepare(ctx, promql.NewPrometheusQueryOpts(false, back, nil), expr, from, to, step)
	if err != nil {
		return result{}, inQuery(err)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return result{notes: res.Warnings, expr: expr}, res.Err
	}
	// The query's memory is given back when it is closed, so it is written now.
	written, err := encode(res.Value)
	return result{data: written, notes: res.Warnings, expr: expr}, err
}

// inQuery is an error that was found before evaluation. Unless it is one of
// time or size, the query is wrong.
func inQuery(err error) error {
	var known *apiError
	if errors.As(err, &known) && known.kind != badData {
		return err
	}
	if other := toAPIError(err); other.kind == queryTimedOut || other.kind == canceled {
		return other
	}
	return bad("invalid parameter \"query\": %w", err)
}

// span is the time that a call about series looks at: by default all.
func (m *Monitor) span(form url.Values) (from, to int64, err error) {
	begin, err := parseTime(form, "start", time.UnixMilli(1))
	if err != nil {
		return 0, 0, err
	}
	end, err := parseTime(form, "end", m.o.Now())
	return timestamp.FromTime(begin), timestamp.FromTime(end), err
}

func (m *Monitor) selectors(form url.Values, required bool) ([][]*labels.Matcher, error) {
	texts := form["match[]"]
	switch {
	case len(texts) == 0 && required:
		return nil, bad("no match[] parameter provided")
	case len(texts) == 0:
		return [][]*labels.Matcher{nil}, nil
	case len(texts) > maxSelectors:
		return nil, bad("%d match[] parameters, at most %d are allowed", len(texts), maxSelectors)
	}
	var sets [][]*labels.Matcher
	for _, text := range texts {
		set, err := m.parser.ParseMetricSelector(text)
		if err != nil {
			return nil, bad("invalid parameter \"match[]\": %w", err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// atMost is how many entries an answer may have.
func atMost(form url.Values) (int, error) {
	text := form.Get("limit")
	if text == "" {
		return maxListed, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, bad("invalid parameter \"limit\": it must not be negative")
	}
	return min(cmp.Or(n, maxListed), maxListed), nil
}

// gatherEach runs f on a querier for each selector.
func (m *Monitor) gatherEach(ctx context.Context, form url.Values, required bool, f func(q storage.Querier, matchers []*labels.Matcher)) (int, error) {
	limit, err := atMost(form)
	if err != nil {
		return 0, err
	}
	from, to, err := m.span(form)
	if err != nil {
		return 0, err
	}
	sets, err := m.selectors(form, required)
	if err != nil {
		return 0, err
	}
	q, err := m.store.Querier(from, to)
	if err != nil {
		return 0, err
	}
	for _, matchers := range sets {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		f(q, matchers)
	}
	return limit, ctx.Err()
}

func (m *Monitor) series(ctx context.Context, form url.Values, _ *http.Request) (result, error) {
	seen := map[string]labels.Labels{}
	limit, err := m.gatherEach(ctx, form, true, func(q storage.Querier, matchers []*labels.Matcher) {
		set := q.Select(ctx, false, nil, matchers...)
		for set.Next() {
			l := set.At().Labels()
			seen[l.String()] = l
		}
	})
	if err != nil {
		return result{}, err
	}
	list := slices.SortedFunc(maps.Values(seen), labels.Compare)
	return result{data: list[:min(limit, len(list))]}, nil
}

func (m *Monitor) labelNames(ctx context.Context, form url.Values, _ *http.Request) (result, error) {
	return m.names(ctx, form, func(q storage.Querier, matchers []*labels.Matcher) []string {
		list, _, _ := q.LabelNames(ctx, nil, matchers...) // it fails only when ctx ends
		return list
	})
}

func (m *Monitor) labelValues(ctx context.Context, form url.Values, r *http.Request) (result, error) {
	name := model.UnescapeName(r.PathValue("name"), model.ValueEncodingEscaping)
	if !model.UTF8Validation.IsValidLabelName(name) {
		return result{}, bad("invalid label name: %q", name)
	}
	return m.names(ctx, form, func(q storage.Querier, matchers []*labels.Matcher) []string {
		list, _, _ := q.LabelValues(ctx, name, nil, matchers...)
		return list
	})
}

func (m *Monitor) names(ctx context.Context, form url.Values, each func(storage.Querier, []*labels.Matcher) []string) (result, error) {
	all := []string{}
	limit, err := m.gatherEach(ctx, form, false, func(q storage.Querier, matchers []*labels.Matcher) {
		all = append(all, each(q, matchers)...)
	})
	if err != nil {
		return result{}, err
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return result{data: all[:min(limit, len(all))]}, nil
}
