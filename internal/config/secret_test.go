package config

import (
	"strings"
	"testing"
)

func TestASecretIsNeverShown(t *testing.T) {
	const secret = "hunter2"
	var value string
	table := &table{}
	table.text("token", &value, "", form{"8 or more characters", func(s string) bool { return s == "" || len(s) >= 8 }}, "a secret").Secret = true
	l := &loader{table: table, sources: map[string]source{}}
	l.environment(map[string]string{"HEADWAY_TOKEN": secret})
	if len(l.faults) != 1 || strings.Contains(l.faults[0].String(), secret) || !strings.Contains(l.faults[0].Reason, "8 or more") {
		t.Errorf("faults %v", l.faults)
	}
	l.environment(map[string]string{"HEADWAY_TOKEN": secret + secret})
	var b strings.Builder
	if err := table.print(&b, true, func(key string) source { return l.sources[key] }); err != nil {
		t.Fatal(err)
	}
	if value != secret+secret || strings.Contains(b.String(), secret) || !strings.Contains(b.String(), "token: '********'  # environment HEADWAY_TOKEN") {
		t.Errorf("printed %s", b.String())
	}
}
