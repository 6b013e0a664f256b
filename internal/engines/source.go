package engines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"headway/internal/fleet"
)

// Bounds of what an engine may answer.
const (
	maxMetrics = 8 << 20
	maxJSON    = 1 << 20
)

// Source is one running engine. It is safe for concurrent use if HTTP and Key
// are. Answers are bounded in bytes, and no error has the key.
type Source struct {
	*Engine
	HTTP       *http.Client           // follows no redirect
	URL        string                 // of its API, without a path
	MetricsURL string                 // without a path; "": there are no metrics
	Key        func() (string, error) // the engine's own API key; nil: it needs none
}

// StatusError reports that the engine answered with another status than success.
type StatusError struct {
	Path   string
	Status int
}

func (e *StatusError) Error() string { return fmt.Sprintf("GET %s: status %d", e.Path, e.Status) }

// Healthy fails unless the engine says that it can work.
func (s *Source) Healthy(ctx context.Context) error {
	_, err := s.ask(ctx, http.MethodGet, s.URL, s.health, "", maxJSON)
	return err
}

// Models are what the engine serves now, adapters included, sorted, as many as a head can
// register: those that the engine lists first, as it does its base model. left are the
// others, and the names that no head can have.
func (s *Source) Models(ctx context.Context) (models, left []string, err error) {
	found, err := s.models.run(ctx, s)
	for _, name := range found {
		switch {
		case name == "" || slices.Contains(models, name):
		case len(models) < fleet.MaxModelTypesOfHead && fleet.ValidModelType(name):
			models = append(models, name)
		default:
			left = append(left, name)
		}
	}
	slices.Sort(models)
	return models, left, err
}

// Load is how loaded the engine is. What it does not say is unknown; an engine
// without metrics is no error.
func (s *Source) Load(ctx context.Context) (Load, error) {
	l, err := s.measured(ctx)
	if err != nil {
		return l, err
	}
	if s.slots.read != nil {
		if n, err := s.slots.run(ctx, s); err == nil && n > 0 {
			l.MaxInFlight = n
		}
	}
	for _, n := range []*int64{&l.InFlight, &l.Queued} {
		if *n > fleet.MaxCount {
			*n = fleet.Unknown
		}
	}
	if l.MaxInFlight < 0 || l.MaxInFlight > fleet.HighestMaxInFlight {
		l.MaxInFlight = 0
	}
	return l, nil
}

// measured is what the metrics say; without any, all of it is unknown.
func (s *Source) measured(ctx context.Context) (Load, error) {
	if s.MetricsURL == "" || s.metrics == "" {
		return UnknownLoad(), nil
	}
	text, err := s.ask(ctx, http.MethodGet, s.MetricsURL, s.metrics, "", maxMetrics)
	if refused, ok := errors.AsType[*StatusError](err); ok && (refused.Status == http.StatusNotFound || refused.Status == http.StatusNotImplemented) {
		return UnknownLoad(), nil // it was started without metrics
	}
	if err != nil {
		return UnknownLoad(), err
	}
	values, err := parse(text)
	if err != nil {
		return UnknownLoad(), err
	}
	l := s.load(values)
	for _, at := range values.parts(where{}, "process_start_time_seconds") {
		l.Started = at
	}
	return l, nil
}

// query is a call that is answered with JSON.
type query[T any] struct {
	method, path, body string
	read               func([]byte) (T, error)
}

func (q *query[T]) run(ctx context.Context, s *Source) (T, error) {
	var none T
	text, err := s.ask(ctx, q.method, s.URL, q.path, q.body, maxJSON)
	if err != nil {
		return none, err
	}
	answer, err := q.read(text)
	if err != nil {
		return none, fmt.Errorf("read the answer to %s: %w", q.path, err)
	}
	return answer, nil
}

// ask sends one request and returns the body of an answer of success.
func (s *Source) ask(ctx context.Context, method, base, path, body string, most int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if s.Key != nil {
		key, err := s.Key()
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := s.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	switch {
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return nil, &StatusError{path, answer.StatusCode}
	case err != nil:
		return nil, fmt.Errorf("read the answer to %s: %w", path, err)
	case int64(len(text)) > most:
		return nil, fmt.Errorf("the answer to %s has over %d bytes", path, most)
	}
	return text, nil
}

// listOf is the list of models that OpenAI defined. Engines put adapters beside
// their base model.
var listOf = query[[]string]{http.MethodGet, "/v1/models", "", func(text []byte) ([]string, error) {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	err := json.Unmarshal(text, &list)
	var names []string
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names, err
}}

// whole reads a count, or returns fleet.Unknown.
func whole(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return fleet.Unknown
	}
	return n
}
