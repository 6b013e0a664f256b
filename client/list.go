package client

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"headway/api"
)

// pages yields the items of a list page by page. Nothing follows an error.
func pages[T any](ctx context.Context, c *Client, what, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := maps.Clone(query)
		for {
			var page api.List[T]
			_, err := c.do(ctx, &call{what: what, method: http.MethodGet, path: path, query: q, out: &page, idempotent: true})
			if err == nil && page.NextCursor != "" && page.NextCursor == q.Get("cursor") {
				err = fmt.Errorf("%s: %w: the list leads back to the same page", what, ErrAnswer)
			}
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Data {
				if !yield(item, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			q.Set("cursor", page.NextCursor)
		}
	}
}

// Collect returns the first most items of a list, or all if most is 0, also
// with an error.
func Collect[T any](list iter.Seq2[T, error], most int) ([]T, error) {
	var items []T
	for item, err := range list {
		if err != nil {
			return items, err
		}
		if items = append(items, item); len(items) == most {
			break
		}
	}
	return items, nil
}

func values(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func size(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
