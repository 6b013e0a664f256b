package proxy

import "headway/internal/openai"

// Models are the models that can be asked for: those that some head serves now, and
// the aliases of such, in no order.
func (p *Proxy) Models() (list []openai.ModelEntry) {
	pools, policy := p.o.Fleet.Snapshot().Pools, p.o.Router.Policy()
	serves := func(model string) bool {
		pool := pools[model]
		return pool != nil && pool.All.Routable() > 0
	}
	for model := range pools {
		if serves(model) {
			list = append(list, p.model(model))
		}
	}
	for alias, model := range policy.Document.Aliases {
		if serves(model) {
			list = append(list, p.model(alias))
		}
	}
	return list
}

// model is one model as it is listed. Created is the start of the service.
func (p *Proxy) model(id string) openai.ModelEntry {
	return openai.ModelEntry{ID: id, Created: p.started, OwnedBy: "headway"}
}
