package config

import (
	"strings"
	"time"
)

// Proxy bounds the data plane.
type Proxy struct {
	ProxyLimits
	HeadLimits
	Listen                string
	AskUsage              string
	HeadKeys              []string // ENDPOINT=FILE or ENDPOINT=env:NAME
	ClientPaths           []string // MODEL_TYPE=/PATH
	DropHeaders           []string // names, * for any characters
	PassHeaders           []string
	CAFile                string
	IdleConnection        time.Duration
	MaxConnections        int
	MaxConnectionsPerHead int
	MaxIdlePerHead        int
	HealthChecks          bool
	HealthCheckInterval   time.Duration
}

// ProxyLimits bound what a request may take. They are proxy.Limits.
type ProxyLimits struct {
	MaxBody      int64
	MaxBodies    int64 // of all requests under way
	BodyWait     time.Duration
	BodyTime     time.Duration
	Comment      time.Duration
	ReaderStalls time.Duration
	MaxAttempts  int
	RetryShare   float64
	RetryTime    time.Duration
}

// HeadLimits bound the phases of an exchange with a head. They are
// upstream.Limits.
type HeadLimits struct {
	Connect   time.Duration
	Write     time.Duration
	FirstByte time.Duration
	Idle      time.Duration
	Total     time.Duration
}

// Admission bounds the requests of the data plane and how long they wait.
type Admission struct {
	MaxWaiting        int
	MaxWait           time.Duration
	RequestsPerMinute int
	TokensPerMinute   int
}

func (t *table) admission(c *Admission) {
	count.add(t, "admission.max_waiting", &c.MaxWaiting, 1000, 0, 100_000,
		"requests to /v1 that wait for a place at the heads of one model type; 0 refuses them at once")
	duration.add(t, "admission.max_wait", &c.MaxWait, 30*time.Second, time.Millisecond, time.Hour,
		"time that a request to /v1 waits for a place")
	count.add(t, "admission.requests_per_minute", &c.RequestsPerMinute, 0, 0, 1_000_000_000,
		"requests to /v1 a minute of each caller whose key has no limit of its own; 0 is no limit")
	count.add(t, "admission.tokens_per_minute", &c.TokensPerMinute, 0, 0, 1_000_000_000,
		"tokens a minute, of prompts and answers, of each caller whose key has no limit of its own; 0 is no limit")
}

