package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"headway/api"
	"headway/client"
	"headway/internal/app"
	"headway/internal/config"
)

// service is a whole Headway, which can be stopped and started again at its
// address with what it has stored.
type service struct {
	t      testing.TB
	config config.Config
	stop   func()
}

func startService(t testing.TB, change ...func(*config.Config)) *service {
	t.Helper()
	flags := pflag.NewFlagSet("headway", pflag.ContinueOnError)
	config.AddFlags(flags)
	c, err := config.Load(flags, nil, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	c.Listen, c.DataDir, c.HTTP.LameDuck = "127.0.0.1:0", filepath.Join(t.TempDir(), "data"), time.Millisecond
	c.Audit.File, c.Redis.Mode, c.Lease.BaseInterval = filepath.Join(t.TempDir(), "audit.log"), "off", 100*time.Millisecond
	c.Queue.Mode = "off" // the examples try it
	for _, f := range change {
		f(&c)
	}
	s := &service{t: t, config: c}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *service) start() {
	s.t.Helper()
	a, err := app.New(context.Background(), app.Options{Config: s.config, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.config.Listen = a.Addr().String() // the same after a restart
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("the service stopped with: %v", err)
		}
		s.stop = func() {}
	}
}

func (s *service) url() string { return "http://" + s.config.Listen }

func registration(id string) api.Registration {
	return api.Registration{
		ID: id, Endpoint: "http://10.0.0.1:8000", ModelTypes: []string{"llama-3.1-8b"}, Region: "eu-west",
		Capacity: &api.Capacity{MaxInFlight: 8},
	}
}

func idle() api.Load {
	n, usage := int64(0), 0.25
	return api.Load{InFlight: &n, KVCacheUsage: &usage}
}

// keep runs an agent of a head until the test ends, and waits until it takes
// requests.
func keep(t testing.TB, c *client.Client, id string) *client.Agent {
	t.Helper()
	a, err := c.NewAgent(registration(id), idle)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	select {
	case <-a.Ready():
	case <-time.After(20 * time.Second):
		t.Fatalf("%s is not ready: %+v", id, a.State())
	}
	return a
}

// await polls a condition of a running service for up to 20 s.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("within 20 s it did not come true that %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAHeadOutlivesItsRouter(t *testing.T) {
	s := startService(t)
	c := dial(t, s.url())
	a := keep(t, c, "h1")
	ctx := t.Context()
	d, err := c.Decide(ctx, api.DecisionRequest{ModelType: "llama-3.1-8b"})
	must(t, err)
	must(t, errors.Join(d.FirstToken(ctx), d.Outcome(ctx, api.Outcome{Result: client.ResultOK})))

	s.stop() // between two heartbeats
	if err := decide(ctx, c); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("without a router: %v", err)
	}
	await(t, "the agent notices", func() bool { return a.State().LastError != nil })
	s.start()
	reports := a.State().Reports
	await(t, "the agent reports again", func() bool { return a.State().Reports > reports })
	_, err = c.Decide(ctx, api.DecisionRequest{ModelType: "llama-3.1-8b"})
	must(t, err)

	epoch := a.State().Epoch
	must(t, c.DeleteHead(ctx, "h1")) // an operator's mistake
	await(t, "the agent registers again", func() bool { return a.State().Epoch > epoch })
	second, err := c.Register(ctx, registration("h1")) // another head's
	must(t, err)
	await(t, "the agent has a newer epoch", func() bool { return a.State().Epoch > second.Lease.Epoch })
	_, err = c.Report(ctx, "h1", api.StatusReport{Epoch: second.Lease.Epoch, Status: client.StatusActive})
	if !errors.Is(err, client.ErrStale) || !errors.Is(err, client.ErrConflict) {
		t.Errorf("a report of an old epoch: %v", err)
	}

	a.Drain()
	await(t, "the router knows that the head drains", func() bool {
		h, err := c.Head(ctx, "h1")
		return err == nil && h.Status == client.StatusDraining && !h.Routable
	})
	must(t, a.Close(ctx))
	if _, err := c.Head(ctx, "h1"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("after Close: %v", err)
	}
}

