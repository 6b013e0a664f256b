package apiv1

import (
	"headway/api"
	"headway/internal/audit"
)

// Record is a record of the audit trail as the API shows it.
func Record(r *audit.Record) api.AuditRecord {
	return api.AuditRecord{
		V: r.V, Seq: r.Seq, Time: r.Time, ID: r.ID, Node: r.Node, Stage: string(r.Stage),
		Category: string(r.Category), Action: r.Action, Outcome: string(r.Outcome), Reason: r.Reason,
		Actor: api.AuditActor(r.Actor), Src: api.AuditSource(r.Src), Target: api.AuditTarget(r.Target),
		RequestID: r.RequestID, TraceID: r.TraceID, Before: r.Before, After: r.After, Prev: r.Prev, Hash: r.Hash,
	}
}
