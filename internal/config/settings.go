package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/strict"
)

// Setting describes one setting.
type Setting struct {
	Key         string // in the file, nested at the dots: lease.base_interval
	Flag        string // --lease-base-interval
	Env         string // HEADWAY_LEASE_BASE_INTERVAL
	Kind        Kind
	Default     string // as it is written; "" for none
	Allowed     string // for people: bounds, values, form
	Description string
	Secret      bool // its value may hold a secret, so that it is shown without
}

// Kind is what a setting's value is.
type Kind string

// The kinds of values and how they are written.
const (
	KindText     Kind = "string"
	KindChoice   Kind = "choice"
	KindDuration Kind = "duration" // 1h30m, 250ms
	KindBytes    Kind = "bytes"    // 64MiB, 16KiB, 512
	KindNumber   Kind = "number"   // a whole one
	KindFraction Kind = "fraction" // 0.5
	KindDecimal  Kind = "decimal"  // 2.5
	KindBool     Kind = "bool"     // true or false
	KindList     Kind = "list"     // an array in the file, elsewhere separated by commas
)

// Settings describes every setting, in the order of the manual.
func Settings() []Setting {
	t := newTable(&Config{})
	all := make([]Setting, len(t.settings))
	for i, s := range t.settings {
		all[i] = s.Setting
	}
	return all
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

	t.proxy(&c.Proxy)
	t.admission(&c.Admission)

	duration.add(t, "decisions.reservation_ttl", &c.Decisions.ReservationTTL, 2*time.Minute, time.Second, 24*time.Hour,
		"time after which a decision without an outcome gives its place back, unless the request asks for another or its head reports that it runs")
	duration.add(t, "decisions.max_reservation_ttl", &c.Decisions.MaxTTL, time.Hour, time.Second, 24*time.Hour,
		"longest ttl_seconds that a request may ask for, and how long a head's own count keeps a place; at least decisions.reservation_ttl")
	fraction.add(t, "decisions.explain_share", &c.Decisions.ExplainShare, 0.01, 0, 1,
		"share of decisions whose explanation is kept without being asked for; those that spilled or found no head always are, as far as there is room")
	count.add(t, "decisions.recent", &c.Decisions.Recent, 1<<16, 16, 1<<26,
		"decisions kept to be read back, rounded up to a power of two; the oldest reservation ends when there are more")

	t.measured(c)

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
	t.tracing(&c.Tracing)
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

// ConfigFlag and ConfigEnv name the file, which cannot name itself.
const (
	ConfigFlag = "config"
	ConfigEnv  = "HEADWAY_CONFIG"
	envPrefix  = "HEADWAY_"
)

type table struct {
	settings []*setting
}

type setting struct {
	Setting
	set      func(text string) error // keeps the old value when it fails
	get      func() string           // as set takes it
	elements func() []string
	// show returns a value or list element without secrets; nil if it has none.
	show func(text string) string
}

func (s *setting) say(text string) string {
	if s.Secret {
		return unsaid
	}
	return quote(text)
}

func (t *table) find(key string) *setting {
	i := slices.IndexFunc(t.settings, func(s *setting) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return t.settings[i]
}

// add adds a setting, whose value is at p, and gives it its default.
func add[T any](t *table, kind Kind, key string, p *T, def T, allowed, description string, parse func(string) (T, error), format func(T) string) *setting {
	*p = def
	s := &setting{
		Setting: Setting{
			Key: key, Kind: kind, Default: format(def), Allowed: allowed, Description: description,
			Flag: strings.NewReplacer(".", "-", "_", "-").Replace(key),
			Env:  envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
		},
		set: func(text string) error {
			v, err := parse(text)
			if err == nil {
				*p = v
			}
			return err
		},
		get: func() string { return format(*p) },
	}
	t.settings = append(t.settings, s)
	return s
}

func verbatim(s string) string { return s }

// form is a kind of text: its description, its check, and how it is shown
// without secrets.
type form struct {
	allowed string
	valid   func(string) bool
	show    func(string) string
}

func (t *table) text(key string, p *string, def string, f form, description string) {
	var s *setting
	s = add(t, KindText, key, p, def, f.allowed, description, func(text string) (string, error) {
		if !f.valid(text) {
			return "", fmt.Errorf("want %s, not %s", f.allowed, s.say(text))
		}
		return text, nil
	}, verbatim)
	s.show, s.Secret = f.show, f.show != nil
}

func (t *table) choice(key string, p *string, def string, values []string, description string) {
	allowed := strings.Join(values, ", ")
	add(t, KindChoice, key, p, def, allowed, description, func(text string) (string, error) {
		if !slices.Contains(values, text) {
			return "", fmt.Errorf("want one of %s, not %s%s", allowed, quote(text), strict.DidYouMean(text, values))
		}
		return text, nil
	}, verbatim)
}

func (t *table) boolean(key string, p *bool, def bool, description string) {
	add(t, KindBool, key, p, def, "true, false", description, func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, fmt.Errorf("want true or false, not %s", quote(text))
		}
		return text == "true", nil
	}, strconv.FormatBool)
}

