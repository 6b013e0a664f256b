package apiv1

import (
	"math"
	"slices"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/registry"
	"headway/internal/strict"
)

// registration is an api.Registration as it is read.
type registration struct {
	spec     fleet.Spec
	model    string
	single   bool // the model types are model
	takeOver bool
	report   report
	first    *fleet.StatusReport // nil: the body has no status
}

func (in *registration) field(r *strict.Reader, name string) bool {
	switch name {
	case "id":
		r.Text(&in.spec.ID)
	case "endpoint":
		r.Text(&in.spec.Endpoint)
	case "model_types":
		if r.Kind() != strict.Null {
			in.spec.ModelTypes = []string{}
		}
		r.Texts(fleet.MaxModelTypesOfHead, &in.spec.ModelTypes)
	case "model_type":
		r.Text(&in.model)
	case "region":
		r.Text(&in.spec.Region)
	case "zone":
		r.Text(&in.spec.Zone)
	case "version":
		r.Text(&in.spec.Version)
	case "engine":
		r.Text(&in.spec.Engine)
	case "weight":
		r.Number(&in.spec.Weight, fleet.MinWeight, fleet.MaxWeight)
	case "capacity":
		r.Object(func(name string) bool {
			if name != "max_in_flight" {
				return false
			}
			r.Whole(&in.spec.MaxInFlight, 0, fleet.HighestMaxInFlight)
			return true
		})
	case "labels":
		r.Labels(fleet.MaxLabels+1, &in.spec.Labels)
	case "take_over":
		r.Bool(&in.takeOver)
	case "status", "load":
		return in.report.field(r, name)
	default:
		return false
	}
	return true
}

// complete makes the spec of what was read, and finds what does not go
// together.
func (in *registration) complete() (faults []strict.Fault) {
	if in.model != "" {
		if in.spec.ModelTypes != nil {
			faults = append(faults, strict.Fault{Pointer: "/model_type", Reason: "must not stand beside model_types"})
		} else {
			in.spec.ModelTypes, in.single = []string{in.model}, true
		}
	}
	switch {
	case in.report.status != fleet.StatusUnknown:
		in.first = &fleet.StatusReport{Status: in.report.status, Load: in.report.load}
	case in.report.loaded:
		faults = append(faults, strict.Fault{Pointer: "/load", Reason: "needs a status beside it"})
	}
	return faults
}

// report is an api.StatusReport as it is read.
type report struct {
	id              string
	named           bool  // the body names the head
	epoch, sequence int64 // 0: not given
	status          fleet.Status
	loaded          bool // the body has a load
	load            fleet.Load
}

func (in *report) field(r *strict.Reader, name string) bool {
	switch name {
	case "id":
		if !in.named {
			return false
		}
		r.Text(&in.id)
	case "epoch":
		r.Whole(&in.epoch, 1, strict.MaxExact)
	case "sequence":
		r.Whole(&in.sequence, 1, strict.MaxExact)
	case "status":
		r.Choice("active, degraded, draining or offline", func(text string) (ok bool) {
			in.status, ok = fleet.ParseStatus(text)
			return ok
		})
	case "load":
		in.loaded = r.Kind() == strict.Object
		r.Object(func(name string) bool { return in.loadField(r, name) })
	default:
		return false
	}
	return true
}

func (in *report) loadField(r *strict.Reader, name string) bool {
	switch name {
	case "in_flight":
		r.Whole(&in.load.InFlight, 0, fleet.MaxCount)
	case "queued":
		r.Whole(&in.load.Queued, 0, fleet.MaxCount)
	case "pending_prompt_tokens":
		r.Whole(&in.load.PendingPromptTokens, 0, fleet.MaxTokens)
	case "kv_capacity_tokens":
		r.Whole(&in.load.KVCapacityTokens, 0, fleet.MaxTokens)
	case "kv_cache_usage":
		r.Number(&in.load.KVCacheUsage, 0, 1)
	case "utilization":
		r.Number(&in.load.Utilization, 0, 1)
	case "tokens_per_second":
		r.Number(&in.load.TokensPerSecond, 0, fleet.MaxCount)
	default:
		return false
	}
	return true
}

// patch is an api.HeadPatch as it is read. A null removes the operator's value.
// A weight of 0 is refused: a head without traffic is what admin_state is for.
type patch struct{ registry.Patch }

func (in *patch) field(r *strict.Reader, name string) bool {
	switch name {
	case "admin_state":
		r.Choice("enabled, draining or maintenance", func(text string) bool {
			state, ok := fleet.ParseAdminState(text)
			if ok {
				in.State = &state
			}
			return ok
		})
	case "weight":
		in.Weight = new(float64)
		r.Number(in.Weight, fleet.MinWeight, fleet.MaxWeight)
	case "labels":
		in.Labels = &map[string]string{}
		r.Labels(fleet.MaxLabels+1, in.Labels)
	default:
		return false
	}
	return true
}

func toLease(l fleet.Lease) api.Lease {
	return api.Lease{
		Epoch: l.Epoch, TTLSeconds: seconds(l.TTL), HeartbeatIntervalSeconds: seconds(l.HeartbeatInterval),
		ExpiresAt: stamp(l.ExpiresAt),
	}
}

// seconds keeps milliseconds.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}

// millis keeps hundredths of a millisecond.
func millis(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }

func stamp(t time.Time) time.Time { return t.UTC().Round(time.Millisecond) }

// moment is nil for no time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// HeadOf is a head as it is sent.
func HeadOf(v *fleet.View) api.Head {
	h := v.Head
	head := api.Head{
		ID: h.ID, Endpoint: h.Endpoint, ModelTypes: slices.Clone(h.ModelTypes), Region: h.Region, Zone: h.Zone,
		Version: h.Version, Engine: h.Engine, Weight: h.Weight, Labels: h.Labels, Epoch: v.Lease.Epoch,
		Status: h.Status.String(), AdminState: h.Admin.String(), Routable: h.Routable(),
		Health:   api.Health{State: h.Health.String(), Reason: v.HealthReason, Until: moment(stamp(v.HealthUntil))},
		InFlight: v.InFlight, Lease: toLease(v.Lease),
		RegisteredAt: stamp(v.Record.RegisteredAt), UpdatedAt: stamp(v.Record.UpdatedAt),
	}
	if v.Paused {
		head.Health.State = "paused"
	}
	if h.MaxInFlight > 0 {
		head.Capacity = &api.Capacity{MaxInFlight: h.MaxInFlight}
	}
	if report := v.Report; report != nil {
		head.Load = &api.ReportedLoad{AgeMs: millis(v.ReportAge), Load: api.Load{
			InFlight: known(report.Load.InFlight), Queued: known(report.Queued),
			PendingPromptTokens: known(report.PendingPromptTokens), KVCapacityTokens: known(report.KVCapacityTokens),
			KVCacheUsage: Number(report.KVCacheUsage), Utilization: Number(report.Utilization),
			TokensPerSecond: Number(report.TokensPerSecond),
		}}
	}
	return head
}

// known is nil for a count that is not known.
func known(v int64) *int64 {
	if v == fleet.Unknown {
		return nil
	}
	return &v
}

// Number is nil for what JSON has no number for.
func Number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}
