package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/boltstore"
	"headway/internal/local"
	"headway/internal/policy"
)

// finding is what the doctor found: fine, or what is wrong and what helps.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, warning, fault or not asked
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// The states of a finding.
const (
	fine     = "ok"
	warning  = "warning"
	fault    = "fault"
	notAsked = "not asked"
)

func newDoctor() *cobra.Command {
	r := new(remote)
	cmd := addOutput(&cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, and say what helps",
		Long: `Look for what is wrong with the service of this machine, or with --server, and
say what helps: the clock, the disk, the file limit, what the service is ready
for (its state, its message queue), the audit trail and Redis, certificates and
keys, what Prometheus scrapes, the alert rules and the dashboards. It changes
nothing. Exit code 0: no faults; 1: there are.`,
		Args: cobra.NoArgs,
		RunE: do(func(c *call) error {
			found := r.examine(c.Context())
			t := &table{columns: []string{"CHECK", "STATE", "DETAIL"}}
			faults := 0
			for _, f := range found {
				t.add(f.Check, f.State, f.Detail)
				if f.Fix != "" {
					t.add("", "", "  -> "+f.Fix)
				}
				if f.State == fault {
					faults++
				}
			}
			if err := c.show(found, t); err != nil {
				return err
			}
			if faults > 0 {
				return fmt.Errorf("faults found: %d", faults)
			}
			return nil
		}),
	})
	r.addFlags(cmd)
	return cmd
}

func (r *remote) examine(ctx context.Context) []finding {
	said, running, err := local.Running(r.dataDir)
	found := []finding{clockFinding()}
	if r.server == "" {
		if err != nil {
			return append(found, finding{"service", fault, err.Error(), "run this as the user of the service, or name it with --server"})
		}
		dir := local.Dirs(r.dataDir)[0]
		if running {
			dir = filepath.Dir(said.TokenFile)
			found = append(found, fileLimitFinding(said.PID))
		} else {
			found = append(found, stateFinding(dir))
		}
		found = append(found, diskFinding("disk of the state", dir))
		if running {
			found = append(found, diskFinding("disk of the audit trail", filepath.Dir(said.AuditFile)))
		}
	}
	c, err := r.connect()
	if err != nil {
		return append(found, finding{"service", fault, err.Error(), "start it with 'headway serve', or name it with --server"})
	}
	defer c.Close()
	ready, err := c.Ready(ctx)
	if err != nil {
		const skipped = "the service does not answer"
		return append(found, finding{"service", fault, err.Error(), cmp.Or(connectionHelp(err), "start it with 'headway serve', or name it with --server")},
			finding{"alert rules", notAsked, skipped, ""}, finding{"dashboards", notAsked, skipped, ""})
	}
	found = append(found, examineService(ctx, c, ready)...)
	p, err := r.pages()
	if err != nil {
		return append(found, finding{"alert rules", fault, err.Error(), "name the service with --server"})
	}
	return append(found, p.examine(ctx)...)
}

func examineService(ctx context.Context, c *client.Client, ready api.Readiness) (found []finding) {
	for _, check := range ready.Checks {
		f := finding{"ready: " + check.Name, fine, check.Detail, ""}
		if !check.OK {
			f.State, f.Fix = fault, "the log of the service says more about "+check.Name
		}
		found = append(found, f)
	}
	heads, err := client.Collect(c.Heads(ctx, client.HeadQuery{PageSize: 1000}), 0)
	if err != nil {
		found = append(found, finding{"credential", fault, err.Error(), "name a key with --token-file, or run this as the user of the service on its machine"})
	} else {
		found = append(found, headsFinding(heads))
		if p, err := c.Policy(ctx); err == nil {
			found = append(found, aliasFindings(heads, p.Document)...)
		}
	}
	values, err := scrape(ctx, c)
	if err != nil {
		return append(found, finding{"scrape", fault, err.Error(), "let Prometheus, and this command, reach /metrics"})
	}
	found = append(found, scrapeFinding(values))
	return append(found, metricFindings(values, time.Now())...)
}

// headsFinding counts as the service's own readiness does: heads that are only
// held do not count.
func headsFinding(heads []api.Head) finding {
	var n census
	for i := range heads {
		n.add(&heads[i])
	}
	f := finding{"heads", fine, counted(n.Heads, "head") + ", " + n.taking(), ""}
	if reasons := n.outOfRotation(); reasons != "" {
		f.Detail += "; out of rotation: " + reasons
	}
	if n.Failing > 0 {
		f.Detail += "; " + n.failing()
	}
	switch {
	case n.Held > 0:
		f.State = warning
		f.Detail += "; " + n.held()
		f.Fix = "look for what they have in common, most likely the network between them and the service; 'headway heads list -o wide' shows them"
	case n.Failing > 0:
		f.State, f.Fix = warning, "'headway heads list' shows which, 'headway heads get ID' why; where all heads of a model type fail, look for what they have in common"
	case n.Routable > 0 && n.Ejected+n.Silent > 0:
		f.State, f.Fix = warning, "'headway heads list' shows which, 'headway heads get ID' why and until when; 'headway heads reinstate ID' ends an ejection"
	case n.Routable == 0:
		f.State, f.Fix = warning, "register heads, or see 'headway heads list -o wide' for why they take none; 'headway demo' starts a small fleet"
	}
	return f
}

