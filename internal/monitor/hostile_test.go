package monitor_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/monitor"
)

// nested wraps a function n times around an expression.
func nested(n int, begin, inner, end string) string {
	return strings.Repeat(begin, n) + inner + strings.Repeat(end, n)
}

// chain joins n expressions that each builds.
func chain(n int, operator string, each func(i int) string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = each(i)
	}
	return strings.Join(parts, operator)
}

const everything = `{__name__=~".+"}`

// hostile are expressions that try to take the memory or the time of the
// service, by kind.
var hostile = map[string]string{
	"label_join nested nine deep":    nested(9, `label_join(`, `active_heads`, `,"job","","job","job","job","job","job","job","job","job")`),
	"label_join with long separator": nested(4, `label_join(`, `vector(1)`, `,"x","`+strings.Repeat("s", 3000)+`","x","x","x","x","x","x","x","x")`),
	"label_join of every series":     nested(3, `label_join(`, everything, `,"job",",","job","job","job","job","job","job","job","job")`),
	"label_join side by side": chain(80, " or ", func(i int) string {
		return fmt.Sprintf(`label_join(%s,"l%d",",","head","head","head","head","head","head","job","job")`, everything, i)
	}),
	"label_replace that doubles":     nested(30, `label_replace(`, `active_heads`, `,"job","$1$1","job","(.*)")`),
	"label_replace with many groups": nested(4, `label_replace(`, everything, `,"job","`+strings.Repeat("$1", 100)+`","job","(.*)")`),
	"label_replace in parentheses":   nested(9, `label_replace((`, `active_heads`, `),("job"),("$1$1$1$1$1$1$1$1"),("job"),("(.*)"))`),
	"label_replace of a slow pattern": nested(3, `label_replace(`, nested(2, `label_join(`, everything, `,"job","","head","head","head","head","head","head","head","head")`),
		`,"a","$1","job","((a?){900}b?){20}")`),
	"a pattern that is huge":       `{head=~"(((((a{10}){10}){10}b?){1,100}){1,10}){1,2}x"}`,
	"patterns that are long":       chain(8, " or ", func(int) string { return `{head=~"(` + strings.Repeat("a|", 800) + `b){1000}"}` }),
	"a pattern behind escapes":     `{head=~"(` + strings.Repeat("[a-z]", 400) + `)\x7b1000\x7d"}`,
	"a pattern of character sets":  `{head=~"(` + strings.Repeat(`\\pL\\pN`, 300) + `){30}"}`,
	"a pattern that goes back":     everything + ` and {head=~"(a*)*(a*)*(a*)*(.*)*(.*)*b"}`,
	"every series many times":      chain(700, " or ", func(int) string { return everything }),
	"every series compared":        chain(100, " + on(head) group_left(job) ", func(int) string { return everything }),
	"cross join":                   everything + ` * on() ` + everything,
	"cross join of groups":         everything + ` * on() group_left() ` + everything,
	"count_values of time":         `count_values("v", time() * head_load)`,
	"count_values in a subquery":   `count_over_time(count_values("v", vector(time()))[1d:1ms])`,
	"count_values of every series": `count_values("v", ` + everything + `)`,
	"group by many labels":         `sum by (` + chain(1500, ",", func(i int) string { return fmt.Sprintf("l%d", i) }) + `) (` + everything + `)`,
	"group without many labels":    `count without (` + chain(1500, ",", func(i int) string { return fmt.Sprintf("l%d", i) }) + `) (` + everything + `)`,
	"subquery with tiny steps":     `sum_over_time(active_heads[100y:1ms])`,
	"subquery of a constant":       `sum_over_time(vector(1)[1d:1ms])`,
	"subquery at a fixed time":     `sum_over_time((up @ 0)[100y:1ms])`,
	"subquery of nothing":          `absent_over_time(nothing[50y:1ms])`,
	"subquery of computed range":   `sum_over_time(active_heads[1d*365:0.001])`,
	"subquery without a step":      `sum_over_time(active_heads[250y:])`,
	"subquery shorter than 1 ms":   `sum_over_time(active_heads[1h:0.0001])`,
	"subqueries in subqueries":     nested(12, `max_over_time(`, `rate(requests_total[5m])`, `[10d:3m])`),
	"subquery of every series":     `sum_over_time(` + everything + `[1d:1s])`,
	"subquery with an offset":      `sum_over_time(active_heads[1d:1s] offset -290y)`,
	"an instant subquery":          everything + `[1d:1s]`,
	"quantile_over_time":           `quantile_over_time(0.5, (` + everything + `)[3d:1s])`,
	"quantile of everything":       `quantile(0.5, ` + everything + `)`,
	"range of every series":        everything + `[1d]`,
	"predict and derive":           `predict_linear(head_load[30d:1m], 1e300) + deriv(head_load[30d:1m])`,
	"double exponential smoothing": `double_exponential_smoothing(head_load[1d], 0.5, 0.5)`,
	"holt winters":                 `holt_winters(head_load[1d], 0.5, 0.5)`,
	"mad":                          `mad_over_time(head_load[30d:1m])`,
	"sort by label":                `sort_by_label(` + everything + `, "head", "job")`,
	"sort":                         nested(60, `sort(`, everything, `)`),
	"info":                         `info(` + everything + `, {__name__=~".+"})`,
	"limitk":                       `limitk(1000000, ` + everything + `)`,
	"limit_ratio":                  `limit_ratio(1, ` + everything + `)`,
	"topk of too many":             `topk(9e18, ` + everything + `)`,
	"topk of huge numbers":         `topk(1e308, ` + everything + `)`,
	"bottomk of a vector":          `bottomk(scalar(active_heads), ` + everything + `)`,
	"histogram_quantile":           `histogram_quantile(0.9, ` + everything + `)`,
	"histogram_quantiles":          `histogram_quantiles(` + everything + `, "q", 0.1, 0.2, 0.3)`,
	"histogram_fraction":           `histogram_fraction(0, 1, ` + everything + `)`,
	"histogram functions":          `histogram_stddev(` + everything + `) + histogram_stdvar(` + everything + `) + histogram_sum(` + everything + `)`,
	"deep parentheses":             nested(8000, `(`, `1`, `)`),
	"deep parentheses open":        strings.Repeat("(", 16_000),
	"deep functions":               nested(95, `abs(`, everything, `)`),
	"deep unary":                   strings.Repeat("-", 8000) + "1",
	"deep binary":                  strings.Repeat("1+", 8000) + "1",
	"deep powers":                  strings.Repeat("2^", 1900) + "2",
	"deep aggregates":              nested(95, `sum(`, everything, `)`),
	"comparisons":                  chain(300, " > bool ", func(int) string { return "active_heads" }),
	"a long string":                `"` + strings.Repeat("a", 60_000) + `"`,
	"a long string of escapes":     `"` + strings.Repeat(`\u0001`, 2000) + `"`,
	"a long name":                  strings.Repeat("a", 60_000),
	"many matchers":                `up{` + chain(1200, ",", func(i int) string { return fmt.Sprintf(`l%d!~"x"`, i) }) + `}`,
	"huge numbers":                 `head_load * 1e308 * 1e308 - 1e308`,
	"long numbers":                 `head_load * 0 + 1.5e308`,
	"hexadecimal":                  `0x` + strings.Repeat("f", 15_000),
	"a comment":                    strings.Repeat("#\n", 8000) + "1",
	"@ far away":                   `head_load @ 9223372036854775 + head_load @ -9223372036854775`,
	"@ in a subquery":              `sum_over_time(head_load[1d:1s] @ 9223372036854775)`,
	"offset far away":              `head_load offset 292y + head_load offset -292y`,
	"absent of long matchers":      chain(5, " or ", func(i int) string { return fmt.Sprintf(`absent(x{l%d="%s"})`, i, strings.Repeat("v", 3000)) }),
	"scalar of everything":         chain(200, " + ", func(int) string { return `scalar(` + everything + `)` }),
	"timestamps of everything":     nested(1, `timestamp(`, everything, `)`),
	"bytes that are no text":       "\x00\xff\xfe{\"\xff\"=~\"\xff\"}",
	"anchored":                     `increase(requests_total[1d:1ms] anchored)`,
	"smoothed":                     `rate(` + everything + `[1d] smoothed)`,
	"fill":                         everything + ` + fill(0) ` + everything,
	"labels of a range":            `sum by (head) (label_replace(head_load, "head", "$1$1$1$1$1$1$1$1", "head", "(.*)"))`,
}

