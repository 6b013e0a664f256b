package config_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"headway/internal/config"
)

// failer is what *testing.T and *rapid.T share.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// load loads as a process with these arguments and variables would that finds
// this text in each file.
func load(t failer, file string, environ []string, args ...string) (config.Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("headway", pflag.ContinueOnError)
	config.AddFlags(fs)
	if file != "" {
		args = append(args, "--config", "headway.yaml")
	}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return config.Load(fs, environ, func(name string) ([]byte, error) {
		if name != "headway.yaml" {
			t.Errorf("read %q", name)
		}
		return []byte(file), nil
	})
}

func mustLoad(t failer, file string, environ []string, args ...string) config.Config {
	t.Helper()
	c, err := load(t, file, environ, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func printed(t failer, c config.Config, provenance bool) string {
	t.Helper()
	var b strings.Builder
	if err := c.Print(&b, provenance); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDefaults(t *testing.T) {
	want := config.Config{
		Listen: "127.0.0.1:8080", DataDir: "./data",
		Log: config.Log{Level: "info", Format: "text"},
		HTTP: config.HTTP{Limits: config.Limits{
			HeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
			IdleTimeout: 120 * time.Second, MaxHeaderBytes: 16 << 10, MaxBodyBytes: 1 << 20, MaxConnections: 10000,
			LameDuck: 3 * time.Second, ShutdownTimeout: 30 * time.Second,
		}},
		Lease: config.Lease{
			BaseInterval: 2 * time.Second, MaxReportsPerSecond: 2000, RemoveAfter: time.Hour,
			SlowStart: 30 * time.Second, GuardShare: 0.5, GuardMinHeads: 4, GuardHold: time.Minute,
		},
		Eject: config.Eject{
			Enabled: true, ConsecutiveErrors: 5, ErrorShare: 0.5, MinRequests: 20, Window: 30 * time.Second,
			BaseTime: 10 * time.Second, MaxTime: 5 * time.Minute, MaxShare: 0.5,
		},
		Heads:     config.Heads{Max: 200_000, MaxModelTypes: 1000},
		Decisions: config.Decisions{ReservationTTL: 2 * time.Minute, MaxTTL: time.Hour, ExplainShare: 0.01, Recent: 65536},
		Objective: config.Objective{Least: 2 * time.Second, Factor: 3},
		Logged:    config.Logged{Rate: 200, MaxMemory: 32 << 20, MaxBytes: 256 << 20},
		Proxy: config.Proxy{
			ProxyLimits: config.ProxyLimits{
				MaxBody: 64 << 20, MaxBodies: 1 << 30, BodyWait: 10 * time.Second, BodyTime: 30 * time.Second,
				Comment: 14 * time.Second, ReaderStalls: time.Minute, MaxAttempts: 3, RetryShare: 0.2, RetryTime: 30 * time.Minute,
			},
			HeadLimits: config.HeadLimits{
				Connect: 2 * time.Second, Write: 30 * time.Second, FirstByte: 10 * time.Minute, Idle: 5 * time.Minute, Total: time.Hour,
			},
			IdleConnection: 4 * time.Second, MaxConnections: 16_384, MaxConnectionsPerHead: 4096, MaxIdlePerHead: 256,
			HealthChecks: true, HealthCheckInterval: time.Second, AskUsage: "auto",
		},
		Admission: config.Admission{MaxWaiting: 1000, MaxWait: 30 * time.Second},
		State:     config.State{MinFreeBytes: 64 << 20},
		Access: config.Access{
			OIDC:               config.OIDC{RolesClaim: "roles", HeadsClaim: "headway_heads", RegionsClaim: "headway_regions"},
			FailuresPerAddress: 10,
		},
		Audit:    config.Audit{Strict: true, MaxBytes: 100 << 20},
		Redis:    config.Redis{Mode: "embedded", Listen: "127.0.0.1:6380", Channel: "audit:routing:logs"},
		Monitor:  config.Monitor{Enabled: true, Interval: 15 * time.Second, Retention: 24 * time.Hour, MaxSeries: 20_000, Timeout: 10 * time.Second},
		Realtime: config.Realtime{MaxStreams: 5000, MaxMessageBytes: 64 << 10, MaxRate: 100_000, Heartbeat: 10 * time.Second},
		Queue:    config.Queue{Mode: "embedded", MaxBytes: 256 << 20},
		Tracing:  config.Tracing{SampleShare: 1},
	}
	if got := mustLoad(t, "", nil); printed(t, got, true) != printed(t, want, true) {
		t.Errorf("nothing set gives\n%s", printed(t, got, true))
	}
	if _, err := config.Load(nil, nil, os.ReadFile); err != nil {
		t.Errorf("without flags: %v", err)
	}
}

// elements are what lists may have that want more than a host's name.
var elements = map[string][]string{
	"http.trusted_proxies":   {"10.0.0.0/8", "192.0.2.7"},
	"oidc.algorithms":        {"RS256", "EdDSA"},
	"oidc.roles":             {"sre=admin", "a=b=viewer"},
	"monitor.alertmanagers":  {"http://localhost:9093", "https://alerts.example/am"},
	"monitor.alert_webhooks": {"https://pager.example/headway"},
	"access.certificates":    {"spiffe://fleet.example/*=head:gpu-*|cpu-*:eu|us", "ops=operator"},
	"proxy.head_keys":        {"https://gpu-1:8000=/run/secrets/gpu-1", "http://*.fleet.example:8000=env:ENGINE_KEY"},
	"proxy.drop_headers":     {"X-Corp-*", "X-Title"},
	"proxy.pass_headers":     {"X-Session-Id", "X-User-*"},
	"proxy.client_paths":     {"sdxl=/sdapi/v1/txt2img", "vision/*=/predict/*"},
}

// other returns a sound value that is not the default, as a flag takes it.
func other(t *rapid.T, s config.Setting) string {
	switch s.Kind {
	case config.KindDuration:
		if s.Key == "monitor.retention" {
			return fmt.Sprintf("%dm", rapid.IntRange(10, 600).Draw(t, s.Key))
		}
		return fmt.Sprintf("%dms", rapid.IntRange(6000, 9000).Draw(t, s.Key))
	case config.KindBytes:
		if s.Key == "proxy.max_bodies_bytes" {
			return fmt.Sprint(rapid.IntRange(1<<26, 1<<27).Draw(t, s.Key))
		}
		return fmt.Sprint(rapid.IntRange(1<<17, 1<<18).Draw(t, s.Key))
	case config.KindNumber:
		if s.Key == "proxy.max_attempts" {
			return fmt.Sprint(rapid.IntRange(1, 10).Draw(t, s.Key))
		}
		return fmt.Sprint(rapid.IntRange(100, 500).Draw(t, s.Key))
	case config.KindDecimal:
		return fmt.Sprint(rapid.Float64Range(1, 100).Draw(t, s.Key))
	case config.KindFraction:
		return fmt.Sprint(rapid.Float64Range(0.01, 1).Draw(t, s.Key))
	case config.KindBool:
		return rapid.SampledFrom([]string{"true", "false"}).Draw(t, s.Key)
	case config.KindChoice:
		return rapid.SampledFrom(strings.Split(s.Allowed, ", ")).Draw(t, s.Key)
	case config.KindList:
		if of, special := elements[s.Key]; special {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom(of), 0, 3).Draw(t, s.Key), ",")
		}
		return strings.Join(rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,5}\.[a-z0-9-]{1,4}`), 0, 3).Draw(t, s.Key), ",")
	case config.KindText:
		switch {
		case strings.HasSuffix(s.Key, "listen"):
			return fmt.Sprintf("localhost:%d", rapid.IntRange(0, 65535).Draw(t, s.Key))
		case s.Key == "queue.url":
			return "nats://headway@a.example:4222,tls://b.example:4222"
		case s.Key == "redis.url":
			return "rediss://headway@redis.example:6379/1"
		case strings.Contains(s.Allowed, "URL"):
			return "https://" + rapid.StringMatching(`[a-z]{1,9}`).Draw(t, s.Key) + ".example/x"
		}
		return "/" + rapid.StringMatching(`[a-z /:#'"\[{ü-]{1,10}`).Draw(t, s.Key)
	}
	t.Fatalf("no value for kind %s", s.Kind)
	return ""
}

// sound adds what other settings need to agree with any value of other.
var (
	sound = []string{
		"HEADWAY_LEASE_REMOVE_AFTER=1h", "HEADWAY_HTTP_READ_TIMEOUT=1m", "HEADWAY_HTTP_BEHIND_PROXY=true",
		"HEADWAY_TLS_CERT_FILE=/a", "HEADWAY_TLS_KEY_FILE=/b", "HEADWAY_TLS_CLIENT_CA_FILE=/c",
		"HEADWAY_OIDC_AUDIENCE=headway", "HEADWAY_REDIS_URL=redis://redis.example:6379",
		"HEADWAY_QUEUE_URL=nats://nats.example:4222", "HEADWAY_QUEUE_CERT_FILE=/d", "HEADWAY_QUEUE_KEY_FILE=/e",
	}
	soundFlags = []string{
		"--lease-remove-after=1h", "--http-read-timeout=1m", "--http-behind-proxy",
		"--tls-cert-file=/a", "--tls-key-file=/b", "--tls-client-ca-file=/c",
		"--oidc-audience=headway", "--redis-url=redis://redis.example:6379",
		"--queue-url=nats://nats.example:4222", "--queue-cert-file=/d", "--queue-key-file=/e",
	}
)

// free reports whether a setting may have any value of its own, the others
// being sound.
func free(s config.Setting) bool {
	return !strings.Contains(strings.Join(sound, " "), s.Env+"=") && s.Key != "tls.acme_hosts"
}

func TestFlagsWinOverVariablesOverTheFileOverDefaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var file strings.Builder
		var environ, args, want []string
		sources := map[string]string{}
		section := ""
		for _, s := range config.Settings() {
			value, from := s.Default, "default"
			give := func(where string) (string, bool) {
				if !free(s) || !rapid.Bool().Draw(rt, where+" "+s.Key) {
					return "", false
				}
				return other(rt, s), true
			}
			if v, given := give("file"); given {
				value, from = v, "headway.yaml:"
				before, line := written(s, v)
				if before != section {
					file.WriteString(before + ":\n")
					section = before
				}
				file.WriteString(line)
			}
			if v, given := give("environment"); given && v != "" {
				value, from = v, "environment "+s.Env
				environ = append(environ, s.Env+"="+v)
			}
			if v, given := give("flag"); given {
				value, from = v, "flag --"+s.Flag
				args = append(args, "--"+s.Flag+"="+v)
			}
			sources[s.Key] = from
			want = append(want, "--"+s.Flag+"="+value)
		}
		environ, want = append(environ, sound...), append(want, soundFlags...)
		got := mustLoad(rt, file.String(), environ, args...)
		if got, want := printed(rt, got, false), printed(rt, mustLoad(rt, "", nil, want...), false); got != want {
			rt.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		text := printed(rt, got, true)
		for key, from := range sources {
			if line := lineOf(text, key); !strings.Contains(line, "  # "+from) && !strings.Contains(strings.Join(sound, " "), envOf(key)+"=") {
				rt.Fatalf("%q does not say that it is from %s", line, from)
			}
		}
	})
}

