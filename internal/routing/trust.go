package routing

import (
	"log/slog"
	"maps"

	"headway/internal/strategy"
)

// distrusted are the model types whose heads have much less of prompts cached than
// was promised, for the goroutine of Run, so that each is logged once.
type distrusted map[string]bool

func (t distrusted) look(paces map[string]*strategy.Pace, log *slog.Logger) {
	for model, p := range paces {
		switch trusted := p.Trusted(); {
		case !trusted && !t[model]:
			t[model] = true
			log.Warn("heads report far fewer cached tokens than their prompts should have: they are chosen by load alone until that changes; is their prefix cache on?",
				slog.String("model_type", model), slog.Float64("delivered", p.Delivered()))
		case trusted && t[model]:
			delete(t, model)
			log.Info("heads report the cached tokens again that their prompts should have", slog.String("model_type", model))
		}
	}
	maps.DeleteFunc(t, func(model string, _ bool) bool { return paces[model] == nil })
}
