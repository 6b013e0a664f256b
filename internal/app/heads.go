package app

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"

	"headway/api"
	"headway/internal/agent"
	"headway/internal/config"
	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/strict"
)

// defaultRegion is that of a static head without one, as of headway agent.
const defaultRegion = "default"

// checkHeads makes the set of agents, and returns all faults of the static heads.
func (a *App) checkHeads() (err error) {
	if a.agents, err = agent.NewSet(a.log); err == nil {
		a.static, err = a.readHeads(a.config.Heads.Static)
	}
	return err
}

// followHeads keeps the static heads registered until ctx ends.
func (a *App) followHeads(ctx context.Context) error {
	defer a.agents.Close()
	if err := a.agents.Apply(a.static); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// reloadHeads reads the static heads again. After an error they are as before.
func (a *App) reloadHeads() error {
	list, err := a.config.StaticHeads(os.ReadFile)
	if err != nil {
		return err
	}
	heads, err := a.readHeads(list)
	if err != nil {
		return err
	}
	return a.agents.Apply(heads)
}

// readHeads makes the agents' options of a list. The error names every fault.
func (a *App) readHeads(list []config.StaticHead) ([]agent.Head, error) {
	var heads []agent.Head
	var faults []strict.Fault
	first := map[string]int{} // by id
	for i := range list {
		h, wrong := a.readHead(&list[i])
		for _, f := range wrong {
			faults = append(faults, strict.Fault{Pointer: fmt.Sprintf("/heads/%d%s", i, f.Pointer), Reason: f.Reason})
		}
		id := h.Registration.ID
		if before, twice := first[id]; twice && id != "" {
			faults = append(faults, strict.Fault{Pointer: fmt.Sprintf("/heads/%d/id", i), Reason: fmt.Sprintf("is that of heads/%d: %s", before, strict.Quote(id))})
		} else {
			first[id] = i
		}
		heads = append(heads, h)
	}
	if len(faults) > 0 {
		return nil, strict.Listed("heads of the configuration are invalid", faults)
	}
	return heads, nil
}

func (a *App) readHead(h *config.StaticHead) (head agent.Head, faults []strict.Fault) {
	fault := func(pointer string, err error) {
		faults = append(faults, strict.Fault{Pointer: pointer, Reason: err.Error()})
	}
	allow := a.config.Heads.AllowLinkLocal
	engine := engines.Find(h.Engine)
	if engine == nil {
		fault("/engine", fmt.Errorf("%s", strict.Unknown("engine", h.Engine, engines.Names())))
	}
	spec := fleet.Spec{
		ID: h.ID, Endpoint: h.Endpoint, ModelTypes: h.ModelTypes, Region: h.Region, Zone: h.Zone, Weight: h.Weight, Labels: h.Labels,
	}
	endpoint, err := fleet.Endpoint(h.Endpoint, allow)
	if err == nil && h.ID == "" {
		spec.ID = agent.IDOf(endpoint)
	}
	if spec.Region == "" {
		spec.Region = defaultRegion
	}
	if len(spec.ModelTypes) == 0 {
		spec.ModelTypes = []string{"listed-by-the-engine"}
	}
	faults = append(faults, strict.FaultsOf(fleet.ValidateSpec(&spec, allow))...)
	o := agent.Options{
		Engine: engine, URL: endpoint, MetricsURL: h.MetricsURL, AllowLinkLocal: allow, Log: a.log,
		Registration: api.Registration{
			ID: spec.ID, Endpoint: endpoint, ModelTypes: h.ModelTypes, Region: spec.Region, Zone: h.Zone, Weight: &spec.Weight, Labels: h.Labels,
		},
		Open: func(r api.Registration, load func() fleet.Load) (agent.Lease, error) {
			return agent.Within(a.fleet, a.log)(r, load)
		},
	}
	if h.MaxInFlight > 0 {
		o.Registration.Capacity = &api.Capacity{MaxInFlight: h.MaxInFlight}
	}
	switch {
	case h.MetricsURL != "":
		if o.MetricsURL, err = fleet.Endpoint(h.MetricsURL, allow); err != nil {
			fault("/metrics_url", err)
		}
	case engine != nil && engine.MetricsPort != "" && err == nil:
		u, _ := url.Parse(endpoint) // it is canonical
		o.MetricsURL = u.Scheme + "://" + net.JoinHostPort(u.Hostname(), engine.MetricsPort)
	}
	if h.KeyFile != "" {
		o.Key = agent.KeyFile(h.KeyFile)
		if _, err := o.Key(); err != nil {
			fault("/key_file", err)
		}
	}
	return agent.Head{Options: o, Same: *h}, faults
}
