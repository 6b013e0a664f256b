// Package config is what an operator can set: one table of settings from which
// the flags, the HEADWAY_* variables, the keys of the file and the manual all
// come, so that each setting has one name, one default and one set of bounds.
package config

import "time"

// Config holds the value of every setting. Each value is within the bounds
// that Settings names; what the operator left out has its default.
type Config struct {
	Listen    string
	DataDir   string
	Policy    string // "": the policy of the binary
	Log       Log
	HTTP      HTTP
	Lease     Lease
	Heads     Heads
	Decisions Decisions
	State     State

	sources map[string]source // by key, of the values that are not defaults
}

// Log says what is logged.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// HTTP bounds what clients may take.
type HTTP struct {
	HeaderTimeout   time.Duration
	ReadTimeout     time.Duration
	WriteTimeout    time.Duration
	IdleTimeout     time.Duration
	MaxHeaderBytes  int
	MaxBodyBytes    int64
	MaxConnections  int
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

// Heads bounds the fleet.
type Heads struct {
	Max            int
	MaxModelTypes  int
	AllowLinkLocal bool
}

// Decisions says what is kept of decisions.
type Decisions struct {
	ReservationTTL time.Duration
	Recent         int
}

// State says how the state file is kept.
type State struct {
	MinFreeBytes int64
}

// table is the one list of settings, bound to a Config.
func newTable(c *Config) *table {
	t := &table{}
	t.text("listen", &c.Listen, "127.0.0.1:8080", hostPort,
		"address to listen on; only loopback addresses are served")
	t.text("data_dir", &c.DataDir, "./data", path,
		"directory of the state file; it is made if it is missing")
	t.text("policy", &c.Policy, "", optionalPath,
		"file with the policy, YAML or with the ending .json JSON; without one the last policy in force is kept, at first that of the binary")

	t.choice("log.level", &c.Log.Level, "info", []string{"debug", "info", "warn", "error"},
		"least level that is logged")
	t.choice("log.format", &c.Log.Format, "text", []string{"text", "json"},
		"format of the log on standard error")

	t.http(&c.HTTP)
	t.lease(&c.Lease)

	t.number("heads.max", &c.Heads.Max, 200_000, 1, 1_000_000,
		"heads that may be registered; more are refused")
	t.number("heads.max_model_types", &c.Heads.MaxModelTypes, 1000, 1, 100_000,
		"different model types over all heads; more are refused")
	t.boolean("heads.allow_link_local", &c.Heads.AllowLinkLocal,
		"accept heads whose endpoint is a link-local or a cloud metadata address")

	t.duration("decisions.reservation_ttl", &c.Decisions.ReservationTTL, 2*time.Minute, time.Second, 24*time.Hour,
		"time after which a decision without an outcome gives its place back")
	t.number("decisions.recent", &c.Decisions.Recent, 1<<16, 16, 1<<26,
		"decisions kept to be read back, rounded up to a power of two; the oldest reservation ends when there are more")

	size(t, "state.min_free_bytes", &c.State.MinFreeBytes, 64<<20, 1, 1<<40,
		"free space on the disk below which nothing more is written")
	return t
}

func (t *table) http(c *HTTP) {
	t.duration("http.header_timeout", &c.HeaderTimeout, 5*time.Second, time.Millisecond, time.Hour,
		"time for the headers of a request")
	t.duration("http.read_timeout", &c.ReadTimeout, 15*time.Second, time.Millisecond, time.Hour,
		"time for a whole request, headers included")
	t.duration("http.write_timeout", &c.WriteTimeout, 30*time.Second, time.Millisecond, time.Hour,
		"time for an answer")
	t.duration("http.idle_timeout", &c.IdleTimeout, 2*time.Minute, time.Millisecond, 24*time.Hour,
		"time that a connection may wait for its next request")
	size(t, "http.max_header_bytes", &c.MaxHeaderBytes, 16<<10, 1<<10, 1<<20,
		"size of the headers of a request")
	size(t, "http.max_body_bytes", &c.MaxBodyBytes, 1<<20, 1<<10, 64<<20,
		"size of the body of a request")
	t.number("http.max_connections", &c.MaxConnections, 10_000, 1, 1_000_000,
		"connections at a time; more are closed at once")
	t.duration("http.lame_duck", &c.LameDuck, 3*time.Second, time.Millisecond, 10*time.Minute,
		"time between the failing of /readyz and the closing of the listener at a stop, for clients to move on")
	t.duration("http.shutdown_timeout", &c.ShutdownTimeout, 30*time.Second, time.Millisecond, time.Hour,
		"time for the work in flight at a stop, after the lame duck")
	t.list("http.allowed_hosts", &c.AllowedHosts, hostName,
		"names, besides the loopback ones, that the Host header of a request may have")
}

func (t *table) lease(c *Lease) {
	t.duration("lease.base_interval", &c.BaseInterval, 2*time.Second, 100*time.Millisecond, time.Hour,
		"time between two reports of a head in a small fleet")
	t.number("lease.max_reports_per_second", &c.MaxReportsPerSecond, 2000, 1, 1_000_000,
		"reports per second of the whole fleet; the interval grows so that it stays below")
	t.duration("lease.remove_after", &c.RemoveAfter, time.Hour, time.Second, 8760*time.Hour,
		"silence after which a head is forgotten; it must be over 3 base intervals")
	t.duration("lease.slow_start", &c.SlowStart, 30*time.Second, time.Millisecond, time.Hour,
		"time over which a new head grows to its full share of the traffic")
	t.fraction("lease.guard_share", &c.GuardShare, 0.5, 0.01, 1,
		"share of a pool that goes silent at once beyond which the silence is held to be ours: heads stay routable; 1 switches this off")
	t.number("lease.guard_min_heads", &c.GuardMinHeads, 4, 1, 1_000_000,
		"heads of the smallest pool that is so guarded")
	t.duration("lease.guard_hold", &c.GuardHold, time.Minute, time.Second, 24*time.Hour,
		"time that the guard holds heads before it lets them expire after all")
}

// check finds what is wrong between settings that are sound one by one.
func (c *Config) check() []Fault {
	var faults []Fault
	if least := 3 * c.Lease.BaseInterval; c.Lease.RemoveAfter <= least {
		faults = append(faults, Fault{
			"lease.remove_after", c.source("lease.remove_after").String(),
			"must be over 3 times lease.base_interval, " + formatDuration(least) + ", or heads are forgotten that report in time",
		})
	}
	if c.HTTP.HeaderTimeout > c.HTTP.ReadTimeout {
		faults = append(faults, Fault{
			"http.header_timeout", c.source("http.header_timeout").String(),
			"must not be over http.read_timeout, " + formatDuration(c.HTTP.ReadTimeout),
		})
	}
	return faults
}
