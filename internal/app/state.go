package app

import (
	"context"
	"io"

	"headway/api"
	"headway/internal/boltstore"
)

type state struct{ store *boltstore.Store }

// Export implements httpapi.State.
func (s state) Export(ctx context.Context, w io.Writer) error { return s.store.Export(ctx, w) }

// Check implements httpapi.State.
func (s state) Check(ctx context.Context) (api.StateReport, error) {
	found, err := s.store.Check(ctx)
	report := api.StateReport{Sound: len(found.Faults) == 0, Buckets: []api.StateBucket{}, Faults: append([]string{}, found.Faults...)}
	for _, b := range found.Buckets {
		report.Buckets = append(report.Buckets, api.StateBucket(b))
	}
	return report, err
}
