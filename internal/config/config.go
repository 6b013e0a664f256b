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
	Proxy     Proxy
	Admission Admission
	Discovery []DiscoveredHeads // of the configuration file only
	Decisions Decisions
	Logged    Logged
	Objective Objective
	State     State
	TLS       TLS
	Access    Access
	Audit     Audit
	Redis     Redis
	Monitor   Monitor
	Realtime  Realtime
	Queue     Queue
	Webhooks  Webhooks
	Tracing   Tracing

	file    string            // that was read; "": none
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
	Static         []StaticHead // of the configuration file only
}

// Decisions says what is kept of decisions.
type Decisions struct {
	ReservationTTL time.Duration
	MaxTTL         time.Duration
	ExplainShare   float64
	Recent         int
}

// Objective is the time within which a request should have its first token.
type Objective struct {
	Least  time.Duration // however short the prompt
	Factor float64       // of what the prompt takes alone, if that is longer
}

// Logged bounds the decision log.
type Logged struct {
	Rate      float64 // decisions a second; 0: there is no log
	MaxMemory int64
	MaxBytes  int64 // of its files; 0: there are none
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
	c.Proxy.check(need)
	return faults
}
