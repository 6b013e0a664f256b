package app

import (
	"context"

	"headway/api"
	"headway/internal/boltstore"
)

// state is the state file, as httpapi.State.
type state struct{ *boltstore.Store }

// Check implements httpapi.State.
func (s state) Check(ctx context.Context) (api.StateReport, error) {
	found, err := s.Store.Check(ctx)
	return StateReport(found), err
}

// StateReport is the report of a state file as clients get it.
func StateReport(found boltstore.Report) api.StateReport {
	report := api.StateReport{Sound: len(found.Faults) == 0, Buckets: []api.StateBucket{}, Faults: append([]string{}, found.Faults...)}
	for _, b := range found.Buckets {
		report.Buckets = append(report.Buckets, api.StateBucket(b))
	}
	return report
}
