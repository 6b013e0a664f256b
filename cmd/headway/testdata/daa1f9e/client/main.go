// Speak talks to the service at the URL that is its first argument, with the
// administrator's key in the file that is its second, by every call of the
// client. It ends with 1 and a sentence at the first answer that is not as this
// version of the client expects it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"daa1f9e/api"
	"daa1f9e/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	admin, err := client.New(os.Args[1], client.WithTokenFile(os.Args[2]))
	check(err)
	defer admin.Close()
	keys := keys(ctx, admin)
	policy(ctx, admin)
	fleet(ctx, admin, with(keys["rack"]))
	watched := watch(ctx, with(keys["viewer"]))
	decisions(ctx, admin, with(keys["chat"]))
	socket(ctx, admin)
	want(<-watched == nil, "the stream of events ends with the decision")
	rest(ctx, admin, with(keys["viewer"]))
}

// with returns a client of another key.
func with(key api.Key) *client.Client {
	c, err := client.New(os.Args[1], client.WithToken(key.Secret), client.WithRetries(1))
	check(err)
	return c
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func want(ok bool, format string, args ...any) {
	if !ok {
		fail(fmt.Sprintf("not so: "+format, args...))
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "speak:", why)
	os.Exit(1)
}

// refused wants an error of a kind, with a code and, if named, a place.
func refused(err, kind error, code, place string) {
	refusal, ok := errors.AsType[*client.Error](err)
	want(ok && errors.Is(err, kind) && refusal.Problem.Code == code, "%v is %v with the code %s", err, kind, code)
	want(refusal.Problem.Type != "" && refusal.Problem.Title != "" && (refusal.Problem.Instance == "") == (refusal.Problem.RequestID == "") && refusal.Problem.Status == refusal.Status,
		"the problem is whole: %+v", refusal.Problem)
	want(place == "" || slices.ContainsFunc(refusal.Problem.Errors, func(f api.Fault) bool { return f.Pointer == place && f.Reason != "" }),
		"%v has a fault at %s", err, place)
}

func keys(ctx context.Context, admin *client.Client) map[string]api.Key {
	made := map[string]api.Key{}
	for _, r := range []api.KeyRequest{
		{Name: "viewer", Role: "viewer"},
		{Name: "chat", Role: "client"},
		{Name: "rack", Role: "head", Heads: []string{"gpu-*"}, Regions: []string{"eu-west"}},
		{Name: "short", Role: "admin", Scopes: []string{"read"}, ExpiresInSeconds: new(int64(3600))},
	} {
		key, err := admin.CreateKey(ctx, r)
		check(err)
		want(strings.HasPrefix(key.Secret, "hw_") && key.Role == r.Role && !key.CreatedAt.IsZero() && key.CreatedBy != "", "%+v is a new key", key)
		made[r.Name] = key
	}
	want(made["short"].ExpiresAt != nil && slices.Equal(made["short"].Scopes, []string{"read"}), "a key has its scope and its end")
	_, err := admin.CreateKey(ctx, api.KeyRequest{Name: "x", Role: "king"})
	refused(err, client.ErrInvalid, api.CodeInvalid, "/role")

	short := with(made["short"])
	_, err = short.Policy(ctx)
	check(err)
	check(admin.RevokeKey(ctx, made["short"].ID))
	_, err = short.Policy(ctx)
	refused(err, client.ErrUnauthorized, api.CodeUnauthenticated, "")
	refused(admin.RevokeKey(ctx, "nosuch"), client.ErrNotFound, api.CodeKeyNotFound, "")
	list, err := client.Collect(admin.Keys(ctx), 0)
	check(err)
	want(slices.ContainsFunc(list, func(k api.Key) bool {
		return k.ID == made["short"].ID && k.RevokedAt != nil && k.Secret == ""
	}), "the revoked key is listed")
	return made
}

func policy(ctx context.Context, admin *client.Client) {
	before, err := admin.Policy(ctx)
	check(err)
	document := json.RawMessage(`{"default_strategy":"least_loaded","rules":[{"match":{"model_type":"llama-*"},"strategy":"session_affinity","parameters":{"bound":2}}],
		"regions":{"eu-west":{"distances_ms":{"us-east":80}}},"aliases":{"gpt":"llama-8b"},"caller_may":["strategy","region_mode","exclude","labels","explain"]}`)
	dry, err := admin.ValidatePolicy(ctx, document)
	check(err)
	want(dry.Valid && len(dry.Differences) > 0 && dry.CurrentRevision == before.Revision && dry.Replay != nil, "%+v is a check", dry)
	put, err := admin.PutPolicy(ctx, document, client.PolicyChange{IfMatch: before.ETag, Note: "by the old client"})
	check(err)
	want(put.Revision == before.Revision+1 && put.ETag != before.ETag, "%d follows %d", put.Revision, before.Revision)
	_, err = admin.PutPolicy(ctx, document, client.PolicyChange{IfMatch: before.ETag})
	refused(err, client.ErrStale, api.CodePreconditionFailed, "")
	_, err = admin.PutPolicy(ctx, document, client.PolicyChange{})
	refused(err, client.ErrInvalid, api.CodePreconditionMissing, "")
	wrong := json.RawMessage(`{"default_strategy":"least_lodaed","rules":[{"match":{},"strategy":"session_affinity","parameters":{"bound":0.5}}]}`)
	_, err = admin.PutPolicy(ctx, wrong, client.PolicyChange{IfMatch: "*"})
	refused(err, client.ErrInvalid, api.CodeInvalid, "/rules/0/parameters/bound")
	bad, err := admin.ValidatePolicy(ctx, wrong)
	check(err)
	want(!bad.Valid && len(bad.Errors) == 2 && bad.Errors[0].Pointer == "/default_strategy", "%+v has two faults", bad)
	patched, err := admin.PatchPolicy(ctx, json.RawMessage(`{"aliases":{"gpt":null}}`), client.PolicyChange{IfMatch: put.ETag})
	check(err)
	want(!strings.Contains(string(patched.Document), "gpt"), "the alias is away in %s", patched.Document)
	restored, err := admin.RestorePolicy(ctx, put.Revision, client.PolicyChange{IfMatch: patched.ETag})
	check(err)
	old, err := admin.PolicyRevision(ctx, put.Revision)
	check(err)
	want(old.Note == "by the old client" && old.Source == "api" && !old.Current && strings.TrimSpace(string(restored.Document)) == string(old.Document), "revision %d is as it was put: %s, %s", old.Revision, old.Document, restored.Document)
	_, err = admin.PolicyRevision(ctx, 4000)
	refused(err, client.ErrNotFound, api.CodeRevisionNotFound, "")
	revisions, err := client.Collect(admin.PolicyRevisions(ctx), 0)
	check(err)
	want(revisions[0].Revision == restored.Revision && revisions[0].Current && revisions[0].Source == "restore", "%+v is the newest", revisions[0])
}

func fleet(ctx context.Context, admin, rack *client.Client) {
	registration := api.Registration{
		ID: "gpu-1", Endpoint: "http://10.0.0.1:8000", ModelTypes: []string{"llama-8b", "llama-70b"}, Region: "eu-west", Zone: "a", Version: "1", Engine: "vllm",
		Weight: new(2.0), Capacity: &api.Capacity{MaxInFlight: 9}, Labels: map[string]string{"gpu": "h100"},
	}
	agent, err := rack.NewAgent(registration, func() api.Load {
		return api.Load{InFlight: new(int64(3)), Queued: new(int64(1)), KVCacheUsage: new(0.5)}
	})
	check(err)
	go agent.Run(ctx)
	select {
	case <-agent.Ready():
	case <-ctx.Done():
		fail("the agent never reported: " + fmt.Sprint(agent.State().LastError))
	}
	state := agent.State()
	want(state.Epoch > 0 && state.Reports > 0 && state.Interval > 0 && time.Until(state.ExpiresAt) > 0, "%+v is the agent's state", state)
	head, err := admin.Head(ctx, "gpu-1")
	check(err)
	want(head.Routable && head.Status == "active" && head.Health.State == "fresh" && head.Load != nil && *head.Load.InFlight == 3 && head.Weight == 2 &&
		head.Capacity.MaxInFlight == 9 && head.Labels["gpu"] == "h100" && head.Zone == "a", "%+v is what was registered", head)

	_, err = rack.Register(ctx, api.Registration{ID: "other", Endpoint: "http://10.0.0.1:1", ModelType: "m", Region: "eu-west"})
	refused(err, client.ErrForbidden, api.CodeForbidden, "")
	_, err = admin.Register(ctx, api.Registration{ID: "bad id", Endpoint: "ftp://x", Region: "r"})
	refused(err, client.ErrInvalid, api.CodeInvalid, "/endpoint")
	_, err = admin.Head(ctx, "nosuch")
	refused(err, client.ErrNotFound, api.CodeHeadNotFound, "")

	answer, err := admin.Register(ctx, api.Registration{ID: "cpu-1", Endpoint: "http://10.0.0.2:8000", ModelType: "llama-8b", Region: "us-east", Status: "active"})
	check(err)
	want(answer.Head.Region == "us-east" && answer.Lease.HeartbeatIntervalSeconds > 0 && answer.Lease.TTLSeconds > 0, "%+v is a registration", answer)
	lease, err := admin.Report(ctx, "cpu-1", api.StatusReport{Epoch: answer.Lease.Epoch, Status: "degraded", Sequence: 1})
	check(err)
	want(lease.Lease.Epoch == answer.Lease.Epoch, "a report keeps the epoch")
	_, err = admin.Report(ctx, "cpu-1", api.StatusReport{Epoch: answer.Lease.Epoch - 1, Status: "active"})
	refused(err, client.ErrStale, api.CodeStaleEpoch, "")
	patched, err := admin.PatchHead(ctx, "cpu-1", api.HeadPatch{AdminState: new("draining"), Weight: new(5.0), Labels: new(map[string]string{"rack": "7"})})
	check(err)
	want(patched.AdminState == "draining" && !patched.Routable && patched.Weight == 5 && patched.Labels["rack"] == "7", "%+v is drained", patched)
	for _, q := range []client.HeadQuery{{PageSize: 1}, {ModelType: "llama-8b"}} {
		heads, err := client.Collect(admin.Heads(ctx, q), 0)
		check(err)
		want(len(heads) == 2 && heads[0].ID == "cpu-1" && heads[1].ID == "gpu-1", "%+v are both heads", heads)
	}
	degraded, err := client.Collect(admin.Heads(ctx, client.HeadQuery{Status: "degraded", Region: "us-east"}), 0)
	check(err)
	want(len(degraded) == 1, "%+v is the degraded head", degraded)
	check(admin.DeleteHead(ctx, "cpu-1"))
	refused(admin.DeleteHead(ctx, "cpu-1"), client.ErrNotFound, api.CodeHeadNotFound, "")
}

// watch follows the events until the outcome of a decision comes.
func watch(ctx context.Context, viewer *client.Client) <-chan error {
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		made := false
		for n, err := range viewer.Watch(ctx, api.Subscription{Types: []string{"head.*", "policy.*", "decision.*"}}) {
			switch {
			case err != nil:
				ended <- err
				return
			case n.Snapshot != nil:
				want(len(n.Snapshot.Heads) == 1 && n.Snapshot.Part == 1 && n.Snapshot.PolicyRevision > 0, "%+v is the fleet", n.Snapshot)
				close(begun)
			case n.Event != nil && n.Event.Type == "decision.made":
				made = n.Event.ID != "" && n.Event.Head == "gpu-1"
			case n.Event != nil && n.Event.Type == "decision.ended":
				var d api.RecentDecision
				check(json.Unmarshal(n.Event.Data, &d))
				want(made && d.Outcome != nil && d.Outcome.Result == client.ResultOK, "%s is a decision that ended well", n.Event.Data)
				ended <- nil
				return
			}
		}
	}()
	<-begun
	return ended
}

