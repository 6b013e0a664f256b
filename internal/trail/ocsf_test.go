package trail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"headway/internal/audit"
	"headway/internal/trail"
)

// Each class has its activity, its own objects, and what the schema demands of
// all.
func TestRecordsBecomeOCSF(t *testing.T) {
	cases := []struct {
		name                    string
		entry                   audit.Entry
		class, activity, status float64
		present, absent         []string
		stage                   audit.Stage
		id, wantCorrelation     string
	}{
		{
			name: "a change of the policy", entry: change("policy.put"), class: 6003, activity: 3, status: 1,
			present: []string{"api", "resources"}, absent: []string{"user"}, stage: audit.Result, id: "u.result", wantCorrelation: "u",
		},
		{
			name: "its intent", entry: audit.Entry{Category: audit.Policy, Action: "policy.put"}, class: 6003, activity: 3, status: 0,
			present: []string{"api", "resources"}, absent: []string{"user"}, stage: audit.Intent, id: "u", wantCorrelation: "u",
		},
		{
			name: "a new key", entry: audit.Entry{Category: audit.Admin, Action: "key.create", Outcome: audit.Success, Target: audit.Target{Type: "key", ID: "k1"}},
			class: 3001, activity: 1, status: 1, present: []string{"user"}, absent: []string{"api"}, stage: audit.Result, id: "u",
		},
		{
			name: "a revoked key", entry: audit.Entry{Category: audit.Admin, Action: "key.revoke", Outcome: audit.Failure, Target: audit.Target{Type: "key", ID: "k1"}},
			class: 3001, activity: 5, status: 2, present: []string{"user"}, absent: []string{"api"}, stage: audit.Result, id: "u",
		},
		{
			name: "an unknown key", entry: audit.Entry{Category: audit.Auth, Action: "auth.key", Outcome: audit.Denied, Source: audit.Source{IP: "10.0.0.1", UserAgent: "curl"}},
			class: 3002, activity: 1, status: 2, present: []string{"user", "service", "http_request"}, absent: []string{"api"}, stage: audit.Result, id: "u",
		},
		{
			name: "a verb of no class", entry: audit.Entry{Category: audit.Head, Action: "head.drain", Outcome: audit.Success},
			class: 6003, activity: 99, status: 1, present: []string{"api"}, stage: audit.Result, id: "u",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := c.entry
			r := audit.Record{
				Seq: 7, Time: time.UnixMilli(1_795_000_000_123), ID: c.id, Node: "node-1", Stage: c.stage, Category: e.Category, Action: e.Action,
				Outcome: e.Outcome, Reason: e.Reason, Actor: e.Actor, Src: e.Source, Target: e.Target, Before: e.Before, After: e.After,
			}
			var out bytes.Buffer
			if err := trail.WriteOCSF(&out, r); err != nil {
				t.Fatal(err)
			}
			if bytes.Count(out.Bytes(), []byte("\n")) != 1 {
				t.Errorf("not one line: %q", out.String())
			}
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			want := map[string]float64{
				"class_uid": c.class, "activity_id": c.activity, "status_id": c.status, "type_uid": c.class*100 + c.activity,
				"category_uid": float64(int(c.class) / 1000), "time": 1_795_000_000_123,
			}
			for key, value := range want {
				if got[key] != value {
					t.Errorf("%s is %v, want %v", key, got[key], value)
				}
			}
			for _, key := range append(c.present, "severity_id", "metadata", "actor", "src_endpoint", "unmapped") {
				if got[key] == nil {
					t.Errorf("%s is missing: %s", key, out.String())
				}
			}
			for _, key := range c.absent {
				if got[key] != nil {
					t.Errorf("%s does not belong here", key)
				}
			}
			metadata, _ := got["metadata"].(map[string]any)
			if correlation, _ := metadata["correlation_uid"].(string); correlation != c.wantCorrelation || metadata["version"] != "1.3.0" || metadata["sequence"] != 7.0 {
				t.Errorf("metadata is %v", metadata)
			}
		})
	}
	if err := trail.WriteOCSF(brokenPipe{}, audit.Record{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

var errBroken = errors.New("broken pipe")

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }
