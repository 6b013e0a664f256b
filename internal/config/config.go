// Package config is the one table of settings. Flags, HEADWAY_* variables, keys
// of the file and the manual come from it, so each setting has one name, one
// default and one set of bounds.
package config

import "time"

// Config holds the value of every setting, within its bounds or the default.
type Config struct {
	Listen    string
	DataDir   string
	Policy    string // "": the policy of the binary
	External  string // URL that people reach the service by; "": that of Listen
	Log       Log
	HTTP      HTTP
	Lease     Lease
	Eject     Eject
	Heads     Heads
	Decisions Decisions
	State     State
	TLS       TLS
	Access    Access
	Audit     Audit
	Redis     Redis
	Monitor   Monitor
	Realtime  Realtime
	Queue     Queue
	Webhooks  Webhooks

	sources map[string]source // by key, of the values that are not defaults
}

// Log says what is logged.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// HTTP says what clients may take, and what is in front of the service.
type HTTP struct {
	Limits
	BehindProxy    bool
	TrustedProxies []string
}

// Limits bound what clients may take. They are httpapi.Limits.
type Limits struct {
	HeaderTimeout   time.Duration
	ReadTimeout     time.Duration
	WriteTimeout    time.Duration
	IdleTimeout     time.Duration
	MaxHeaderBytes  int64
	MaxBodyBytes    int64
	MaxConnections  int
	MaxPerAddress   int // connections
	LameDuck        time.Duration
	ShutdownTimeout time.Duration
	AllowedHosts    []string
}

// Lease says how heads renew their leases and when they lose them.
type Lease struct {
	BaseInterval        time.Duration
	MaxReportsPerSecond int
	RemoveAfter         time.Duration
	SlowStart           time.Duration
	GuardShare          float64
	GuardMinHeads       int
	GuardHold           time.Duration
}

// Eject says when heads are taken out of rotation for failed requests.
type Eject struct {
	Enabled           bool
	ConsecutiveErrors int     // 0: no number of errors in a row ejects
	ErrorShare        float64 // 1: no share of errors ejects
	MinRequests       int
	Window            time.Duration
	BaseTime          time.Duration
	MaxTime           time.Duration
	MaxShare          float64
}

// Heads bounds the fleet.
type Heads struct {
	Max            int
	MaxModelTypes  int
	AllowLinkLocal bool
}

// Decisions says what is kept of decisions.
type Decisions struct {
	ReservationTTL time.Duration
	MaxTTL         time.Duration
	ExplainShare   float64
	Recent         int
}

// State says how the state file is kept.
type State struct {
	MinFreeBytes int64
}

// TLS says which certificates are served and asked for.
type TLS struct {
	CertFile      string
	KeyFile       string
	ClientCAFile  string
	ACMEHosts     []string
	ACMEEmail     string
	ACMEDirectory string
}

// Access says which credentials are accepted besides API keys, and the rate
// limits.
type Access struct {
	OIDC               OIDC
	Certificates       []string // NAME=ROLE
	RequestsPerKey     float64  // a second; 0: no limit
	RequestsPerAddress float64
	FailuresPerAddress float64
}

// OIDC says which issuer's tokens are trusted.
type OIDC struct {
	Issuer       string // "": no tokens
	Audience     string
	Algorithms   []string
	RolesClaim   string
	Roles        []string // VALUE=ROLE
	HeadsClaim   string
	RegionsClaim string
}

// Audit says how the audit trail is kept.
type Audit struct {
	File           string // "": /var/log/routing_audit.log where it can be written, else in the data directory
	Strict         bool
	MaxBytes       int64
	Keep           int
	SigningKeyFile string
}

// Redis says where the audit trail is published.
type Redis struct {
	Mode         string // embedded, external or off
	Listen       string // of the embedded one
	URL          string // of the external one
	PasswordFile string
	Channel      string
	Stream       string // "": none
}