func decisions(ctx context.Context, admin, chat *client.Client) {
	d, err := chat.Decide(ctx, api.DecisionRequest{ModelType: "gpt", SessionKey: "s", Region: "eu-west", Explain: true, InputTokens: new(int64(10)), Labels: map[string]string{"gpu": "h100"}})
	check(err)
	want(d.Head.ID == "gpu-1" && d.Head.Endpoint == "http://10.0.0.1:8000" && d.ModelType == "llama-8b" && d.Strategy == "session_affinity" && d.Reason != "" &&
		time.Until(d.ExpiresAt) > 0 && d.PolicyRevision > 0, "%+v is a decision", d.Decision)
	x := d.Explanation
	want(x != nil && x.Rule == "/rules/0" && x.Formula != "" && len(x.Candidates) == 1 && x.Candidates[0].Chosen && len(x.Candidates[0].Signals) > 0, "%+v explains it", x)
	check(d.FirstToken(ctx))
	check(d.Outcome(ctx, api.Outcome{Result: client.ResultOK, StatusCode: new(int64(200)), TTFTMs: new(12.5), DurationMs: new(80.0), OutputTokens: new(int64(7))}))
	check(d.Outcome(ctx, api.Outcome{Result: client.ResultError})) // a second one changes nothing
	recent, err := admin.Decision(ctx, d.DecisionID)
	check(err)
	want(recent.Outcome != nil && recent.Outcome.Result == client.ResultOK && *recent.Outcome.OutputTokens == 7 && recent.FirstTokenAt != nil && recent.Explanation != nil,
		"%+v has its outcome", recent)
	refused(chat.ReportOutcome(ctx, "dec_x", api.Outcome{Result: client.ResultOK}), client.ErrNotFound, api.CodeDecisionNotFound, "")
	refused(chat.ReportOutcome(ctx, d.DecisionID, api.Outcome{Result: "great"}), client.ErrInvalid, api.CodeInvalid, "/result")

	_, err = chat.Decide(ctx, api.DecisionRequest{ModelType: "nobody"})
	refused(err, client.ErrUnknownModelType, api.CodeUnknownModelType, "")
	soon, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err = chat.Decide(soon, api.DecisionRequest{ModelType: "llama-8b", Exclude: []string{"gpu-1"}})
	refused(err, client.ErrNoHead, api.CodeNoEligibleHead, "")
	refusal, _ := errors.AsType[*client.Error](err)
	want(refusal.Problem.Reason == "excluded" && refusal.Problem.Removed["exclude"] == 1 && refusal.RetryAfter > 0, "%+v says why", refusal.Problem)
	_, err = chat.Policy(ctx)
	refused(err, client.ErrForbidden, api.CodeForbidden, "")

	asked := false
	check(chat.Do(ctx, api.DecisionRequest{ModelType: "llama-70b"}, func(_ context.Context, call *client.Call) error {
		asked = call.Head.ID == "gpu-1"
		call.FirstToken()
		call.Status(200)
		call.Usage(3, 4, 0)
		return nil
	}))
	want(asked, "the head was asked")
	list, err := client.Collect(admin.Decisions(ctx, client.DecisionQuery{ModelType: "llama-70b", Head: "gpu-1", PageSize: 1}), 1)
	check(err)
	want(len(list) == 1 && list[0].Head.ID == "gpu-1", "%+v is the last decision", list)
	strategies, err := admin.Strategies(ctx)
	check(err)
	at := slices.IndexFunc(strategies, func(s api.Strategy) bool { return s.Name == "session_affinity" })
	want(at >= 0 && strategies[at].Results.Decisions > 0 && strategies[at].Parameters[0].Name == "bound" && *strategies[at].Parameters[0].Maximum == 100, "%+v are the strategies", strategies)
}