func TestARequestGoesToTheNextHead(t *testing.T) {
	s := startService(t)
	c := dial(t, s.url())
	keep(t, c, "h1")
	keep(t, c, "h2")
	var first string
	err := c.Do(t.Context(), api.DecisionRequest{ModelType: "llama-3.1-8b", Region: "eu-west"}, func(_ context.Context, call *client.Call) error {
		call.FirstToken()
		return nil
	})
	must(t, err)
	err = c.Do(t.Context(), api.DecisionRequest{ModelType: "llama-3.1-8b"}, func(_ context.Context, call *client.Call) error {
		if call.Attempt == 0 {
			first = call.Head.ID
			call.Status(500)
			return errHead
		}
		if call.Head.ID == first {
			t.Error("the same head was tried again")
		}
		return nil
	})
	must(t, err)
	recent, err := client.Collect(c.Decisions(t.Context(), client.DecisionQuery{PageSize: 1}), 0)
	must(t, err)
	if len(recent) != 2 || recent[0].Outcome.Result != client.ResultError || *recent[0].Outcome.StatusCode != 500 ||
		recent[1].Outcome.Result != client.ResultOK || recent[1].FirstTokenAt == nil || recent[0].Head.ID != first {
		t.Errorf("decisions %+v", recent)
	}
	heads, err := client.Collect(c.Heads(t.Context(), client.HeadQuery{Region: "eu-west", PageSize: 1}), 0)
	must(t, err)
	if len(heads) != 2 || heads[0].ID != "h1" || heads[1].ID != "h2" || heads[0].InFlight+heads[1].InFlight != 0 {
		t.Errorf("heads %+v", heads)
	}
	_, err = c.Decide(t.Context(), api.DecisionRequest{ModelType: "nobody's"})
	if !errors.Is(err, client.ErrUnknownModelType) {
		t.Errorf("an unknown model: %v", err)
	}
}

func TestTheOperatorsSide(t *testing.T) {
	s := startService(t)
	c := dial(t, s.url(), client.WithRetries(0))
	ctx := t.Context()
	keep(t, c, "h1")
	state, weight := "maintenance", 2.5
	h, err := c.PatchHead(ctx, "h1", api.HeadPatch{AdminState: &state, Weight: &weight})
	must(t, err)
	if h.AdminState != state || h.Weight != weight || h.Routable {
		t.Errorf("head %+v", h)
	}
	_, err = c.Decide(ctx, api.DecisionRequest{ModelType: "llama-3.1-8b"})
	if e, ok := errors.AsType[*client.Error](err); !ok || !errors.Is(err, client.ErrNoHead) || e.Problem.Reason == "" || e.RetryAfter == 0 {
		t.Errorf("without a head: %v", err)
	}
	if _, err := c.PatchHead(ctx, "nobody", api.HeadPatch{AdminState: &state}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("nobody's state: %v", err)
	}
	strategies, err := c.Strategies(ctx)
	must(t, err)
	if !slices.ContainsFunc(strategies, func(s api.Strategy) bool { return s.Name == "round_robin" && s.Formula != "" }) {
		t.Errorf("strategies %+v", strategies)
	}
	ready, err := c.Ready(ctx)
	must(t, err)
	if ready.Status != "ok" || len(ready.Checks) == 0 {
		t.Errorf("readiness %+v", ready)
	}
	metrics, err := c.Metrics(ctx)
	must(t, err)
	text, err := io.ReadAll(metrics)
	must(t, errors.Join(err, metrics.Close()))
	if !strings.Contains(string(text), "\nrouting_decisions_total{") {
		t.Errorf("metrics without routing_decisions_total: %d bytes", len(text))
	}
	copied, err := c.ExportState(ctx)
	must(t, err)
	text, err = io.ReadAll(copied)
	must(t, errors.Join(err, copied.Close()))
	if !strings.HasPrefix(string(text), `{"format":"headway-state"`) || !strings.Contains(string(text), `"id":"h1"`) {
		t.Errorf("the state is %s", text)
	}
	if report, err := c.CheckState(ctx); err != nil || !report.Sound || len(report.Buckets) == 0 {
		t.Errorf("the check says %+v, error %v", report, err)
	}
}