func (t *table) proxy(c *Proxy) {
	t.text("proxy.listen", &c.Listen, "", optionalHostPort,
		"address of a listener for /v1 and /heads alone, which the listener of listen then does not serve; as there, another than a loopback one needs access control, and TLS or http.behind_proxy")
	size.add(t, "proxy.max_body_bytes", &c.MaxBody, 64<<20, 1<<10, 1<<30,
		"size of the body of a request to /v1")
	size.add(t, "proxy.max_bodies_bytes", &c.MaxBodies, 1<<30, 1<<20, 1<<40,
		"memory for the bodies of all requests to /v1 under way, of which a quarter is for those up to 1 MiB alone, and half of the rest the most for one caller; at least proxy.max_body_bytes")
	duration.add(t, "proxy.body_wait", &c.BodyWait, 10*time.Second, time.Millisecond, time.Hour,
		"time that a request waits for room in proxy.max_bodies_bytes")
	duration.add(t, "proxy.body_timeout", &c.BodyTime, 30*time.Second, time.Millisecond, time.Hour,
		"silence of a client within the body of its request; of what it takes of proxy.max_bodies_bytes a 64th has to come in that time")
	duration.add(t, "proxy.connect_timeout", &c.Connect, 2*time.Second, time.Millisecond, time.Minute,
		"time to connect to a head: name, TCP and TLS")
	duration.add(t, "proxy.write_timeout", &c.Write, 30*time.Second, time.Millisecond, time.Hour,
		"time in which a head takes nothing of a request")
	duration.add(t, "proxy.first_byte_timeout", &c.FirstByte, 10*time.Minute, time.Millisecond, 24*time.Hour,
		"time from the end of a request to the header of the head's answer")
	duration.add(t, "proxy.idle_timeout", &c.Idle, 5*time.Minute, time.Millisecond, 24*time.Hour,
		"silence of a head within its answer")
	duration.add(t, "proxy.total_timeout", &c.Total, time.Hour, time.Millisecond, 7*24*time.Hour,
		"time for a request at heads, all attempts and the whole answer included")
	duration.add(t, "proxy.comment_interval", &c.Comment, 14*time.Second, 100*time.Millisecond, time.Hour,
		"silence of a head after which its stream gets a comment line")
	duration.add(t, "proxy.reader_timeout", &c.ReaderStalls, time.Minute, time.Millisecond, 24*time.Hour,
		"time in which a client takes nothing of its answer, after which it is cut")
	count.add(t, "proxy.max_attempts", &c.MaxAttempts, 3, 1, 10,
		"heads that one request is sent to until one answers; 1 switches retries off")
	fraction.add(t, "proxy.retry_share", &c.RetryShare, 0.2, 0.001, 1,
		"share of the requests that may be sent to another head, besides ten at once; 1 is no bound")
	duration.add(t, "proxy.retry_timeout", &c.RetryTime, 30*time.Minute, time.Millisecond, 24*time.Hour,
		"time after the first attempt in which another one may begin")
	t.list("proxy.head_keys", &c.HeadKeys, headKey,
		"API keys that heads ask of this service, sent to them and nowhere else: the endpoint as it is registered, * in it for any characters of one part of a host, and the file with the key, or the variable of the environment that has it")
	t.list("proxy.client_paths", &c.ClientPaths, clientPath,
		"paths of heads that callers without the permission operate may send requests below /heads to, besides those that are known of the head's engine: the model type and the path, * in either for any characters")
	t.list("proxy.drop_headers", &c.DropHeaders, headerName,
		"fields of requests that no head gets, besides those that are never passed on; * for any characters")
	t.list("proxy.pass_headers", &c.PassHeaders, headerName,
		"fields of requests that heads get though their names are of a kind that is not passed on, as X-Session-Id; not Authorization and others that are dropped by their very name, and none with another character than letters, digits and -")
	t.text("proxy.ca_file", &c.CAFile, "", optionalPath,
		"who signs the certificates of heads, PEM, besides whom the system trusts")
	t.choice("proxy.ask_usage", &c.AskUsage, "auto", []string{"auto", "always", "never"},
		"ask heads for the tokens of a stream (stream_options.include_usage) where the client did not: auto asks those whose engine is known to answer; the chunk with the count is kept from the client")
	duration.add(t, "proxy.idle_connection", &c.IdleConnection, 4*time.Second, time.Millisecond, time.Hour,
		"time that a connection to a head is kept unused; below that of the engine, which is 5s with uvicorn")
	count.add(t, "proxy.max_connections", &c.MaxConnections, 16_384, 1, 1_000_000,
		"connections to all heads at a time")
	count.add(t, "proxy.max_connections_per_head", &c.MaxConnectionsPerHead, 4096, 1, 1_000_000,
		"connections to one head at a time")
	count.add(t, "proxy.max_idle_per_head", &c.MaxIdlePerHead, 256, 1, 1_000_000,
		"unused connections to one head that are kept")
	t.boolean("proxy.health_checks", &c.HealthChecks, true,
		"check the health of heads at which requests of the data plane failed, until they are well")
	duration.add(t, "proxy.health_check_interval", &c.HealthCheckInterval, time.Second, 10*time.Millisecond, time.Hour,
		"time between two such checks of a head")
}

// KeyFromEnv begins the name of a variable of the environment in proxy.head_keys.
const KeyFromEnv = "env:"

var headKey = form{allowed: "ENDPOINT=FILE or ENDPOINT=env:NAME", valid: func(s string) bool {
	endpoint, from, _ := strings.Cut(s, "=")
	return strings.Contains(endpoint, "://") && strings.TrimPrefix(from, KeyFromEnv) != "" && isPath(s)
}}

var headerName = form{allowed: "names of header fields, * for any characters", valid: func(s string) bool {
	return s != "" && strings.Trim(s, "*") != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '*')
	})
}}

func (c *Proxy) check(need func(key string, sound bool, reason string)) {
	need("proxy.max_bodies_bytes", c.MaxBodies >= c.MaxBody,
		"must not be below proxy.max_body_bytes, "+formatBytes(c.MaxBody))
}

var clientPath = form{allowed: "MODEL_TYPE=/PATH", valid: func(s string) bool {
	model, path, is := strings.Cut(s, "=/")
	return is && model != "" && !strings.ContainsAny(s, " \t,") && !strings.ContainsAny(path, "%;?#\\") && !strings.Contains("/"+path, "//")
}}
