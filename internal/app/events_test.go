package app

import (
	"log/slog"
	"testing"

	"headway/internal/event"
)

// An alert is worth a warning in the log, unless it is the one that always fires.
func TestAnAlertIsLoggedByItsSeverity(t *testing.T) {
	for severity, want := range map[string]slog.Level{"critical": slog.LevelWarn, "warning": slog.LevelWarn, "none": slog.LevelDebug} {
		e := event.Event{Type: event.AlertFiring, Data: AlertState{Severity: severity}}
		if got := level(&e); got != want {
			t.Errorf("an alert of severity %s is logged as %s; want %s", severity, got, want)
		}
	}
}