// outcome is what became of one query in the other process.
type outcome struct {
	Name     string
	Code     int
	Millis   int64
	Error    string
	Bytes    uint64 // of the whole process at its peak so far
	AfterUp  int    // the answer to a plain query afterwards
	Complete bool   // the last one
}

// Limits that every hostile query keeps to.
const (
	hostileMemory = 1 << 30
	// Between two looks at the time a query works for up to 2 s; with the race
	// detector on a loaded machine that is 30 s. A query that hangs takes longer.
	hostileTimeout = monitor.QueryTimeout + 2*time.Minute
)

// Each hostile query ends, with an answer or an error, within its time and with
// bounded memory, and its place is free afterwards. The queries run in a process
// of their own, which ends itself when it takes too much.
func TestHostileQueries(t *testing.T) {
	if os.Getenv("HEADWAY_HOSTILE") != "" {
		runHostile(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostileQueries$", "-test.timeout=15m")
	cmd.Env = append(os.Environ(), "HEADWAY_HOSTILE=1", "GOMEMLIMIT=900MiB")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answered, current, complete := 0, "", false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "begin "); ok {
			current = name
			continue
		}
		var o outcome
		if json.Unmarshal(lines.Bytes(), &o) != nil {
			continue
		}
		if complete = o.Complete; complete {
			break
		}
		answered++
		t.Logf("%-34s %d in %5d ms, %4d MiB %.90s", o.Name, o.Code, o.Millis, o.Bytes>>20, o.Error)
		if o.Code != 200 && o.Code != 400 && o.Code != 422 && o.Code != 503 {
			t.Errorf("%s is answered with %d", o.Name, o.Code)
		}
		if took := time.Duration(o.Millis) * time.Millisecond; took > hostileTimeout {
			t.Errorf("%s took %s, at most %s are allowed", o.Name, took, hostileTimeout)
		}
		if o.AfterUp != 200 {
			t.Errorf("after %s a plain query is answered with %d", o.Name, o.AfterUp)
		}
	}
	if err := cmd.Wait(); err != nil || !complete {
		t.Errorf("the process ended during %s: %v", current, err)
	}
	if want := 2 * len(hostile); complete && answered != want {
		t.Errorf("%d queries were answered, there are %d", answered, want)
	}
}