func envOf(key string) string {
	return "HEADWAY_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// written is how a setting stands in a file, and in which section.
func written(s config.Setting, value string) (section, line string) {
	switch s.Kind {
	case config.KindText, config.KindChoice:
		value = fmt.Sprintf("%q", value)
	case config.KindList:
		value = "[" + value + "]"
	}
	section, name, nested := strings.Cut(s.Key, ".")
	if !nested {
		return "", s.Key + ": " + value + "\n"
	}
	return section, "  " + name + ": " + value + "\n"
}

// lineOf is the line of a printed configuration with the setting.
func lineOf(text, key string) string {
	section, name, nested := strings.Cut(key, ".")
	if !nested {
		section, name = "", key
	}
	at := ""
	for line := range strings.Lines(text) {
		if line[0] != ' ' {
			at = ""
			if before, ok := strings.CutSuffix(line, ":\n"); ok {
				at = before
				continue
			}
		}
		if at == section && strings.HasPrefix(strings.TrimSpace(line), name+":") {
			return line
		}
	}
	return ""
}

func TestWhatIsPrintedLoadsAsTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		environ := append([]string{}, sound...)
		for _, s := range config.Settings() {
			if free(s) && rapid.Bool().Draw(rt, "set "+s.Key) {
				environ = append(environ, s.Env+"="+other(rt, s))
			}
		}
		text := printed(rt, mustLoad(rt, "", environ), rapid.Bool().Draw(rt, "provenance"))
		if again := printed(rt, mustLoad(rt, text, nil), false); again != printed(rt, mustLoad(rt, "", environ), false) {
			rt.Fatalf("printed\n%s\nloaded as\n%s", text, again)
		}
	})
}