func socket(ctx context.Context, admin *client.Client) {
	s, err := admin.OpenSocket(ctx)
	check(err)
	defer s.Close()
	answer, err := s.Register(ctx, api.Registration{ID: "ws-1", Endpoint: "http://10.0.0.3:8000", ModelType: "ws", Region: "moon", Status: "active"})
	check(err)
	_, err = s.Report(ctx, "ws-1", api.StatusReport{Epoch: answer.Lease.Epoch, Status: "active", Load: &api.Load{InFlight: new(int64(1))}})
	check(err)
	d, err := s.Decide(ctx, api.DecisionRequest{ModelType: "ws"})
	check(err)
	want(d.Head.ID == "ws-1", "%+v is the head of the socket", d.Decision)
	check(s.ReportFirstToken(ctx, d.DecisionID))
	check(s.ReportOutcome(ctx, d.DecisionID, api.Outcome{Result: client.ResultCancelled}))
	refused(s.ReportOutcome(ctx, "dec_x", api.Outcome{Result: client.ResultOK}), client.ErrNotFound, api.CodeDecisionNotFound, "")
	check(s.Subscribe(ctx, api.Subscription{Types: []string{"head.*"}, Head: "ws-1"}))
	_, err = admin.PatchHead(ctx, "ws-1", api.HeadPatch{AdminState: new("draining")})
	check(err)
	var snapshot, event, notice bool
	for !snapshot || !event || !notice {
		select {
		case n := <-s.Notices():
			snapshot = snapshot || n.Snapshot != nil
			event = event || n.Event != nil && n.Event.Head == "ws-1"
			notice = notice || n.Admin != nil && n.Admin.Head == "ws-1" && n.Admin.AdminState == "draining"
		case <-ctx.Done():
			fail(fmt.Sprintf("over the socket came: snapshot %v, event %v, notice %v", snapshot, event, notice))
		}
	}
	check(s.Unsubscribe(ctx))
	check(s.Deregister(ctx, "ws-1"))
}

