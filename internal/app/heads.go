package app

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"headway/api"
	"headway/internal/address"
	"headway/internal/agent"
	"headway/internal/config"
	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/strict"
)

const (
	defaultRegion     = "default" // of a head without one, as of headway agent
	defaultDiscovered = 100       // heads of a name
)

// checkHeads makes the set of agents, and returns all faults of what the
// configuration says of heads.
func (a *App) checkHeads() (err error) {
	if a.roots, err = headRoots(a.config.Proxy.CAFile); err != nil {
		return err
	}
	if a.agents, err = agent.NewSet(agent.SetOptions{Metrics: a.metrics, Log: a.log}); err != nil {
		return err
	}
	return a.applyHeads(a.config.Heads.Static, a.config.Discovery)
}

// reloadHeads reads the lists of heads again. After an error they are as before.
func (a *App) reloadHeads() error {
	static, discovered, err := a.config.Engines(os.ReadFile)
	if err != nil {
		return err
	}
	return a.applyHeads(static, discovered)
}

// applyHeads has the set follow the lists. The error names every fault.
func (a *App) applyHeads(static []config.StaticHead, discovered []config.DiscoveredHeads) error {
	heads, headsErr := a.readHeads(static)
	names, namesErr := a.readNames(discovered)
	if err := errors.Join(headsErr, namesErr); err != nil {
		return err
	}
	return a.agents.Apply(heads, names)
}

