package app

import (
	"cmp"
	"context"
	"net"
	"net/url"
	"os"
	"strconv"
	"time"

	"headway/api"
	"headway/internal/agent"
	"headway/internal/config"
	"headway/internal/fleet"
	"headway/internal/registry"
	"headway/internal/strict"
)

const (
	defaultRegion     = "default" // of a head without one, as of headway agent
	defaultDiscovered = 100       // heads of a name
)

// checkHeads makes the set of agents of what the configuration lists, whose faults
// CheckHeads finds.
func (a *App) checkHeads() (err error) {
	if a.roots, err = headRoots(a.config.Proxy.CAFile); err != nil {
		return err
	}
	if a.agents, err = agent.NewSet(agent.SetOptions{Metrics: a.metrics, Log: a.log}); err != nil {
		return err
	}
	_, _, err = a.applyHeads(a.config.Heads.Static, a.config.Discovery)
	return err
}

// reloadHeads reads the lists of heads again, and returns how they changed and which
// settings beside them wait for the next start. After an error, which has every fault,
// the lists are as before.
func (a *App) reloadHeads() (heads, names agent.Change, waiting []string, err error) {
	again, err := a.config.Reread(os.ReadFile, CheckHeads(true))
	if err != nil {
		return heads, names, nil, err
	}
	heads, names, err = a.applyHeads(again.Static, again.Discovery)
	return heads, names, again.Waiting, err
}

// applyHeads has the set follow the lists.
func (a *App) applyHeads(static []config.StaticHead, discovered []config.DiscoveredHeads) (ofHeads, ofNames agent.Change, err error) {
	var heads []agent.Head
	for i := range static {
		heads = append(heads, a.staticHead(&static[i]))
	}
	var names []agent.Name
	for i := range discovered {
		names = append(names, a.discoveredName(&discovered[i]))
	}
	return a.agents.Apply(heads, names)
}

// fromLists are the heads that came from lists of the configuration, as their labels say.
func (a *App) fromLists() (found []fleet.View) {
	const page = 1000 // of a fleet that may have a hundred thousand
	for q := (registry.Query{Limit: page}); ; {
		heads, next := a.fleet.List(q)
		for i := range heads {
			if source := heads[i].Record.Spec.Labels[agent.SourceLabel]; source == agent.FromStatic || source == agent.FromDNS {
				found = append(found, heads[i])
			}
		}
		if q.Cursor = next; next == "" {
			return found
		}
	}
}

// removeUnlisted removes those of stored, which came from the lists of an earlier start,
// that are in no list any more: nothing keeps them registered. Until each name was
// resolved, a head may be one of its addresses. One that registered or reported since
// the start is kept by something else.
func (a *App) removeUnlisted(ctx context.Context, stored []fleet.View) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.agents.Whole():
	}
	listed, removed := a.agents.Listed(), 0
	for i := range stored {
		id := stored[i].Record.Spec.ID
		now, err := a.fleet.Head(id)
		if err != nil || listed[id] || now.Report != nil || now.Lease.Epoch != stored[i].Lease.Epoch {
			continue
		}
		if err := a.fleet.Deregister(ctx, id); err != nil {
			a.log.Warn("a head that is in no list any more is not removed before its time", "head", id, "error", err)
			continue
		}
		removed++
	}
	if removed > 0 {
		a.log.Info("heads that came from the lists of an earlier start and are in none any more were removed", "heads.removed", removed)
	}
	return nil
}

func (a *App) staticHead(h *config.StaticHead) agent.Head {
	allow := a.config.Heads.AllowLinkLocal
	head := a.engineHead(&h.EngineHead, readEngine(&h.EngineHead, h.ID, h.Endpoint, agent.FromStatic, allow))
	head.Same = *h
	if h.MetricsURL != "" {
		head.MetricsURL, _ = fleet.Endpoint(h.MetricsURL, allow)
	}
	return head
}

// engineHead makes the agent's options of an engine.
func (a *App) engineHead(h *config.EngineHead, e *engineAt) agent.Head {
	o := agent.Options{
		Engine: e.Engine, URL: e.Endpoint, AllowLinkLocal: a.config.Heads.AllowLinkLocal, RootCAs: a.roots, Count: a.calls.HeadProbe, Log: a.log,
		Registration: api.Registration{
			ID: e.ID, Endpoint: e.Endpoint, ModelTypes: h.ModelTypes, Region: e.Region, Zone: e.Zone, Weight: &e.Weight, Labels: e.Labels,
		},
		Open: func(r api.Registration, load func() fleet.Load) (agent.Lease, error) {
			return agent.Within(agent.WithinOptions{Registry: a.fleet, Log: a.log, Registered: func(id string, models []string, created bool) {
				a.router.Registered(id, models, created)
			}})(r, load)
		},
	}
	if h.MaxInFlight > 0 {
		o.Registration.Capacity = &api.Capacity{MaxInFlight: h.MaxInFlight}
	}
	if e.Engine != nil && e.MetricsPort != "" {
		o.MetricsURL = withPort(e.Endpoint, e.MetricsPort)
	}
	if h.KeyFile != "" {
		o.Key = agent.KeyFile(h.KeyFile)
	}
	return agent.Head{Options: o}
}

// withPort is a canonical endpoint with another port.
func withPort(endpoint, port string) string {
	u, _ := url.Parse(endpoint)
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port)
}

func (a *App) discoveredName(d *config.DiscoveredHeads) agent.Name {
	q := agent.Query{
		Host: d.Name, Port: uint16(d.Port), Service: d.SRV, Server: d.Server, Count: a.calls.DNS,
		Family: map[string]string{"": "ip", "ipv4": "ip4", "ipv6": "ip6"}[d.Family],
	}
	return agent.Name{
		Key: nameKey(d), Same: *d, Lookup: q.Lookup, Interval: cmp.Or(time.Duration(d.Interval), agent.DefaultResolveEvery),
		Most: int(cmp.Or(d.MaxHeads, defaultDiscovered)),
		Head: func(hostPort string) (agent.Head, error) { return a.discoveredHead(d, hostPort) },
	}
}

// discoveredHead is an engine that a name has, or why it is refused.
func (a *App) discoveredHead(d *config.DiscoveredHeads, hostPort string) (agent.Head, error) {
	endpoint := cmp.Or(d.Scheme, "http") + "://" + hostPort
	e := readEngine(&d.EngineHead, "", endpoint, agent.FromDNS, a.config.Heads.AllowLinkLocal)
	if len(e.faults) > 0 {
		return agent.Head{}, strict.Listed(hostPort, e.faults)
	}
	head := a.engineHead(&d.EngineHead, e)
	if d.MetricsPort != 0 {
		head.MetricsURL = withPort(head.URL, strconv.FormatInt(d.MetricsPort, 10))
	}
	head.Same = [3]any{d.EngineHead, endpoint, d.MetricsPort}
	return head, nil
}