// aliasFindings warns of aliases over model types that heads serve.
func aliasFindings(heads []api.Head, document []byte) (found []finding) {
	inForce, faults := policy.Parse(document, "json")
	if len(faults) > 0 {
		return nil // the service took it
	}
	served := map[string]bool{}
	for i := range heads {
		for _, m := range heads[i].ModelTypes {
			served[m] = true
		}
	}
	for _, f := range inForce.Hidden(slices.Sorted(maps.Keys(served))) {
		found = append(found, finding{"policy " + f.Pointer, warning, f.Reason, "'headway policy apply' a file without it"})
	}
	return found
}

// scrape reads the values of the metrics by their name and labels.
func scrape(ctx context.Context, c *client.Client) (map[string]float64, error) {
	body, err := c.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return parseMetrics(body)
}

func parseMetrics(r io.Reader) (map[string]float64, error) {
	values := map[string]float64{}
	scan := bufio.NewScanner(r)
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

// metricFindings judge what the service counts.
func metricFindings(v map[string]float64, now time.Time) (found []finding) {
	audit := finding{"audit trail", fine, fmt.Sprintf("record %.0f", v["headway_audit_sequence"]), ""}
	switch {
	case v["headway_audit_up"] == 0:
		audit.State, audit.Detail, audit.Fix = fault, "it cannot be written, so administrative changes are refused", "see the log of the service; mostly the disk is full or the file's directory is not writable"
	case v["headway_audit_dropped_total"] > 0:
		audit.State, audit.Detail, audit.Fix = warning, fmt.Sprintf("%.0f records were lost since the start", v["headway_audit_dropped_total"]), "the disk is too slow for what is recorded; put the trail on another"
	}
	found = append(found, audit)
	redis := finding{"audit on Redis", fine, "", ""}
	lag, shipped := v[`headway_audit_ship_lag_records{sink="redis"}`]
	late := v[`headway_audit_ship_lag_seconds{sink="redis"}`]
	switch {
	case !shipped:
		redis.State, redis.Detail, redis.Fix = warning, "it is not published", "unless redis.mode is off by intent, see the log: another process may have the address of redis.listen"
	case lag > 0 && late > lateOnRedis.Seconds():
		redis.State, redis.Detail, redis.Fix = warning, fmt.Sprintf("%.0f records behind, the oldest of %.0f s ago", lag, late), "check that the Redis of redis.url answers; nothing is lost while the audit files are there"
	default:
		redis.Detail = fmt.Sprintf("what is older than %s is published; %.0f subscribers", lateOnRedis, v["headway_audit_receivers{sink=\"redis\"}"])
	}
	found = append(found, redis)
	if v["headway_policy_last_load_successful"] == 0 {
		found = append(found, finding{"policy file", fault, "the file as it is now is not in force", "'headway policy check FILE' says what is wrong with it"})
	}
	if end, tls := v["headway_tls_certificate_not_after_seconds"]; tls && end == end { // not NaN
		left := time.Unix(int64(end), 0).Sub(now)
		f := finding{"certificate", fine, "good for " + short(left), ""}
		switch {
		case left <= 0:
			f = finding{"certificate", fault, "it ended " + short(-left) + " ago", "put a new one in its place; it is read within a second"}
		case left < 14*24*time.Hour:
			f.State, f.Fix = warning, "put a new one in its place; it is read within a second"
		}
		found = append(found, f)
	}
	if v["headway_keys"] == 0 {
		found = append(found, finding{"access", warning, "there are no keys: whoever reaches the service by loopback may do all", "headway keys create --role admin --name NAME"})
	}
	return found
}

// Least free space and open files that let a service run at ease.
const (
	leastFree  = 1 << 30
	leastFiles = 20_000
)

func diskFinding(check, dir string) finding {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return finding{check, warning, dir + ": " + err.Error(), "name the data directory with --data-dir"}
	}
	free := fs.Bavail * uint64(fs.Bsize)
	f := finding{check, fine, fmt.Sprintf("%s has %.1f GiB free", dir, float64(free)/(1<<30)), ""}
	if free < leastFree {
		f.State, f.Fix = warning, "make room: below state.min_free_bytes nothing more is written"
	}
	return f
}

// fileLimitFinding reads the limit of the running service.
func fileLimitFinding(pid int) finding {
	const check = "file limit"
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return finding{check, warning, err.Error(), "run this as the user of the service"}
	}
	for line := range strings.Lines(string(raw)) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if !ok {
			continue
		}
		soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.Atoi(soft)
		if err == nil && n < leastFiles {
			return finding{check, warning, soft + " open files", "each connection takes one: raise it with LimitNOFILE= in the unit, or ulimit -n"}
		}
		return finding{check, fine, soft + " open files", ""}
	}
	return finding{check, warning, "no limit was found", ""}
}

// stateFinding checks the state file of a service that does not run.
func stateFinding(dir string) finding {
	path := filepath.Join(dir, local.StateFile)
	if _, err := os.Stat(path); err != nil {
		return finding{"state file", warning, "there is none at " + path, "the first start makes it; name another directory with --data-dir"}
	}
	report, err := boltstore.Check(path)
	switch {
	case err != nil:
		return finding{"state file", fault, err.Error(), "see docs/operating.md, \"A damaged state file\""}
	case len(report.Faults) > 0:
		return finding{"state file", fault, fmt.Sprintf("%s is damaged in %s", path, counted(len(report.Faults), "place")), "restore it from an export with 'headway state import'"}
	}
	return finding{"state file", fine, path + " is sound", ""}
}