func rest(ctx context.Context, admin, viewer *client.Client) {
	records, err := client.Collect(admin.Audit(ctx, client.AuditQuery{}), 0)
	check(err)
	want(slices.ContainsFunc(records, func(r api.AuditRecord) bool {
		return r.V == 1 && r.Seq > 0 && r.Action == "policy.put" && r.Stage == "result" && r.Outcome == "success" && r.Actor.Type == "key" && r.Actor.Via == "http" && r.Hash != "" && r.Prev != ""
	}), "the change of the policy is among %d records", len(records))
	denied, err := client.Collect(admin.Audit(ctx, client.AuditQuery{Outcome: "denied"}), 0)
	check(err)
	want(len(denied) > 0 && len(denied) < len(records) && denied[0].Reason != "", "%d of %d records are refusals", len(denied), len(records))

	letters, err := client.Collect(admin.DeadLetters(ctx), 0)
	check(err)
	want(len(letters) == 0, "%+v is no letter", letters)
	refused(admin.RetryDeadLetter(ctx, 9), client.ErrNotFound, api.CodeLetterNotFound, "")
	_, err = viewer.CreateKey(ctx, api.KeyRequest{Name: "x", Role: "viewer"})
	refused(err, client.ErrForbidden, api.CodeForbidden, "")

	ready, err := viewer.Ready(ctx)
	check(err)
	want(ready.Status == "ok" && len(ready.Checks) > 0 && ready.Checks[0].OK, "%+v is ready", ready)
	metrics, err := viewer.Metrics(ctx)
	check(err)
	text, err := io.ReadAll(metrics)
	check(err)
	want(strings.Contains(string(text), "routing_decisions_total{"), "decisions are counted")
	check(metrics.Close())
}