func TestASettingHasOneNameInThreeSpellings(t *testing.T) {
	seen := map[string]bool{"HEADWAY_CONFIG": true, "config": true}
	for _, s := range config.Settings() {
		spelled := strings.NewReplacer("HEADWAY_", "", "_", "-").Replace(s.Env)
		if strings.ToLower(spelled) != s.Flag || strings.NewReplacer(".", "-", "_", "-").Replace(s.Key) != s.Flag {
			t.Errorf("%s, --%s, %s", s.Key, s.Flag, s.Env)
		}
		if seen[s.Flag] || seen[s.Env] {
			t.Errorf("%s has the flag or variable of another", s.Key)
		}
		seen[s.Flag], seen[s.Env] = true, true
		if s.Description == "" || s.Allowed == "" || s.Kind == "" {
			t.Errorf("%s is not described: %+v", s.Key, s)
		}
	}
}

func TestEveryFaultNamesItsKeyAndSource(t *testing.T) {
	const file = `
listen: nonsense
lsten: x
log: {level: loud, format: 5}
http:
  max_body_bytes: 1MB
  lame_duck: 5
  lame_duck: 5s
  allowed_hosts: [a, 1]
  max_connections: "10"
  idle_timeout: {}
lease: [a]
heads: {max: 0, allow_link_local: yes, base_interval: 2s}
decisions.recent: 16
state: {min_free_bytes: -1}
policy: &a x
`
	_, err := load(t, file, []string{
		"PATH=/bin", "HEADWAY_LEASE_GUARD_SHARE=NaN", "HEADWAY_LEASE_GUARD_SHAER=1", "HEADWAY_LISTEN=", "HEADWAY_PORT=9000",
	}, "--data-dir=", "--heads-max=many")
	want := []string{
		`listen (headway.yaml:2): want host:port, such as 127.0.0.1:8080, not "nonsense"`,
		`lsten (headway.yaml:3): unknown key; did you mean listen?`,
		`log.level (headway.yaml:4): want one of debug, info, warn, error, not "loud"`,
		`log.format (headway.yaml:4): want a string, not "5"; put it in quotes`,
		`http.max_body_bytes (headway.yaml:6): want a size such as 512, 16KiB or 64MiB, not "1MB"`,
		`http.lame_duck (headway.yaml:7): want a time with its unit, such as 250ms or 1h30m, not "5"`,
		`http.lame_duck (headway.yaml:8): is given twice`,
		`http.allowed_hosts (headway.yaml:9): want an array of strings without commas, not "1" in it`,
		`http.max_connections (headway.yaml:10): want a number (1 to 1000000), not the string "10"`,
		`http.idle_timeout (headway.yaml:11): want a duration (1ms to 24h), not an object`,
		`lease (headway.yaml:12): want an object, not an array`,
		`heads.max (headway.yaml:13): want a whole number from 1 to 1000000, not "0"`,
		`heads.allow_link_local (headway.yaml:13): want a bool (true, false), not the string "yes"`,
		`heads.base_interval (headway.yaml:13): unknown key; did you mean lease.base_interval?`,
		`decisions.recent (headway.yaml:14): write it nested: decisions: {recent: …}`,
		`state.min_free_bytes (headway.yaml:15): want a size such as 512, 16KiB or 64MiB, not "-1"`,
		`policy (headway.yaml:16): anchors (&) and aliases (*) are not allowed; write the value out`,
		`lease.guard_share (environment HEADWAY_LEASE_GUARD_SHARE): want a number from 0.01 to 1, not "NaN"`,
		`HEADWAY_LEASE_GUARD_SHAER (environment): unknown variable; did you mean HEADWAY_LEASE_GUARD_SHARE?`,
		`HEADWAY_PORT (environment): unknown variable`,
		`data_dir (flag --data-dir): want a path of at most 4096 bytes, not ""`,
		`heads.max (flag --heads-max): want a whole number from 1 to 1000000, not "many"`,
	}
	invalid, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("error %v", err)
	}
	for i, f := range invalid.Faults {
		if i >= len(want) || f.String() != want[i] {
			t.Errorf("fault %d is %q", i, f)
		}
	}
	if len(invalid.Faults) != len(want) {
		t.Errorf("%d faults; want %d", len(invalid.Faults), len(want))
	}
	if !strings.HasPrefix(err.Error(), "configuration: 22 faults\n  listen (headway.yaml:2): ") {
		t.Errorf("written as %s", err)
	}
}