// Monitor says what the embedded monitor keeps and whom it notifies.
type Monitor struct {
	Enabled       bool
	Interval      time.Duration
	Retention     time.Duration
	MaxSeries     int
	RulesFile     string // "": the rules of the binary
	Alertmanagers []string
	AlertWebhooks []string
	Timeout       time.Duration
}

// Realtime bounds Server-Sent Events and WebSocket.
type Realtime struct {
	MaxStreams      int
	MaxMessageBytes int64
	MaxRate         float64 // messages a second of one WebSocket
	Heartbeat       time.Duration
}

// Queue says where the message queue is.
type Queue struct {
	Mode      string // embedded, external or off
	Listen    string // of the embedded one, "": no port
	URL       string // of the external one
	CredsFile string
	TokenFile string
	CAFile    string
	CertFile  string
	KeyFile   string
	MaxBytes  int64 // of each stream
	Audit     bool  // publishes the audit trail on the external one as well
}

// Webhooks says which endpoints receive events.
type Webhooks struct {
	File           string // "": no endpoints
	AllowLinkLocal bool
}

func newTable(c *Config) *table {
	t := &table{}
	t.text("listen", &c.Listen, "127.0.0.1:8080", hostPort,
		"address to listen on; another than a loopback one needs access control, and TLS or http.behind_proxy")
	t.text("data_dir", &c.DataDir, "./data", path,
		"directory of the state file; it is made if it is missing")
	t.text("policy", &c.Policy, "", optionalPath,
		"file with the policy, YAML or with the ending .json JSON; without one the last policy in force is kept, at first that of the binary")

	t.text("external_url", &c.External, "", ownURL,
		"URL that people and other machines reach the service by, such as https://gateway.example/headway behind a proxy: links in alerts, dashboards and events begin with it, requests to its host and path are taken; without one that of listen")

	t.choice("log.level", &c.Log.Level, "info", []string{"debug", "info", "warn", "error"},
		"least level that is logged")
	t.choice("log.format", &c.Log.Format, "text", []string{"text", "json"},
		"format of the log on standard error")

	t.http(&c.HTTP)
	t.lease(&c.Lease)
	t.eject(&c.Eject)

	count.add(t, "heads.max", &c.Heads.Max, 200_000, 1, 1_000_000,
		"heads that may be registered; more are refused")
	count.add(t, "heads.max_model_types", &c.Heads.MaxModelTypes, 1000, 1, 100_000,
		"different model types over all heads; more are refused")
	t.boolean("heads.allow_link_local", &c.Heads.AllowLinkLocal, false,
		"accept heads whose endpoint is a link-local or a cloud metadata address")

	duration.add(t, "decisions.reservation_ttl", &c.Decisions.ReservationTTL, 2*time.Minute, time.Second, 24*time.Hour,
		"time after which a decision without an outcome gives its place back, unless the request asks for another or its head reports that it runs")
	duration.add(t, "decisions.max_reservation_ttl", &c.Decisions.MaxTTL, time.Hour, time.Second, 24*time.Hour,
		"longest ttl_seconds that a request may ask for, and how long a head's own count keeps a place; at least decisions.reservation_ttl")
	fraction.add(t, "decisions.explain_share", &c.Decisions.ExplainShare, 0.01, 0, 1,
		"share of decisions whose explanation is kept without being asked for; those that spilled or found no head always are, as far as there is room")
	count.add(t, "decisions.recent", &c.Decisions.Recent, 1<<16, 16, 1<<26,
		"decisions kept to be read back, rounded up to a power of two; the oldest reservation ends when there are more")

	size.add(t, "state.min_free_bytes", &c.State.MinFreeBytes, 64<<20, 1, 1<<40,
		"free space on the disk below which nothing more is written")

	t.tls(&c.TLS)
	t.access(&c.Access)
	t.audit(&c.Audit)
	t.redis(&c.Redis)
	t.monitor(&c.Monitor)
	t.realtime(&c.Realtime)
	t.queue(&c.Queue)
	t.text("webhooks.file", &c.Webhooks.File, "", optionalPath,
		"file with the endpoints that events are posted to, YAML; see docs/webhooks.md")
	t.boolean("webhooks.allow_link_local", &c.Webhooks.AllowLinkLocal, false,
		"post to endpoints whose address is a link-local or a cloud metadata one")
	return t
}

func (t *table) realtime(c *Realtime) {
	count.add(t, "realtime.max_streams", &c.MaxStreams, 5000, 1, 1_000_000,
		"Server-Sent Events and WebSocket connections at a time; they count for http.max_connections as well")
	size.add(t, "realtime.max_message_bytes", &c.MaxMessageBytes, 64<<10, 1<<10, 16<<20,
		"size of a message that comes over WebSocket")
	decimal.add(t, "realtime.max_rate", &c.MaxRate, 100_000, 1, 1e7,
		"messages a second of one WebSocket; reading waits when there are more")
	duration.add(t, "realtime.heartbeat", &c.Heartbeat, 10*time.Second, 100*time.Millisecond, 14*time.Second,
		"silence after which a stream gets a comment, or a WebSocket a ping")
}

func (t *table) queue(c *Queue) {
	t.choice("queue.mode", &c.Mode, "embedded", []string{"embedded", "external", "off"},
		"where the message queue is: a NATS server of our own, that of queue.url, or nowhere")
	t.text("queue.listen", &c.Listen, "", optionalHostPort,
		"loopback address of the embedded NATS server; empty opens no port")
	t.text("queue.url", &c.URL, "", optionalNATS,
		"servers of mode external, nats://host:4222 or tls://host:4222, several with commas")
	t.text("queue.creds_file", &c.CredsFile, "", optionalPath,
		"credentials of that server, as nsc writes them")
	t.text("queue.token_file", &c.TokenFile, "", optionalPath,
		"file with the token of that server")
	t.text("queue.ca_file", &c.CAFile, "", optionalPath,
		"who signs that server's certificate, PEM; without one whom the system trusts")
	t.text("queue.cert_file", &c.CertFile, "", optionalPath,
		"certificate of this service for that server, PEM")
	t.text("queue.key_file", &c.KeyFile, "", optionalPath,
		"key of that certificate, PEM")
	size.add(t, "queue.max_bytes", &c.MaxBytes, 256<<20, 64<<10, 1<<40,
		"size of each stream of the queue on the disk; more is refused until there is room")
	t.boolean("queue.audit", &c.Audit, false,
		"publish the audit trail on an external server too; on the embedded one those who may read it can always subscribe to it")
}

func (t *table) monitor(c *Monitor) {
	t.boolean("monitor.enabled", &c.Enabled, true,
		"keep a history of the metrics, evaluate the alerts, and show both at /console/ and /prometheus/")
	duration.add(t, "monitor.interval", &c.Interval, 15*time.Second, time.Second, 5*time.Minute,
		"time between two samples of each metric, and between evaluations of the alerts")
	duration.add(t, "monitor.retention", &c.Retention, 24*time.Hour, 10*time.Minute, 7*24*time.Hour,
		"age at which samples are forgotten")
	count.add(t, "monitor.max_series", &c.MaxSeries, 20_000, 100, 1_000_000,
		"series that are kept; what is beyond is counted and left out")
	t.text("monitor.rules_file", &c.RulesFile, "", optionalPath,
		"rule file of Prometheus' in the place of that of the binary; read again when it changes")
	t.list("monitor.alertmanagers", &c.Alertmanagers, webURL,
		"Alertmanagers that receive alerts, such as http://localhost:9093")
	t.list("monitor.alert_webhooks", &c.AlertWebhooks, hookURL,
		"addresses that alerts are posted to, in the form of Alertmanager's webhooks")
	duration.add(t, "monitor.timeout", &c.Timeout, 10*time.Second, 100*time.Millisecond, time.Minute,
		"time for one call of a receiver of alerts")
}