func TestThePolicyIsChangedByWhoHasRead(t *testing.T) {
	s := startService(t)
	c := dial(t, s.url())
	ctx := t.Context()
	before, err := c.Policy(ctx)
	must(t, err)
	patch := json.RawMessage(`{"default_strategy":"round_robin"}`)
	changed, err := c.PatchPolicy(ctx, patch, client.PolicyChange{IfMatch: before.ETag, Note: "simpler"})
	must(t, err)
	if changed.Revision <= before.Revision || !strings.Contains(string(changed.Document), "round_robin") {
		t.Errorf("revision %d, %s", changed.Revision, changed.Document)
	}
	if _, err := c.PutPolicy(ctx, before.Document, client.PolicyChange{IfMatch: before.ETag}); !errors.Is(err, client.ErrStale) {
		t.Errorf("with an old ETag: %v", err)
	}
	if _, err := c.PutPolicy(ctx, before.Document, client.PolicyChange{}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("without an ETag: %v", err)
	}
	if _, err := c.PutPolicy(ctx, nil, client.PolicyChange{IfMatch: "*"}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("without a document: %v", err)
	}
	wrong := json.RawMessage(`{"default_strategy":"magic","rules":7}`)
	_, err = c.PutPolicy(ctx, wrong, client.PolicyChange{IfMatch: changed.ETag})
	if e, ok := errors.AsType[*client.Error](err); !ok || !errors.Is(err, client.ErrInvalid) || len(e.Problem.Errors) == 0 {
		t.Errorf("a wrong document: %v", err)
	}
	check, err := c.ValidatePolicy(ctx, wrong)
	must(t, err)
	if check.Valid || len(check.Errors) == 0 {
		t.Errorf("check of a wrong document %+v", check)
	}
	put, err := c.PutPolicy(ctx, before.Document, client.PolicyChange{IfMatch: changed.ETag})
	must(t, err)
	back, err := c.RestorePolicy(ctx, changed.Revision, client.PolicyChange{IfMatch: put.ETag})
	must(t, err)
	if _, err := c.RestorePolicy(ctx, changed.Revision, client.PolicyChange{}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a restoration without an ETag: %v", err)
	}
	if put.Revision <= changed.Revision || back.Revision <= put.Revision || string(back.Document) != string(changed.Document) {
		t.Errorf("revisions %d, %d, %d", changed.Revision, put.Revision, back.Revision)
	}
	revisions, err := client.Collect(c.PolicyRevisions(ctx), 0)
	must(t, err)
	i := slices.IndexFunc(revisions, func(r api.PolicyRevision) bool { return r.Revision == changed.Revision })
	if i < 0 || revisions[i].Note != "simpler" || !revisions[0].Current {
		t.Errorf("revisions %+v", revisions)
	}
	one, err := c.PolicyRevision(ctx, changed.Revision)
	must(t, err)
	if len(one.Document) == 0 || one.Note != "simpler" {
		t.Errorf("revision %+v", one)
	}
	if _, err := c.PolicyRevision(ctx, 9999); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("revision 9999: %v", err)
	}
}

func TestKeysAndWhatTheAuditTrailSaysOfThem(t *testing.T) {
	s := startService(t)
	ctx := t.Context()
	admin, err := dial(t, s.url()).CreateKey(ctx, api.KeyRequest{Name: "first", Role: "admin"})
	must(t, err)
	c := dial(t, s.url(), client.WithToken(admin.Secret))
	viewer, err := c.CreateKey(ctx, api.KeyRequest{Name: "reader", Role: "viewer"})
	must(t, err)
	if err := getHead(ctx, dial(t, s.url())); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("without a key: %v", err)
	}
	reader := dial(t, s.url(), client.WithToken(viewer.Secret))
	if err := decide(ctx, reader); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a viewer decides: %v", err)
	}
	patched, err := c.PatchKey(ctx, viewer.ID, api.KeyPatch{Weight: new(int64(3))})
	must(t, err)
	if patched.Weight != 3 || patched.Secret != "" {
		t.Errorf("the patched key is %+v", patched)
	}
	must(t, c.RevokeKey(ctx, viewer.ID))
	must(t, c.RevokeKey(ctx, viewer.ID))
	if _, err := client.Collect(reader.Heads(ctx, client.HeadQuery{}), 0); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("with a revoked key: %v", err)
	}
	if err := c.RevokeKey(ctx, "nobody"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a key that there is not: %v", err)
	}
	keys, err := client.Collect(c.Keys(ctx), 0)
	must(t, err)
	if len(keys) != 2 || slices.ContainsFunc(keys, func(k api.Key) bool { return k.Secret != "" }) {
		t.Errorf("keys %+v", keys)
	}
	trail, err := client.Collect(c.Audit(ctx, client.AuditQuery{Action: "key.", Outcome: "success", PageSize: 1, Since: time.Now().Add(-time.Hour)}), 0)
	must(t, err)
	var actions []string
	for _, r := range trail {
		actions = append(actions, r.Action)
	}
	slices.Sort(actions)
	if want := []string{"key.create", "key.create", "key.patch", "key.revoke"}; !slices.Equal(actions, want) {
		t.Errorf("trail %v, want %v", actions, want)
	}
}

func BenchmarkDecide(b *testing.B) {
	s := startService(b)
	c := dial(b, s.url())
	keep(b, c, "h1")
	r := api.DecisionRequest{ModelType: "llama-3.1-8b", SessionKey: "user-7"}
	b.ReportAllocs()
	for b.Loop() {
		d, err := c.Decide(b.Context(), r)
		must(b, err)
		must(b, d.Outcome(b.Context(), api.Outcome{Result: client.ResultOK}))
	}
}
