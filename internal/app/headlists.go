package app

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"headway/internal/address"
	"headway/internal/agent"
	"headway/internal/config"
	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/strict"
)

// CheckHeads returns what checks the engines and names that a configuration lists.
// Who starts them has their key files read as well.
func CheckHeads(keyFiles bool) config.Check {
	return func(c *config.Config) (static, discovery []strict.Fault) {
		return headFaults(c, keyFiles), nameFaults(c, keyFiles)
	}
}

func headFaults(c *config.Config, keyFiles bool) (faults []strict.Fault) {
	first := map[string]int{} // by id
	for i := range c.Heads.Static {
		h := &c.Heads.Static[i]
		e := readEngine(&h.EngineHead, h.ID, h.Endpoint, agent.FromStatic, c.Heads.AllowLinkLocal)
		if _, err := fleet.Endpoint(h.MetricsURL, c.Heads.AllowLinkLocal); h.MetricsURL != "" && err != nil {
			e.fault("/metrics_url", err)
		}
		if keyFiles {
			e.checkKeyFile(h.KeyFile)
		}
		if before, twice := first[e.ID]; twice && !e.nameless {
			e.fault("/id", fmt.Errorf("is that of the head at %d of the list: %s", before, strict.Quote(e.ID)))
		} else if !e.nameless {
			first[e.ID] = i
		}
		faults = append(faults, below(i, e.faults)...)
	}
	return faults
}

func nameFaults(c *config.Config, keyFiles bool) (faults []strict.Fault) {
	first := map[string]int{} // by key
	for i := range c.Discovery {
		d := &c.Discovery[i]
		e := readEngine(&d.EngineHead, "", "http://host.invalid:1", agent.FromDNS, c.Heads.AllowLinkLocal)
		if keyFiles {
			e.checkKeyFile(d.KeyFile)
		}
		if before, twice := first[nameKey(d)]; twice {
			e.fault("", fmt.Errorf("is the name of discovery.%d: %s", before, strict.Quote(nameKey(d))))
		} else {
			first[nameKey(d)] = i
		}
		faults = append(faults, below(i, slices.Concat(queryFaults(d), e.faults))...)
	}
	return faults
}

// below are the faults of an element of a list.
func below(i int, faults []strict.Fault) (all []strict.Fault) {
	for _, f := range faults {
		all = append(all, strict.Fault{Pointer: fmt.Sprintf("/%d%s", i, f.Pointer), Reason: f.Reason})
	}
	return all
}

// engineAt is what a configuration says of an engine at an endpoint.
type engineAt struct {
	*engines.Engine      // nil: a fault
	fleet.Spec           // whose endpoint is in its canonical form
	nameless        bool // it has no id, since its endpoint is faulty
	faults          strict.Faults
}

// readEngine reads what a configuration says of an engine; "" as id is host:port of
// the endpoint. source says where it comes from.
func readEngine(h *config.EngineHead, id, endpoint, source string, allowLinkLocal bool) *engineAt {
	e := &engineAt{Engine: engines.Find(h.Engine)}
	if e.Engine == nil {
		e.fault("/engine", errors.New(strict.Unknown("engine", h.Engine, engines.Names())))
	}
	if canonical, err := fleet.Endpoint(endpoint, allowLinkLocal); err == nil {
		endpoint, id = canonical, cmp.Or(id, agent.IDOf(canonical))
	}
	e.nameless = id == ""
	e.Spec = fleet.Spec{
		ID: cmp.Or(id, "nameless"), Endpoint: endpoint, ModelTypes: h.ModelTypes, Region: cmp.Or(h.Region, defaultRegion), Zone: h.Zone, Weight: h.Weight,
		Labels: agent.Sourced(h.Labels, source),
	}
	if len(h.ModelTypes) == 0 {
		e.ModelTypes = []string{"listed-by-the-engine"}
	}
	e.faults = append(e.faults, strict.FaultsOf(fleet.ValidateSpec(&e.Spec, allowLinkLocal))...)
	return e
}

func (e *engineAt) fault(pointer string, err error) { e.faults.Add(pointer, "%v", err) }

// checkKeyFile finds why the key of an engine cannot be read. Once it could, a file
// that is missing is the agent's to report: it may be being replaced.
func (e *engineAt) checkKeyFile(file string) {
	if file == "" {
		return
	}
	if _, err := agent.KeyFile(file)(); err != nil {
		e.fault("/key_file", err)
	}
}

// nameKey is the key of a name within the set of agents.
func nameKey(d *config.DiscoveredHeads) string {
	if d.Name == "" {
		return d.SRV
	}
	return net.JoinHostPort(d.Name, strconv.FormatInt(d.Port, 10))
}

// queryFaults are the faults of what DNS is to be asked.
func queryFaults(d *config.DiscoveredHeads) (faults strict.Faults) {
	wrong := func(is bool, pointer, reason string) {
		if is {
			faults.Add(pointer, "%s", reason)
		}
	}
	asHost := func(name string) string { // "" is no fault here
		if name == "" {
			return ""
		}
		return address.CheckHost(name, true, "")
	}
	_, notIP := netip.ParseAddr(d.Name)
	host, port, serverErr := net.SplitHostPort(d.Server)
	n, portErr := strconv.ParseUint(port, 10, 16)
	wrong((d.Name == "") == (d.SRV == ""), "", "wants name, with port, or srv")
	wrong(d.Name != "" && notIP == nil, "/name", "is an address; put it into heads")
	wrong(asHost(d.Name) != "", "/name", asHost(d.Name))
	wrong(asHost(d.SRV) != "", "/srv", asHost(d.SRV))
	wrong(d.Name != "" && d.Port == 0, "/port", "must be given beside a name")
	wrong(d.SRV != "" && d.Port != 0, "/port", "must not stand beside srv, whose records have it")
	wrong(d.SRV != "" && d.Family != "", "/family", "must not stand beside srv, whose records have names")
	wrong(d.Server != "" && (serverErr != nil || portErr != nil || n == 0 || host == ""), "/server", "must be host:port of a DNS server, such as 127.0.0.1:8600")
	return faults
}