func (t *table) tls(c *TLS) {
	t.text("tls.cert_file", &c.CertFile, "", optionalPath,
		"certificate of the service with its chain, PEM; read again when it changes")
	t.text("tls.key_file", &c.KeyFile, "", optionalPath,
		"key of the certificate, PEM")
	t.text("tls.client_ca_file", &c.ClientCAFile, "", optionalPath,
		"who signs the certificates of heads and operators, PEM; none are asked for without it")
	t.list("tls.acme_hosts", &c.ACMEHosts, hostName,
		"names to get certificates for by ACME, instead of files; the service must be reachable as port 443 of them")
	t.text("tls.acme_email", &c.ACMEEmail, "", line,
		"address that the ACME authority may write to")
	t.text("tls.acme_directory", &c.ACMEDirectory, "", optionalURL,
		"directory of the ACME authority; without one that of Let's Encrypt")
}

func (t *table) access(c *Access) {
	t.text("oidc.issuer", &c.OIDC.Issuer, "", optionalURL,
		"OpenID Connect issuer whose tokens are trusted")
	t.text("oidc.audience", &c.OIDC.Audience, "", line,
		"audience that its tokens must be for; required with an issuer")
	t.list("oidc.algorithms", &c.OIDC.Algorithms, algorithm,
		"signatures that are accepted; without any RS256, ES256 and EdDSA")
	t.text("oidc.roles_claim", &c.OIDC.RolesClaim, "roles", line,
		"claim with the roles of the bearer, a text or a list")
	t.list("oidc.roles", &c.OIDC.Roles, mapping,
		"what the claim's values mean: VALUE=ROLE; without any they are the names of our roles")
	t.text("oidc.heads_claim", &c.OIDC.HeadsClaim, "headway_heads", line,
		"claim with the ids of heads that a bearer of role head may register")
	t.text("oidc.regions_claim", &c.OIDC.RegionsClaim, "headway_regions", line,
		"claim with the regions that a bearer of role head may register in")
	t.list("access.certificates", &c.Certificates, mapping,
		"who a client's certificate is: NAME=ROLE or NAME=head:IDS[:REGIONS]; NAME is a URI, DNS or common name, * stands for any characters, several ids or regions are joined by |")
	decimal.add(t, "access.requests_per_key", &c.RequestsPerKey, 0, 0, 1e6,
		"requests a second of one key; 0 is no limit")
	decimal.add(t, "access.requests_per_address", &c.RequestsPerAddress, 0, 0, 1e6,
		"requests a second of one address; 0 is no limit")
	decimal.add(t, "access.failures_per_address", &c.FailuresPerAddress, 10, 0.1, 1e6,
		"failed authentications a second of one address")
}

func (t *table) audit(c *Audit) {
	t.text("audit.file", &c.File, "", optionalPath,
		"file of the audit trail; without one /var/log/routing_audit.log where that can be written, else routing_audit.log in the data directory")
	t.boolean("audit.strict", &c.Strict, true,
		"refuse administrative changes that cannot be recorded first")
	size.add(t, "audit.max_bytes", &c.MaxBytes, 100<<20, 64<<10, 1<<40,
		"size at which the file is closed and the next begins")
	count.add(t, "audit.keep", &c.Keep, 0, 0, 100_000,
		"closed files that are kept; 0 is all")
	t.text("audit.signing_key_file", &c.SigningKeyFile, "", optionalPath,
		"Ed25519 key that signs the checkpoints, PKCS #8 in PEM")
}