// quantity is a kind of value that has bounds.
type quantity[T cmp.Ordered] struct {
	kind   Kind
	form   string // how it is written; "": as its bounds
	within string // before the bounds
	parse  func(string) (T, error)
	format func(T) string
}

var (
	duration = quantity[time.Duration]{KindDuration, "a time with its unit, such as 250ms or 1h30m", "", time.ParseDuration, formatDuration}
	size     = quantity[int64]{KindBytes, "a size such as 512, 16KiB or 64MiB", "", parseBytes, formatBytes}
	count    = quantity[int]{KindNumber, "", "a whole number from ", strconv.Atoi, strconv.Itoa}
	fraction = quantity[float64]{KindFraction, "", "a number from ", parseFloat, formatFloat}
	decimal  = quantity[float64]{KindDecimal, "", "a number from ", parseFloat, formatFloat}
)

func (q quantity[T]) add(t *table, key string, p *T, def, least, most T, description string) {
	allowed := q.format(least) + " to " + q.format(most)
	add(t, q.kind, key, p, def, allowed, description, func(text string) (T, error) {
		v, err := q.parse(text)
		switch {
		case err != nil && q.form != "":
			return v, fmt.Errorf("want %s, not %s", q.form, quote(text))
		case err != nil || !(v >= least && v <= most): // NaN too
			return v, fmt.Errorf("want %s%s, not %s", q.within, allowed, quote(text))
		}
		return v, nil
	}, q.format)
}

const maxElements = 100

func (t *table) list(key string, p *[]string, f form, description string) {
	allowed := fmt.Sprintf("at most %d of %s", maxElements, f.allowed)
	var s *setting
	s = add(t, KindList, key, p, nil, allowed, description, func(text string) (list []string, err error) {
		for element := range strings.SplitSeq(text, ",") {
			if element = strings.TrimSpace(element); element == "" && text == "" {
				break
			}
			if !f.valid(element) {
				return nil, fmt.Errorf("want %s, not %s", f.allowed, s.say(element))
			}
			list = append(list, element)
		}
		if len(list) > maxElements {
			return nil, fmt.Errorf("want %s, not %d", allowed, len(list))
		}
		return list, nil
	}, func(list []string) string { return strings.Join(list, ",") })
	s.elements = func() []string { return *p }
	s.show, s.Secret = f.show, f.show != nil
}

func parseFloat(text string) (float64, error) { return strconv.ParseFloat(text, 64) }
func formatFloat(f float64) string            { return strconv.FormatFloat(f, 'g', -1, 64) }

// formatDuration omits the zeros that time.Duration appends.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var byteUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseBytes(text string) (int64, error) {
	size := int64(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, size = number, u.size
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && (n < 0 || n > math.MaxInt64/size) {
		err = strconv.ErrRange
	}
	return n * size, err
}
