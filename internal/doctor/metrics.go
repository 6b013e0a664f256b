package doctor

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/client"
	"headway/internal/terminal"
)

// promised are the metrics of the monitoring guide, which dashboards and alerts
// are made of. Each has a series from the first scrape on.
var promised = []string{
	"routing_decisions_total", "head_registrations_total", "head_status_updates_total", "active_heads",
	"http_requests_total", "http_request_duration_seconds_bucket", "cache_hits_total", "cache_misses_total",
	"external_service_calls_total", "process_cpu_seconds_total", "process_resident_memory_bytes",
	"sse_connections", "websocket_connections", "message_queue_messages_total",
}

// scrape judges whether Prometheus gets what it should.
func (f *findings) scrape(values map[string]float64) {
	there := map[string]bool{}
	for series := range values {
		name, _, _ := strings.Cut(series, "{")
		there[name] = true
	}
	missing := slices.DeleteFunc(slices.Clone(promised), func(name string) bool { return there[name] })
	if len(missing) > 0 {
		f.fault("scrape", "/metrics lacks "+strings.Join(missing, ", "), behindProxy+" Dashboards and alerts need them")
		return
	}
	f.fine("scrape", fmt.Sprintf("/metrics has %d series, and all that the guide names", len(values)))
}

// Scrape reads the values of the metrics by their name and labels.
func Scrape(ctx context.Context, c *client.Client) (map[string]float64, error) {
	body, err := c.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	values := map[string]float64{}
	scan := bufio.NewScanner(body)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("the line %q of the metrics cannot be read", line)
		}
		values[line[:at]] = v
	}
	return values, scan.Err()
}

// lateOnRedis is how long a record may be on its way to Redis.
const lateOnRedis = 10 * time.Second

// metrics judges what the service counts.
func (f *findings) metrics(v map[string]float64, now time.Time) {
	switch dropped := v["headway_audit_dropped_total"]; {
	case v["headway_audit_up"] == 0:
		f.fault("audit trail", "it cannot be written, so administrative changes are refused", "see the log of the service; mostly the disk is full or the file's directory is not writable")
	case dropped > 0:
		f.warn("audit trail", fmt.Sprintf("%.0f records were lost since the start", dropped), "the disk is too slow for what is recorded; put the trail on another")
	default:
		f.fine("audit trail", fmt.Sprintf("record %.0f", v["headway_audit_sequence"]))
	}
	lag, shipped := v[`headway_audit_ship_lag_records{sink="redis"}`]
	switch late := v[`headway_audit_ship_lag_seconds{sink="redis"}`]; {
	case !shipped:
		f.warn("audit on Redis", "it is not published", "unless redis.mode is off by intent, see the log: another process may have the address of redis.listen")
	case lag > 0 && late > lateOnRedis.Seconds():
		f.warn("audit on Redis", fmt.Sprintf("%.0f records behind, the oldest of %.0f s ago", lag, late), "check that the Redis of redis.url answers; nothing is lost while the audit files are there")
	default:
		f.fine("audit on Redis", fmt.Sprintf("what is older than %s is published; %.0f subscribers", lateOnRedis, v[`headway_audit_receivers{sink="redis"}`]))
	}
	if v["headway_policy_last_load_successful"] == 0 {
		f.fault("policy file", "the file as it is now is not in force", "'headway policy check FILE' says what is wrong with it")
	}
	if end, tls := v["headway_tls_certificate_not_after_seconds"]; tls && end == end { // not NaN
		const replace = "put a new one in its place; it is read within a second"
		switch left := time.Unix(int64(end), 0).Sub(now); {
		case left <= 0:
			f.fault("certificate", "it ended "+terminal.Short(-left)+" ago", replace)
		case left < 14*24*time.Hour:
			f.warn("certificate", "good for "+terminal.Short(left), replace)
		default:
			f.fine("certificate", "good for "+terminal.Short(left))
		}
	}
	if v["headway_keys"] == 0 {
		f.warn("access", "there are no keys: all that reaches the service by loopback may do everything", "headway keys create --role admin --name NAME")
	}
}
