package apiv1

import (
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// appendDecision writes an api.Decision by hand: it is the hot answer. What it
// writes are names that were checked to have nothing that JSON escapes.
func appendDecision(b []byte, d *routing.Decision, explain bool) []byte {
	b = append(b, idStart...)
	b = d.AppendID(b)
	b = append(b, `","model_type":"`...)
	b = append(b, d.ModelType...)
	b = append(b, `","head":`...)
	b = appendHead(b, d.Head)
	b = append(b, `,"strategy":"`...)
	b = append(b, d.Strategy...)
	b = append(b, `","reason":"`...)
	b = d.AppendReason(b)
	b = append(b, `","alternatives":[`...)
	for i, p := range d.Alternatives() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHead(b, p.Head)
	}
	b = append(b, `],"expires_at":"`...)
	b = stamp(d.ExpiresAt()).AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","policy_revision":`...)
	b = strconv.AppendUint(b, d.PolicyRevision, 10)
	if f := toFallback(d.Fallback()); f != nil {
		if raw, err := json.Marshal(f); err == nil {
			b = append(b, `,"fallback":`...)
			b = append(b, raw...)
		}
	}
	if e := d.Explanation(); explain && e != nil {
		if raw, err := json.Marshal(toExplanation(e)); err == nil {
			b = append(b, `,"explanation":`...)
			b = append(b, raw...)
		}
	}
	return append(b, '}', '\n')
}

func appendHead(b []byte, h *fleet.Head) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, h.ID...)
	b = append(b, `","endpoint":"`...)
	b = append(b, h.Endpoint...)
	b = append(b, `","region":"`...)
	b = append(b, h.Region...)
	return append(b, '"', '}')
}

func toDecisionHead(h *fleet.Head) api.DecisionHead {
	return api.DecisionHead{ID: h.ID, Endpoint: h.Endpoint, Region: h.Region}
}

func toFallback(f *routing.Fallback) *api.Fallback {
	if f == nil {
		return nil
	}
	return &api.Fallback{ModelType: f.ModelType, Region: f.Region, Reason: f.Why.String()}
}

func toExplanation(e *routing.Explanation) *api.Explanation {
	out := &api.Explanation{
		PolicyRevision: e.PolicyRevision, SnapshotRevision: e.SnapshotRevision, Rule: "default_strategy",
		Strategy: e.Strategy, Delegate: e.Delegate, Formula: e.Formula, Region: e.Region, RegionMode: e.RegionMode.String(),
		InputTokens: int64(math.Round(e.Tokens)), InputTokensAssumed: e.Assumed,
		CacheHit: e.CacheHit, Omitted: e.Omitted, Candidates: make([]api.Candidate, 0, len(e.Candidates)),
	}
	switch {
	case e.Rule >= 0:
		out.Rule = "/rules/" + strconv.Itoa(e.Rule)
	case e.Rule == routing.RuleByCaller:
		out.Rule = "request"
	}
	for _, c := range e.Candidates {
		candidate := api.Candidate{
			Head: c.HeadID, Region: c.Region, DistanceMs: Number(c.Distance), Filter: c.Filter,
			Cost: Number(c.Cost), PredictedMs: predicted(c.Predicted), Chosen: c.Chosen, Signals: make([]api.Signal, 0, len(c.Signals)),
		}
		for _, s := range c.Signals {
			candidate.Signals = append(candidate.Signals, api.Signal{Name: s.Name, Value: s.Value, AgeMs: millis(s.Age), Used: s.Used})
		}
		for _, t := range c.Terms {
			candidate.Terms = append(candidate.Terms, api.Term{Name: t.Name, Value: t.Value, Unit: t.Unit})
		}
		out.Candidates = append(out.Candidates, candidate)
	}
	return out
}

// predicted is a time in ms to a hundredth, nil for NaN.
func predicted(ms float64) *float64 { return Number(math.Round(100*ms) / 100) }

