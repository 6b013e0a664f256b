package mockhead

import (
	"fmt"

	"headway/api"
	"headway/client"
	"headway/internal/engine"
)

// Place is a head's registered name and location.
type Place struct {
	ID      string
	Region  string
	Zone    string
	Version string

	TakeOver bool // from the endpoint that has the id now
}

// NewAgent makes an agent that registers the head with a router and reports its
// load; the caller runs it.
func (h *Head) NewAgent(router *client.Client, p Place) (*client.Agent, error) {
	agent, err := router.NewAgent(api.Registration{
		ID: p.ID, Endpoint: h.URL(), ModelTypes: h.Models(), Region: p.Region, Zone: p.Zone,
		Version: p.Version, Engine: "vllm", Capacity: &api.Capacity{MaxInFlight: int64(h.MaxInFlight())},
		TakeOver: p.TakeOver,
	}, func() api.Load { return reported(h.Load()) })
	if err != nil {
		return nil, fmt.Errorf("register the head at %s: %w", h.URL(), err)
	}
	return agent, nil
}

func reported(l engine.Load) api.Load {
	running, waiting := int64(l.Running), int64(l.Waiting)
	pending, capacity := int64(l.PendingPromptTokens), int64(l.KVCapacityTokens)
	return api.Load{
		InFlight: &running, Queued: &waiting, PendingPromptTokens: &pending,
		KVCacheUsage: &l.KVUsage, KVCapacityTokens: &capacity,
		Utilization: &l.Utilization, TokensPerSecond: &l.TokensPerSecond,
	}
}
