package config

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// marker is in everything that must not be repeated.
const marker = "hunter2"

// inUser are values with a secret where URLs have one, or something like it.
// None but those of schemes that a setting wants, without a password, is right.
var inUser = []string{
	"redis://user:" + marker + "@localhost:6379/0", "redis://:" + marker + "@localhost", "rediss://" + marker + "@localhost:6379",
	"nats://" + marker + "@localhost:4222", "nats://a:" + marker + "@b:1,nats://c:2", "tls://a:1, nats://x:" + marker + "@c:2",
	"https://user:" + marker + "@example.com/path", "https://" + marker + "@example.com", "http://u:" + marker + "@[::1", "htp://u:" + marker + "@h/",
	"redis://u:p/" + marker + "@h", "redis://u:p@" + marker + "@h", "u:" + marker + "@h:6379", "//u:" + marker + "@h", "redis://u:" + marker + "@h:port",
	"https://u:" + marker + "\x01@h", " redis://u:" + marker + "@h ",
}

// anywhere are values with a secret elsewhere, which only settings of URLs may
// have.
var anywhere = []string{
	marker, "redis://h/?password=" + marker, "https://example.com/?token=" + marker, "https://example.com/#" + marker, "htp://example.com/" + marker,
	"://" + marker, "nats:" + marker, "https:///" + marker, "'" + marker, "[" + marker, "redis://h:" + marker, "{a: " + marker + "}",
}

// paths are where receivers of webhooks have their secret.
var paths = []string{"https://hooks.example.com/services/" + marker, "http://example.com/a/" + marker + "/b?x=" + marker}

// attempt loads a value from one source and returns all that is said of it, and
// the settings that are recorded.
func attempt(t *testing.T, s Setting, value, from string) (said string, right bool) {
	t.Helper()
	var (
		flags   *pflag.FlagSet
		environ []string
		file    string
	)
	section, name, nested := strings.Cut(s.Key, ".")
	line := func(value string) string {
		if nested {
			return section + ":\n  " + name + value + "\n"
		}
		return section + value + "\n"
	}
	quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
	switch from {
	case "flag":
		flags = pflag.NewFlagSet("headway", pflag.ContinueOnError)
		AddFlags(flags)
		if err := flags.Parse([]string{"--" + s.Flag + "=" + value}); err != nil {
			return err.Error(), false
		}
	case "environment":
		environ = []string{s.Env + "=" + value}
	case "file":
		file = line(": " + quoted)
	case "file, plain":
		file = line(": " + value)
	case "file, array":
		file = line(": [" + quoted + "]")
	case "file, object":
		file = line(": {a: " + quoted + "}")
	case "file, anchor":
		file = line(": *" + marker)
	case "file, tag":
		file = line(": !" + marker + " x")
	case "file, no colon":
		file = line(" " + value)
	case "file, as a key":
		file = line(" " + value + ": 1")
	}
	if s.Key == "oidc.issuer" {
		environ = append(environ, "HEADWAY_OIDC_AUDIENCE=headway")
	}
	if file != "" {
		environ = append(environ, ConfigEnv+"=f")
	}
	c, err := Load(flags, environ, func(string) ([]byte, error) {
		if file == "" {
			return nil, fs.ErrNotExist
		}
		return []byte(file), nil
	})
	if err != nil {
		return err.Error(), false
	}
	var b strings.Builder
	if err := c.Print(&b, true); err != nil {
		t.Fatal(err)
	}
	return b.String() + fmt.Sprint(c.Set()), true
}

// For a secret in any setting, in any place of it and from
// any source, no message, no print and no record repeats it.
func TestNoSettingRepeatsASecret(t *testing.T) {
	right := map[string]bool{}
	for _, s := range Settings() {
		values := slices.Clone(inUser)
		if s.Secret {
			values = append(values, anywhere...)
		}
		if s.Key == "monitor.alert_webhooks" {
			values = append(values, paths...)
		}
		for _, value := range values {
			for _, from := range []string{"flag", "environment", "file", "file, plain", "file, array", "file, object", "file, anchor", "file, tag", "file, no colon", "file, as a key"} {
				said, ok := attempt(t, s, value, from)
				free := strings.Contains(s.Allowed, "one line of text") || strings.Contains(s.Allowed, "a path") || strings.Contains(s.Allowed, "NAME=ROLE")
				if strings.Contains(said, marker) && (!ok || !free) {
					t.Errorf("%s=%s from %s: %s", s.Key, value, from, said)
				}
				right[s.Key] = right[s.Key] || ok
			}
		}
	}
	// The right values were tried as well as the wrong ones.
	for _, s := range Settings() {
		if s.Secret && !right[s.Key] && s.Key != "external_url" { // which takes no user information
			t.Errorf("%s: no value of these was right", s.Key)
		}
	}
}

// Each setting whose value is a URL is one that may hold a secret.
func TestSettingsThatMayHoldASecret(t *testing.T) {
	var got []string
	for _, s := range Settings() {
		if s.Secret {
			got = append(got, s.Key)
		}
		if strings.Contains(s.Allowed, "://") != s.Secret && strings.Contains(s.Allowed, "://") || strings.Contains(s.Allowed, "URL") && !s.Secret {
			t.Errorf("%s wants %s, and is not known as one that may hold a secret", s.Key, s.Allowed)
		}
	}
	for _, key := range []string{"redis.url", "queue.url", "oidc.issuer", "tls.acme_directory", "monitor.alertmanagers", "monitor.alert_webhooks"} {
		if !slices.Contains(got, key) {
			t.Errorf("%s is not known as one that may hold a secret", key)
		}
	}
}

// What is no secret of a URL is shown.
func TestWhatIsShownOfAURL(t *testing.T) {
	for _, c := range []struct{ text, want, hook string }{
		{"redis://redis.internal:6379/0", "redis://redis.internal:6379/0", "redis://redis.internal:6379/********"},
		{"https://example.com", "https://example.com", "https://example.com"},
		{"https://example.com/", "https://example.com/", "https://example.com/"},
		{"https://t@example.com/a?b=c#d", "https://********@example.com/a?********#********", "https://********@example.com/********?********#********"},
		{"nonsense", "********", "********"},
	} {
		if got := withoutUser(c.text); got != c.want {
			t.Errorf("%s is shown as %s", c.text, got)
		}
		if got := withoutPath(c.text); got != c.hook {
			t.Errorf("%s of a webhook is shown as %s", c.text, got)
		}
	}
	if got := withoutUser("nats://a@b:1, tls://c@d:2,nats://e:3"); got != "nats://********@b:1,tls://********@d:2,nats://e:3" {
		t.Errorf("several servers are shown as %s", got)
	}
	if isURL("redis://u:p@h", "redis") || isURL("redis://:@h", "redis") || !isURL("redis://u@h", "redis") {
		t.Error("a URL with a password is taken, or one without is not")
	}
	for text, want := range map[string]string{
		"unknown flag: --x":                "unknown flag: --x",
		"mail me@example.com":              "mail me@example.com",
		"'r' in -redis-url=redis://:p@h:1": "'r' in -redis-url=redis://********@h:1",
		"get https://u:p@h/x: refused":     "get https://********@h/x: refused",
		"is u:p@h no host":                 "is ********@h no host",
		"a: b, c@d":                        "a: b, c@d",
	} {
		if got := Scrub(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}