// RecentOf is a recent decision as it is sent; one that found no head has none.
func RecentOf(d *routing.Decision) api.RecentDecision {
	recent := api.RecentDecision{
		Decision: api.Decision{
			DecisionID: d.ID(), ModelType: d.ModelType, Strategy: d.Strategy,
			Reason: string(d.AppendReason(nil)), Alternatives: []api.DecisionHead{},
			PolicyRevision: d.PolicyRevision, Fallback: toFallback(d.Fallback()),
		},
		Region: d.Region, At: stamp(d.At), FirstTokenAt: moment(stamp(d.FirstTokenAt())), Failure: d.Failure.String(),
	}
	if d.Head != nil {
		recent.Head, recent.ExpiresAt = toDecisionHead(d.Head), stamp(d.ExpiresAt())
	}
	for _, p := range d.Alternatives() {
		recent.Alternatives = append(recent.Alternatives, toDecisionHead(p.Head))
	}
	if e := d.Explanation(); e != nil {
		recent.Explanation = toExplanation(e)
	}
	if queued := d.Queued(); queued > 0 {
		recent.QueuedMs = new(millis(queued))
	}
	if asked := d.Asked(); asked != d.ModelType {
		recent.Requested = asked
	}
	recent.RequestID, recent.ReceivedAt = d.RequestID(), moment(stamp(d.ReceivedAt()))
	if o, ended := d.Outcome(); ended {
		recent.Outcome = toRecorded(&o)
		recent.Outcome.QueuedMs, recent.Outcome.Fault, recent.Outcome.HedgeRefused = recent.QueuedMs, o.Fault, o.Unhedged
		since := d.ReceivedAt()
		if first := d.FirstTokenAt(); !since.IsZero() && !first.IsZero() {
			recent.Outcome.ClientTTFTMs = new(millis(first.Sub(since)))
		}
		if !since.IsZero() {
			recent.Outcome.ClientDurationMs = new(millis(o.At.Sub(since)))
		}
	}
	return recent
}

// OwnOf is RecentOf for a caller that may not read the fleet. Of a request that the
// data plane put on heads it names none.
func OwnOf(d *routing.Decision) api.RecentDecision {
	recent := RecentOf(d)
	if !d.Proxied() {
		return recent
	}
	recent.Head, recent.Alternatives, recent.Explanation = api.DecisionHead{}, []api.DecisionHead{}, nil
	recent.Reason = string(d.AppendChoice(nil))
	return recent
}

func toRecorded(o *routing.Outcome) *api.RecordedOutcome {
	recorded := &api.RecordedOutcome{At: moment(stamp(o.At)), Outcome: api.Outcome{Result: o.Result.String()}}
	if o.Result > routing.ResultCancelled { // no outcome was reported
		return recorded
	}
	ms := func(v float64) *float64 {
		if v < 0 {
			return nil
		}
		return &v
	}
	recorded.StatusCode = known(o.StatusCode)
	recorded.TTFTMs, recorded.DurationMs = ms(o.TTFT), ms(o.Duration)
	recorded.InputTokens, recorded.OutputTokens = known(o.InputTokens), known(o.OutputTokens)
	recorded.CachedTokens, recorded.TokensEstimated = known(o.CachedTokens), o.Estimated
	return recorded
}

// EventOf is an event as it is sent. The instance begins its id, so that events
// of another run are not taken for those of this one.
func EventOf(instance string, e *event.Event) api.Event {
	data, err := json.Marshal(e.Data)
	if err != nil || e.Data == nil {
		data = nil
	}
	return api.Event{
		ID: EventID(instance, e.ID), Type: e.Type, Time: e.Time.UTC(), Head: e.Head, Region: e.Region, ModelTypes: e.ModelTypes, Data: data,
	}
}

// EventID is the id of an event as it is sent.
func EventID(instance string, number uint64) string {
	return instance + "-" + strconv.FormatUint(number, 10)
}

// Record is a record of the audit trail as the API shows it.
func Record(r *audit.Record) api.AuditRecord {
	return api.AuditRecord{
		V: r.V, Seq: r.Seq, Time: r.Time, ID: r.ID, Node: r.Node, Stage: string(r.Stage),
		Category: string(r.Category), Action: r.Action, Outcome: string(r.Outcome), Reason: r.Reason,
		Actor: api.AuditActor(r.Actor), Src: api.AuditSource(r.Src), Target: api.AuditTarget(r.Target),
		RequestID: r.RequestID, TraceID: r.TraceID, Before: r.Before, After: r.After, Prev: r.Prev, Hash: r.Hash,
	}
}