// readHeads makes the agents' options of a list.
func (a *App) readHeads(list []config.StaticHead) ([]agent.Head, error) {
	var heads []agent.Head
	var faults []strict.Fault
	first := map[string]int{} // by id
	for i := range list {
		h, wrong := a.readHead(&list[i])
		faults = append(faults, below("/heads", i, wrong)...)
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

// below are the faults of an element of a list.
func below(list string, i int, faults []strict.Fault) (all []strict.Fault) {
	for _, f := range faults {
		all = append(all, strict.Fault{Pointer: fmt.Sprintf("%s/%d%s", list, i, f.Pointer), Reason: f.Reason})
	}
	return all
}

func (a *App) readHead(h *config.StaticHead) (agent.Head, []strict.Fault) {
	head, faults := a.engineHead(&h.EngineHead, h.ID, h.Endpoint, "static")
	head.Same = *h
	faults = append(faults, checkKey(&head.Options)...)
	if h.MetricsURL != "" {
		var err error
		if head.MetricsURL, err = fleet.Endpoint(h.MetricsURL, a.config.Heads.AllowLinkLocal); err != nil {
			faults = append(faults, strict.Fault{Pointer: "/metrics_url", Reason: err.Error()})
		}
	}
	return head, faults
}

// engineHead makes the agent's options of an engine at an endpoint; "" as id is
// host:port of it. source says where it comes from.
func (a *App) engineHead(h *config.EngineHead, id, endpoint, source string) (head agent.Head, faults []strict.Fault) {
	fault := func(pointer string, err error) {
		faults = append(faults, strict.Fault{Pointer: pointer, Reason: err.Error()})
	}
	allow := a.config.Heads.AllowLinkLocal
	engine := engines.Find(h.Engine)
	if engine == nil {
		fault("/engine", errors.New(strict.Unknown("engine", h.Engine, engines.Names())))
	}
	spec := fleet.Spec{
		ID: id, Endpoint: endpoint, ModelTypes: h.ModelTypes, Region: cmp.Or(h.Region, defaultRegion), Zone: h.Zone, Weight: h.Weight,
		Labels: agent.Sourced(h.Labels, source),
	}
	canonical, err := fleet.Endpoint(endpoint, allow)
	if err == nil && id == "" {
		spec.ID = agent.IDOf(canonical)
	}
	if len(spec.ModelTypes) == 0 {
		spec.ModelTypes = []string{"listed-by-the-engine"}
	}
	faults = append(faults, strict.FaultsOf(fleet.ValidateSpec(&spec, allow))...)
	o := agent.Options{
		Engine: engine, URL: canonical, AllowLinkLocal: allow, RootCAs: a.roots, Count: a.calls.HeadProbe, Log: a.log,
		Registration: api.Registration{
			ID: spec.ID, Endpoint: canonical, ModelTypes: h.ModelTypes, Region: spec.Region, Zone: h.Zone, Weight: &spec.Weight, Labels: spec.Labels,
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
	if engine != nil && engine.MetricsPort != "" && err == nil {
		o.MetricsURL = withPort(canonical, engine.MetricsPort)
	}
	if h.KeyFile != "" {
		o.Key = agent.KeyFile(h.KeyFile)
	}
	return agent.Head{Options: o}, faults
}

// checkKey returns why the key of an engine cannot be read. Once it could, a file
// that is missing is the agent's to report: it may be being replaced.
func checkKey(o *agent.Options) []strict.Fault {
	if o.Key != nil {
		if _, err := o.Key(); err != nil {
			return []strict.Fault{{Pointer: "/key_file", Reason: err.Error()}}
		}
	}
	return nil
}

// withPort is a canonical endpoint with another port.
func withPort(endpoint, port string) string {
	u, _ := url.Parse(endpoint)
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port)
}

// readNames makes the names that the agents follow of a list.
func (a *App) readNames(list []config.DiscoveredHeads) ([]agent.Name, error) {
	var names []agent.Name
	var faults []strict.Fault
	first := map[string]int{} // by key
	for i := range list {
		n, wrong := a.readName(&list[i])
		faults = append(faults, below("/discovery", i, wrong)...)
		if before, twice := first[n.Key]; twice {
			faults = append(faults, strict.Fault{Pointer: fmt.Sprintf("/discovery/%d", i), Reason: fmt.Sprintf("is the name of discovery/%d: %s", before, strict.Quote(n.Key))})
		} else {
			first[n.Key] = i
		}
		names = append(names, n)
	}
	if len(faults) > 0 {
		return nil, strict.Listed("discovery of the configuration is invalid", faults)
	}
	return names, nil
}

func (a *App) readName(d *config.DiscoveredHeads) (agent.Name, []strict.Fault) {
	q := agent.Query{
		Host: d.Name, Port: uint16(d.Port), Service: d.SRV, Server: d.Server, Count: a.calls.DNS,
		Family: map[string]string{"": "ip", "ipv4": "ip4", "ipv6": "ip6"}[d.Family],
	}
	n := agent.Name{
		Key: d.SRV, Same: *d, Lookup: q.Lookup, Interval: cmp.Or(time.Duration(d.Interval), agent.DefaultResolveEvery),
		Most: int(cmp.Or(d.MaxHeads, defaultDiscovered)),
	}
	if d.Name != "" {
		n.Key = net.JoinHostPort(d.Name, strconv.FormatInt(d.Port, 10))
	}
	var faults []strict.Fault
	wrong := func(is bool, pointer, reason string) {
		if is {
			faults = append(faults, strict.Fault{Pointer: pointer, Reason: reason})
		}
	}
	_, notIP := netip.ParseAddr(d.Name)
	asHost := func(name string) string { // "" is no fault here
		if name == "" {
			return ""
		}
		return address.CheckHost(name, true, "")
	}
	host, port, serverErr := net.SplitHostPort(d.Server)
	n16, portErr := strconv.ParseUint(port, 10, 16)
	wrong((d.Name == "") == (d.SRV == ""), "", "wants name, with port, or srv")
	wrong(d.Name != "" && notIP == nil, "/name", "is an address; put it into heads")
	wrong(asHost(d.Name) != "", "/name", asHost(d.Name))
	wrong(asHost(d.SRV) != "", "/srv", asHost(d.SRV))
	wrong(d.Name != "" && d.Port == 0, "/port", "must be given beside a name")
	wrong(d.SRV != "" && d.Port != 0, "/port", "must not stand beside srv, whose records have it")
	wrong(d.SRV != "" && d.Family != "", "/family", "must not stand beside srv, whose records have names")
	wrong(d.Server != "" && (serverErr != nil || portErr != nil || n16 == 0 || host == ""), "/server", "must be host:port of a DNS server, such as 127.0.0.1:8600")
	n.Head = func(hostPort string) (agent.Head, error) {
		endpoint := cmp.Or(d.Scheme, "http") + "://" + hostPort
		head, faults := a.engineHead(&d.EngineHead, "", endpoint, "dns")
		if len(faults) > 0 {
			return head, strict.Listed(hostPort, faults)
		}
		if d.MetricsPort != 0 {
			head.MetricsURL = withPort(head.URL, strconv.FormatInt(d.MetricsPort, 10))
		}
		head.Same = [3]any{d.EngineHead, endpoint, d.MetricsPort}
		return head, nil
	}
	like, ofAll := a.engineHead(&d.EngineHead, "", "http://host.invalid:1", "dns")
	return n, slices.Concat(faults, ofAll, checkKey(&like.Options))
}