func (t *table) redis(c *Redis) {
	t.choice("redis.mode", &c.Mode, "embedded", []string{"embedded", "external", "off"},
		"where the audit trail is published: on a small Redis server of our own, on that of redis.url, or nowhere")
	t.text("redis.listen", &c.Listen, "127.0.0.1:6380", hostPort,
		"loopback address of the embedded Redis server")
	t.text("redis.url", &c.URL, "", redisURL,
		"server of mode external, redis://user@host:port/db or rediss:// with TLS")
	t.text("redis.password_file", &c.PasswordFile, "", optionalPath,
		"file with the password of that server")
	t.text("redis.channel", &c.Channel, "audit:routing:logs", line,
		"channel that the records are published on")
	t.text("redis.stream", &c.Stream, "", line,
		"stream that keeps the records for consumers that must not miss any; without one there is none")
}

func (t *table) http(c *HTTP) {
	duration.add(t, "http.header_timeout", &c.HeaderTimeout, 5*time.Second, time.Millisecond, time.Hour,
		"time for the headers of a request")
	duration.add(t, "http.read_timeout", &c.ReadTimeout, 15*time.Second, time.Millisecond, time.Hour,
		"time for a whole request, headers included")
	duration.add(t, "http.write_timeout", &c.WriteTimeout, 30*time.Second, time.Millisecond, time.Hour,
		"time for an answer")
	duration.add(t, "http.idle_timeout", &c.IdleTimeout, 2*time.Minute, time.Millisecond, 24*time.Hour,
		"time that a connection may wait for its next request")
	size.add(t, "http.max_header_bytes", &c.MaxHeaderBytes, 16<<10, 1<<10, 1<<20,
		"size of the headers of a request")
	size.add(t, "http.max_body_bytes", &c.MaxBodyBytes, 1<<20, 1<<10, 64<<20,
		"size of the body of a request")
	count.add(t, "http.max_connections", &c.MaxConnections, 10_000, 1, 1_000_000,
		"connections at a time; more are closed at once")
	duration.add(t, "http.lame_duck", &c.LameDuck, 3*time.Second, time.Millisecond, 10*time.Minute,
		"time between the failing of /readyz and the closing of the listener at a stop, for clients to move on")
	duration.add(t, "http.shutdown_timeout", &c.ShutdownTimeout, 30*time.Second, time.Millisecond, time.Hour,
		"time for the work in flight at a stop, after the lame duck")
	t.list("http.allowed_hosts", &c.AllowedHosts, hostName,
		"names, besides the loopback ones, that the Host header of a request may have")
	count.add(t, "http.max_connections_per_address", &c.MaxPerAddress, 0, 0, 1_000_000,
		"connections at a time of one address, loopback ones aside; 0 is no limit")
	t.boolean("http.behind_proxy", &c.BehindProxy, false,
		"serve other addresses than loopback ones without TLS, since a proxy before it has TLS")
	t.list("http.trusted_proxies", &c.TrustedProxies, network,
		"networks whose X-Forwarded-For is trusted, with http.behind_proxy")
}

func (t *table) lease(c *Lease) {
	duration.add(t, "lease.base_interval", &c.BaseInterval, 2*time.Second, 100*time.Millisecond, time.Hour,
		"time between two reports of a head in a small fleet")
	count.add(t, "lease.max_reports_per_second", &c.MaxReportsPerSecond, 2000, 1, 1_000_000,
		"reports per second of the whole fleet; the interval grows so that it stays below")
	duration.add(t, "lease.remove_after", &c.RemoveAfter, time.Hour, time.Second, 8760*time.Hour,
		"silence after which a head is forgotten; it must be over 3 base intervals")
	duration.add(t, "lease.slow_start", &c.SlowStart, 30*time.Second, time.Millisecond, time.Hour,
		"time over which a new head grows to its full share of the traffic")
	fraction.add(t, "lease.guard_share", &c.GuardShare, 0.5, 0.01, 1,
		"share of a pool that goes silent at once beyond which the silence is held to be ours: heads stay routable; 1 switches this off")
	count.add(t, "lease.guard_min_heads", &c.GuardMinHeads, 4, 1, 1_000_000,
		"heads of the smallest pool that is so guarded")
	duration.add(t, "lease.guard_hold", &c.GuardHold, time.Minute, time.Second, 24*time.Hour,
		"time that the guard holds heads before it lets them expire after all")
}

