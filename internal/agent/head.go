package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"

	"headway/internal/fleet"
)

// KeyFile returns what reads an engine's own API key from a file: for each
// request, so that the key can be replaced.
func KeyFile(path string) func() (string, error) {
	return func() (string, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the engine's API key: %w", err)
		}
		return CheckKey(strings.TrimSpace(string(text)))
	}
}

// CheckKey returns the key, or why no engine can be sent it. The error does not
// have it.
func CheckKey(key string) (string, error) {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) { // no header can have it
		return "", errors.New("the engine's API key is empty, or has white space or other characters that no key has")
	}
	return key, nil
}

// SourceLabel is the label of a head that says what registered it.
const SourceLabel = "headway-source"

// What registers heads, as the values of SourceLabel.
const (
	FromAgent  = "agent"
	FromStatic = "static" // the list of heads
	FromDNS    = "dns"    // the names of discovery
)

// Sourced are the labels of a head with one more, which says what registered it. It
// yields to one of that name, and to the bound of labels.
func Sourced(labels map[string]string, source string) map[string]string {
	if _, given := labels[SourceLabel]; given || len(labels) >= fleet.MaxLabels {
		return labels
	}
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[SourceLabel] = source
	return labels
}

// IDOf is the id of a head whose configuration names none: host:port of its
// endpoint, in its canonical form.
func IDOf(endpoint string) string {
	_, host, _ := strings.Cut(endpoint, "://")
	return strings.NewReplacer("[", "", "]", "").Replace(host)
}