func TestFilesThatAreNoneAreRefused(t *testing.T) {
	for file, want := range map[string]string{
		"a: [":                 "headway.yaml: not YAML: line 1",
		"- a":                  "headway.yaml:1: want an object, not an array",
		"text":                 `headway.yaml:1: want an object, not a string`,
		"listen: a:1\n---\n{}": "headway.yaml:2: there is a second document",
		"? [a]\n: b":           "headway.yaml:1: a name must be plain text",
		"&a listen: b":         "headway.yaml:1",
		"listen: !!str a:1":    "tags (!) are not allowed",
		"a: &a {}\nlog: *a":    "anchors",
		strings.Repeat("#", config.MaxFileBytes+1):          "at most 1048576 are read",
		strings.Repeat("a", 256) + ": 1":                    "unknown key",
		strings.Repeat("a", 1000) + ": 1":                   "longer than 256 bytes",
		"lease: {base_interval: 20s, remove_after: 60s}":    "lease.remove_after (headway.yaml:1): must be over 3 times lease.base_interval, 1m",
		"proxy: {max_bodies_bytes: 32MiB}":                  "proxy.max_bodies_bytes (headway.yaml:1): must not be below proxy.max_body_bytes, 64MiB",
		"lease: {base_interval: 1h}":                        "lease.remove_after (default): must be over 3 times lease.base_interval, 3h",
		"http: {read_timeout: 1s}":                          "http.header_timeout (default): must not be over http.read_timeout, 1s",
		"http: {trusted_proxies: [10.0.0.0/8]}":             "http.trusted_proxies (headway.yaml:1): is only looked at with http.behind_proxy",
		"tls: {cert_file: a.pem}":                           "tls.key_file (default): goes together with tls.cert_file",
		"tls: {cert_file: a, key_file: b, acme_hosts: [c]}": "tls.acme_hosts (headway.yaml:1): must be empty where tls.cert_file is set",
		"tls: {client_ca_file: a.pem}":                      "needs TLS",
		"access: {certificates: [a=admin]}":                 "needs tls.client_ca_file",
		"oidc: {issuer: 'https://id.example'}":              "oidc.audience (default): is required with oidc.issuer",
		"redis: {mode: external}":                           "redis.url (default): is required",
		"redis: {url: 'redis://:secret@h:1'}":               "without a password",
		"access: {certificates: [a]}":                       "want NAME=ROLE",
		"http: {trusted_proxies: [x]}":                      "want addresses or networks",
	} {
		_, err := load(t, file, nil)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 600 {
			t.Errorf("%.60q: %v; want %s", file, err, want)
		}
	}
	_, err := config.Load(nil, []string{"HEADWAY_CONFIG=gone.yaml"}, func(string) ([]byte, error) { return nil, io.ErrUnexpectedEOF })
	if err == nil || !strings.Contains(err.Error(), "gone.yaml: cannot be read: unexpected EOF") {
		t.Errorf("a file that cannot be read: %v", err)
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "k%d: 1\n", i)
	}
	if _, err := load(t, many.String(), nil); err == nil || strings.Count(err.Error(), "\n") != 101 ||
		!strings.HasSuffix(err.Error(), "and 4900 more") {
		t.Errorf("5000 faults are written in %d lines", strings.Count(err.Error(), "\n"))
	}
}