// runHostile is the other process: it asks each query at one time and over a
// range, and ends when the heap gets too large.
func runHostile(t *testing.T) {
	debug.SetGCPercent(50)
	var peak atomic.Uint64
	var current atomic.Value
	current.Store("")
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		beat := time.NewTicker(2 * time.Millisecond)
		defer beat.Stop()
		for range beat.C {
			metrics.Read(sample)
			now := sample[0].Value.Uint64()
			peak.Store(max(peak.Load(), now))
			if now > hostileMemory {
				fmt.Fprintf(os.Stderr, "%s takes %d MiB of memory, at most %d are allowed\n", current.Load(), now>>20, hostileMemory>>20)
				os.Exit(3)
			}
		}
	}()
	w := newWorld(t, nil)
	load := fullHouse(w, 8000)
	w.pass(8, load)
	end := fmt.Sprint(w.now.Unix())
	say := func(o outcome) {
		line, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(os.Stdout, "\n%s\n", line)
	}
	for name, query := range hostile {
		for path, params := range map[string]url.Values{
			"/api/v1/query":       {"query": {query}},
			"/api/v1/query_range": {"query": {query}, "start": {fmt.Sprint(w.now.Unix() - 10_999)}, "end": {end}, "step": {"1"}},
		} {
			current.Store(name + " " + path)
			fmt.Fprintf(os.Stdout, "\nbegin %s %s\n", name, path)
			begin := time.Now()
			r := w.post(path, params)
			say(outcome{
				Name: name + path[len("/api/v1/query"):], Code: r.code, Error: r.Error, Millis: time.Since(begin).Milliseconds(), Bytes: peak.Load(),
				AfterUp: w.get("/api/v1/query", url.Values{"query": {"up"}}).code,
			})
		}
	}
	say(outcome{Complete: true})
}

// fullHouse adds a gauge of n heads, as a large fleet has, and returns what
// changes it.
func fullHouse(w *world, n int) func(i int) {
	load := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "head_load", Help: "Load."}, []string{"head"})
	w.watched.MustRegister(load)
	return func(i int) {
		w.requests.WithLabelValues("200").Inc()
		w.latency.Observe(.05)
		for h := range n {
			load.WithLabelValues(fmt.Sprintf("head-of-a-fleet-with-a-long-name-%05d", h)).Set(float64(i*n + h))
		}
	}
}
