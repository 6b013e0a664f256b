package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"headway/internal/event"
	"headway/internal/registry"
)

// What is logged of an event are the fields of its JSON, times in milliseconds
// as elsewhere in the log.
func TestAnEventIsLoggedAsInItsJSON(t *testing.T) {
	until := time.Date(2026, 11, 29, 14, 47, 20, 462_881_014, time.UTC)
	var log bytes.Buffer
	e := event.Event{Type: event.HeadEjected, Data: struct {
		Heads  int        `json:"heads"`
		Detail string     `json:"detail,omitempty"`
		Until  *time.Time `json:"until,omitempty"`
		Since  *time.Time `json:"since,omitempty"`
	}{Until: &until}}
	slog.New(slog.NewTextHandler(&log, nil)).LogAttrs(t.Context(), slog.LevelInfo, e.Type, attributes(&e)...)
	if want := "data.heads=0 data.until=2026-11-29T14:47:20.462Z\n"; !strings.HasSuffix(log.String(), want) {
		t.Errorf("logged %q, want it to end with %q", log.String(), want)
	}
}

// A pool without a head is worth a warning unless its heads left on purpose.
func TestAPoolIsLoggedByWhatItMisses(t *testing.T) {
	for missing, want := range map[int]slog.Level{0: slog.LevelInfo, 1: slog.LevelWarn} {
		e := event.Event{Type: event.PoolExhausted, Data: registry.PoolState{Missing: missing}}
		if got := level(&e); got != want {
			t.Errorf("a pool that misses %d heads is logged as %s; want %s", missing, got, want)
		}
	}
}

// An alert is worth a warning in the log, unless it is the one that always fires.
func TestAnAlertIsLoggedByItsSeverity(t *testing.T) {
	for severity, want := range map[string]slog.Level{"critical": slog.LevelWarn, "warning": slog.LevelWarn, "none": slog.LevelDebug} {
		e := event.Event{Type: event.AlertFiring, Data: AlertState{Severity: severity}}
		if got := level(&e); got != want {
			t.Errorf("an alert of severity %s is logged as %s; want %s", severity, got, want)
		}
	}
}