func TestWhatIsLeftEmptyIsLeftOut(t *testing.T) {
	want := printed(t, mustLoad(t, "", nil), false)
	for _, file := range []string{"# nothing", "{}", "lease:\nhttp: {}\nlisten:\nheads: {max: ~}\n", "null"} {
		if got := printed(t, mustLoad(t, file, nil), false); got != want {
			t.Errorf("%q gives\n%s", file, got)
		}
	}
}

func TestVariablesThatOthersSetAreLeftAlone(t *testing.T) {
	mustLoad(t, "", []string{
		"HEADWAY_SERVICE_HOST=10.0.0.1", "HEADWAY_SERVICE_PORT=80", "HEADWAY_SERVICE_PORT_HTTP=80", "HEADWAY_PORT=tcp://10.0.0.1:80",
		"HEADWAY_PORT_8080_TCP=tcp://10.0.0.1:8080", "HEADWAY_PORT_8080_TCP_ADDR=10.0.0.1", "HEADWAY_API_SERVICE_HOST=10.0.0.2",
		"HEADWAY_API_PORT=udp://10.0.0.2:53", "HEADWAY_TEST_PROCESS=1", "HEADWAYS=1", "headway_listen=x", "NONSENSE",
	})
}

func TestAFlagOfATruthNeedsNoValue(t *testing.T) {
	if !mustLoad(t, "", nil, "--heads-allow-link-local").Heads.AllowLinkLocal {
		t.Error("it is false")
	}
}

