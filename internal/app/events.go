package app

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"headway/internal/event"
	"headway/internal/registry"
)

// logEvents logs the events of heads and the policy. If it is too slow it loses
// events, and logs how many.
func (a *App) logEvents(ctx context.Context) error {
	for {
		e, lost, err := a.logged.Next(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if lost > 0 {
			a.log.Warn("events not logged", "lost", lost)
		}
		a.log.LogAttrs(ctx, level(&e), e.Type, attributes(&e)...)
	}
}

func level(e *event.Event) slog.Level {
	if alert, ok := e.Data.(AlertState); ok && alert.Severity == "none" {
		return slog.LevelDebug // it is for machines: that it fires says that all is well
	}
	if pool, ok := e.Data.(registry.PoolState); ok && pool.Missing == 0 {
		return slog.LevelInfo // its heads left or drain on purpose
	}
	switch e.Type {
	case event.HeadExpired, event.HeadHeld, event.HeadEjected, event.HeadContested, event.PoolExhausted, event.AlertFiring:
		return slog.LevelWarn
	case event.HeadChanged, event.HeadRoutable, event.HeadUnroutable, event.GuardTripped, event.GuardReleased:
		return slog.LevelDebug // the registry logs the guard itself
	}
	return slog.LevelInfo
}

func attributes(e *event.Event) []slog.Attr {
	var attrs []slog.Attr
	if e.Head != "" {
		attrs = append(attrs, slog.String("head", e.Head), slog.String("region", e.Region))
	}
	if e.Data != nil {
		attrs = append(attrs, slog.Attr{Key: "data", Value: fields(e.Data)})
	}
	return attrs
}

// fields are those of the data of an event, as in its JSON.
func fields(data any) slog.Value {
	v := reflect.ValueOf(data)
	if _, logs := data.(slog.LogValuer); logs || v.Kind() != reflect.Struct {
		return slog.AnyValue(data)
	}
	var attrs []slog.Attr
	for f, value := range v.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options != "" && value.IsZero() { // options are omitempty
			continue
		}
		switch v := value.Interface().(type) {
		case *time.Time:
			attrs = append(attrs, slog.Time(name, *v))
		default:
			attrs = append(attrs, slog.Any(name, v))
		}
	}
	return slog.GroupValue(attrs...)
}