func (t *table) eject(c *Eject) {
	t.boolean("eject.enabled", &c.Enabled, true,
		"take heads out of rotation whose requests are reported to fail")
	count.add(t, "eject.consecutive_errors", &c.ConsecutiveErrors, 5, 0, 1_000_000,
		"errors in a row, none of them the caller's fault, that eject a head; 0 switches this off")
	fraction.add(t, "eject.error_share", &c.ErrorShare, 0.5, 0.01, 1,
		"share of errors of a window that ejects a head; 1 switches this off")
	count.add(t, "eject.min_requests", &c.MinRequests, 20, 1, 1_000_000,
		"requests of a window below which the share of errors does not count")
	duration.add(t, "eject.window", &c.Window, 30*time.Second, time.Second, time.Hour,
		"time over which the share of errors is taken")
	duration.add(t, "eject.base_time", &c.BaseTime, 10*time.Second, 100*time.Millisecond, time.Hour,
		"time that a head is out at its first ejection; each that follows lasts twice as long")
	duration.add(t, "eject.max_time", &c.MaxTime, 5*time.Minute, 100*time.Millisecond, 24*time.Hour,
		"longest time that a head is out, but never under eject.base_time")
	fraction.add(t, "eject.max_share", &c.MaxShare, 0.5, 0.01, 1,
		"share of the heads of a model type, over all its regions, that may be out at once; one always stays")
}

// check finds conflicts between settings that are valid by themselves.
func (c *Config) check() []Fault {
	var faults []Fault
	need := func(key string, sound bool, reason string) {
		if !sound {
			faults = append(faults, Fault{key, c.source(key).String(), reason})
		}
	}
	least := 3 * c.Lease.BaseInterval
	need("lease.remove_after", c.Lease.RemoveAfter > least,
		"must be over 3 times lease.base_interval, "+formatDuration(least)+", or heads are forgotten that report in time")
	need("http.header_timeout", c.HTTP.HeaderTimeout <= c.HTTP.ReadTimeout,
		"must not be over http.read_timeout, "+formatDuration(c.HTTP.ReadTimeout))
	need("http.trusted_proxies", len(c.HTTP.TrustedProxies) == 0 || c.HTTP.BehindProxy,
		"is only looked at with http.behind_proxy")
	need("tls.key_file", (c.TLS.CertFile == "") == (c.TLS.KeyFile == ""),
		"goes together with tls.cert_file: set both or none")
	need("tls.acme_hosts", c.TLS.CertFile == "" || len(c.TLS.ACMEHosts) == 0,
		"must be empty where tls.cert_file is set: certificates come from files or by ACME")
	need("tls.client_ca_file", c.TLS.ClientCAFile == "" || c.TLS.CertFile != "" || len(c.TLS.ACMEHosts) > 0,
		"needs TLS: set tls.cert_file and tls.key_file, or tls.acme_hosts")
	need("access.certificates", len(c.Access.Certificates) == 0 || c.TLS.ClientCAFile != "",
		"needs tls.client_ca_file, which names the trusted authorities")
	need("oidc.audience", c.Access.OIDC.Issuer == "" || c.Access.OIDC.Audience != "",
		"is required with oidc.issuer, or tokens for other services would be trusted")
	need("queue.url", c.Queue.Mode != "external" || c.Queue.URL != "",
		"is required with queue.mode external")
	need("queue.key_file", (c.Queue.CertFile == "") == (c.Queue.KeyFile == ""),
		"goes together with queue.cert_file: set both or none")
	need("redis.url", c.Redis.Mode != "external" || c.Redis.URL != "",
		"is required with redis.mode external")
	return faults
}