func TestListsAreWrittenWithCommasOrAgain(t *testing.T) {
	want := []string{"a.example", "b.example", "::1"}
	for _, c := range []config.Config{
		mustLoad(t, "", nil, "--http-allowed-hosts=a.example,b.example", "--http-allowed-hosts=::1"),
		mustLoad(t, "", []string{"HEADWAY_HTTP_ALLOWED_HOSTS=a.example, b.example ,::1"}),
		mustLoad(t, `http: {allowed_hosts: [a.example, "b.example", "::1"]}`, nil),
	} {
		if !reflect.DeepEqual(c.HTTP.AllowedHosts, want) {
			t.Errorf("%q", c.HTTP.AllowedHosts)
		}
	}
	for _, wrong := range []string{",", "a,,b", "http://a", "a:80", "a b", strings.Repeat("a,", 100) + "a"} {
		if _, err := load(t, "", nil, "--http-allowed-hosts="+wrong); err == nil {
			t.Errorf("took %q", wrong)
		}
	}
}

func TestFormsOfText(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:8080", "localhost:65535", ":80", "0.0.0.0:80"} {
		mustLoad(t, "", nil, "--listen="+listen)
	}
	for _, listen := range []string{"", "8080", "localhost", "localhost:", "localhost:http", "a:65536", "a:-1", "a:+1", "a:010", "a\n:80", "::1:80"} {
		if _, err := load(t, "", nil, "--listen="+listen); err == nil {
			t.Errorf("took %q to listen on", listen)
		}
	}
	for _, dir := range []string{"a\x00b", "a\nb", "\xff", strings.Repeat("a", 4097)} {
		if _, err := load(t, "", nil, "--data-dir="+dir); err == nil {
			t.Errorf("took %q for a path", dir)
		}
	}
}

