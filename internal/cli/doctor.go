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
	"regexp"
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
	"headway/internal/terminal"
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

// findings are the results of an examination, in its order.
type findings []finding

func (f *findings) fine(check, detail string) { *f = append(*f, finding{check, fine, detail, ""}) }

func (f *findings) warn(check, detail, fix string) {
	*f = append(*f, finding{check, warning, detail, fix})
}

func (f *findings) fault(check, detail, fix string) {
	*f = append(*f, finding{check, fault, detail, fix})
}

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
			found := r.examine(c)
			t := &terminal.Table{Columns: []string{"CHECK", "STATE", "DETAIL"}}
			faults := 0
			for _, f := range found {
				t.Add(f.Check, f.State, f.Detail)
				if f.Fix != "" {
					t.Add("", "", "  -> "+f.Fix)
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

func (r *remote) examine(c *call) (f findings) {
	f.clock()
	if r.Server == "" {
		said, running, err := local.Running(r.DataDir)
		if err != nil {
			f.fault("service", err.Error(), "run this as the user of the service, or name it with --server")
			return f
		}
		dir := local.Dirs(r.DataDir)[0]
		if running {
			dir = filepath.Dir(said.TokenFile)
			f.fileLimit(said.PID)
		} else {
			f.state(dir)
		}
		f.disk("disk of the state", dir)
		if running {
			f.disk("disk of the audit trail", filepath.Dir(said.AuditFile))
		}
	}
	var ready api.Readiness
	err := r.connected(c, func(c *call) (err error) {
		if ready, err = c.Ready(c.Context()); err == nil {
			f.service(c.Context(), c.Client, ready)
		}
		return err
	})
	if err != nil {
		const skipped = "the service does not answer"
		f.fault("service", err.Error(), cmp.Or(local.Help(err), "start it with 'headway serve', or name it with --server"))
		return append(f, finding{"alert rules", notAsked, skipped, ""}, finding{"dashboards", notAsked, skipped, ""})
	}
	f.rules(c.Context(), r)
	f.dashboards(c.Context(), r)
	return f
}

func (f *findings) service(ctx context.Context, c *client.Client, ready api.Readiness) {
	for _, check := range ready.Checks {
		if check.OK {
			f.fine("ready: "+check.Name, check.Detail)
		} else {
			f.fault("ready: "+check.Name, check.Detail, "the log of the service says more about "+check.Name)
		}
	}
	heads, err := client.Collect(c.Heads(ctx, client.HeadQuery{PageSize: 1000}), 0)
	if err != nil {
		f.fault("credential", err.Error(), "name a key with --token-file, or run this as the user of the service on its machine")
	} else {
		f.heads(heads)
		if p, err := c.Policy(ctx); err == nil {
			f.aliases(heads, p.Document)
		}
	}
	values, err := scrape(ctx, c)
	if err != nil {
		f.fault("scrape", err.Error(), "let Prometheus, and this command, reach /metrics")
		return
	}
	f.scrape(values)
	f.metrics(values, time.Now())
}

// heads counts as the service's own readiness does: heads that are only held do
// not count.
func (f *findings) heads(heads []api.Head) {
	var n census
	for i := range heads {
		n.add(&heads[i])
	}
	detail := terminal.Count(n.Heads, "head") + ", " + n.taking()
	if reasons := n.outOfRotation(); reasons != "" {
		detail += "; out of rotation: " + reasons
	}
	if n.Failing > 0 {
		detail += "; " + n.failing()
	}
	switch {
	case n.Held > 0:
		f.warn("heads", detail+"; "+n.held(), "look for what they have in common, most likely the network between them and the service; 'headway heads list -o wide' shows them")
	case n.Failing > 0:
		f.warn("heads", detail, "'headway heads list' shows which, 'headway heads get ID' why; where all heads of a model type fail, look for what they have in common")
	case n.Routable > 0 && n.Ejected+n.Silent > 0:
		f.warn("heads", detail, "'headway heads list' shows which, 'headway heads get ID' why and until when; 'headway heads reinstate ID' ends an ejection")
	case n.Routable == 0:
		f.warn("heads", detail, "register heads, or see 'headway heads list -o wide' for why they take none; 'headway demo' starts a small fleet")
	default:
		f.fine("heads", detail)
	}
}

// aliases warns of aliases over model types that heads serve.
func (f *findings) aliases(heads []api.Head, document []byte) {
	inForce, faults := policy.Parse(document, "json")
	if len(faults) > 0 {
		return // the service took it
	}
	served := map[string]bool{}
	for i := range heads {
		for _, m := range heads[i].ModelTypes {
			served[m] = true
		}
	}
	for _, hidden := range inForce.Hidden(slices.Sorted(maps.Keys(served))) {
		f.warn("policy "+hidden.Pointer, hidden.Reason, "'headway policy apply' a file without it")
	}
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
		f.warn("access", "there are no keys: whoever reaches the service by loopback may do all", "headway keys create --role admin --name NAME")
	}
}

// Least free space and open files that let a service run at ease.
const (
	leastFree  = 1 << 30
	leastFiles = 20_000
)

func (f *findings) disk(check, dir string) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		f.warn(check, dir+": "+err.Error(), "name the data directory with --data-dir")
		return
	}
	free := fs.Bavail * uint64(fs.Bsize)
	detail := fmt.Sprintf("%s has %.1f GiB free", dir, float64(free)/(1<<30))
	if free < leastFree {
		f.warn(check, detail, "make room: below state.min_free_bytes nothing more is written")
	} else {
		f.fine(check, detail)
	}
}

var openFiles = regexp.MustCompile(`(?m)^Max open files +(\d+|unlimited) `)

// fileLimit reads the limit of the running service.
func (f *findings) fileLimit(pid int) {
	const check = "file limit"
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		f.warn(check, err.Error(), "run this as the user of the service")
		return
	}
	m := openFiles.FindSubmatch(raw)
	if m == nil {
		f.warn(check, "no limit was found", "")
		return
	}
	soft := string(m[1])
	if n, err := strconv.Atoi(soft); err == nil && n < leastFiles {
		f.warn(check, soft+" open files", "each connection takes one: raise it with LimitNOFILE= in the unit, or ulimit -n")
		return
	}
	f.fine(check, soft+" open files")
}

// state checks the state file of a service that does not run.
func (f *findings) state(dir string) {
	path := filepath.Join(dir, local.StateFile)
	if _, err := os.Stat(path); err != nil {
		f.warn("state file", "there is none at "+path, "the first start makes it; name another directory with --data-dir")
		return
	}
	switch report, err := boltstore.Check(path); {
	case err != nil:
		f.fault("state file", err.Error(), "see docs/operating.md, \"A damaged state file\"")
	case len(report.Faults) > 0:
		f.fault("state file", fmt.Sprintf("%s is damaged in %s", path, terminal.Count(len(report.Faults), "place")), "restore it from an export with 'headway state import'")
	default:
		f.fine("state file", path+" is sound")
	}
}