func TestHelpShowsDefaultsAndBounds(t *testing.T) {
	fs := pflag.NewFlagSet("headway", pflag.ContinueOnError)
	config.AddFlags(fs)
	usage := fs.FlagUsages()
	for _, want := range []string{"--http-lame-duck duration", "(1ms to 10m) (default 3s)", "--config string", "--heads-max number"} {
		if !strings.Contains(usage, want) {
			t.Errorf("%q is missing in\n%s", want, usage)
		}
	}
}

// FuzzFile holds any file to a configuration that prints and loads as the
// same, or an error that lists faults.
func FuzzFile(f *testing.F) {
	f.Fuzz(func(t *testing.T, data string) {
		c, err := load(t, data, nil)
		if data == "" {
			return
		}
		if err != nil {
			invalid, ok := errors.AsType[*config.Error](err)
			if !ok || len(invalid.Faults) == 0 {
				t.Fatalf("error %v", err)
			}
			for _, fault := range invalid.Faults {
				if fault.Reason == "" || fault.Source == "" {
					t.Fatalf("fault %+v", fault)
				}
			}
			return
		}
		text := printed(t, c, true)
		if again := mustLoad(t, text, nil); printed(t, again, false) != printed(t, c, false) {
			t.Fatalf("printed\n%s\nloads as\n%s", text, printed(t, again, true))
		}
	})
}

// The audit trail records the settings, and no secret.
func TestSetAreTheSettingsThatAreNotDefaults(t *testing.T) {
	flags := pflag.NewFlagSet("headway", pflag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse([]string{"--listen", "127.0.0.1:7"}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(flags, []string{"HEADWAY_HEADS_MAX=7"}, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Set(), map[string]string{"listen": "127.0.0.1:7", "heads.max": "7"}; !maps.Equal(got, want) {
		t.Errorf("set are %v; want %v", got, want)
	}
}

// The list of discovery is read strictly, printed as a file has it, and read again.
func TestTheListOfDiscovery(t *testing.T) {
	const text = `
discovery:
- {name: gpu.test, port: 8000, family: ipv4, engine: vllm, region: eu, weight: 2, interval: 1m, max_heads: 5, labels: {a: b}}
- {srv: _http._tcp.gpu.test, engine: triton, scheme: https, server: '127.0.0.1:8600', metrics_port: 8002}
`
	want := []config.DiscoveredHeads{
		{
			Name: "gpu.test", Port: 8000, Family: "ipv4", Interval: config.Interval(time.Minute), MaxHeads: 5,
			EngineHead: config.EngineHead{Engine: "vllm", Region: "eu", Weight: 2, Labels: map[string]string{"a": "b"}},
		},
		{SRV: "_http._tcp.gpu.test", Scheme: "https", Server: "127.0.0.1:8600", MetricsPort: 8002, EngineHead: config.EngineHead{Engine: "triton"}},
	}
	c, err := load(t, text, nil)
	if err != nil || !reflect.DeepEqual(c.Discovery, want) {
		t.Errorf("%+v %v", c.Discovery, err)
	}
	var printed strings.Builder
	if err := c.Print(&printed, true); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^discovery: .*  # \S+:2$`).MatchString(printed.String()) {
		t.Errorf("no source of discovery in %s", &printed)
	}
	if again, err := load(t, printed.String(), nil); err != nil || !reflect.DeepEqual(again.Discovery, want) {
		t.Errorf("%s\n%v", &printed, err)
	}
	for _, wrong := range []string{
		"port: 0", "port: 65536", "port: '1'", "family: ip", "scheme: ftp", "interval: 0s", "interval: 2h", "interval: 30", "max_heads: 0",
		"max_heads: 1001", "metrics_port: 70000", "weight: 0", "endpoint: a", "id: a", "naming: b",
	} {
		_, err := load(t, "discovery: [{engine: vllm, "+wrong+"}]", nil)
		key, _, _ := strings.Cut(wrong, ":")
		if err == nil || !strings.Contains(err.Error(), "discovery.0."+key) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	for _, wrong := range []string{"discovery: 5", "discovery: {}", "discovery: [5]", "discovry: []"} {
		if _, err := load(t, wrong, nil); err == nil || !strings.Contains(err.Error(), "discovery") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
