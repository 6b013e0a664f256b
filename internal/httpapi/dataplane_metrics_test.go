package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"headway/internal/engine"
	"headway/internal/mockhead"
)

// sample is the sum of the series of a metric that have these labels, names and
// values in turn: of histograms the count and the sum.
func (p *plane) sample(name string, labels ...string) (n int, sum float64) {
	p.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if !labelled(m, labels) {
				continue
			}
			n += int(m.GetCounter().GetValue()) + int(m.GetHistogram().GetSampleCount())
			sum += m.GetHistogram().GetSampleSum()
		}
	}
	return n, sum
}

func labelled(m *dto.Metric, want []string) bool {
	have := map[string]string{}
	for _, l := range m.GetLabel() {
		have[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(want); i += 2 {
		if have[want[i]] != want[i+1] {
			return false
		}
	}
	return true
}

// calls are the calls of heads by status.
func (p *plane) calls() string {
	p.Helper()
	var out []string
	for _, status := range []string{"success", "error", "rejected", "cancelled"} {
		n, _ := p.sample("external_service_calls_total", "service", "head", "status", status)
		out = append(out, fmt.Sprintf("%s %d", status, n))
	}
	return strings.Join(out, ", ")
}

// Every call of a head is counted once, at its end, by a closed list of statuses.
func TestEveryCallOfAHeadIsCounted(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  mockhead.Fault
		heads  int
		body   string
		calls  string
		reason string
	}{
		{"whole answer", mockhead.Fault{}, 1, chatBody, "success 1, error 0, rejected 0, cancelled 0", ""},
		{"stream", mockhead.Fault{}, 1, streamBody, "success 1, error 0, rejected 0, cancelled 0", ""},
		{"two heads fail", mockhead.Fault{Kind: mockhead.Status, Status: 500}, 2, chatBody, "success 0, error 2, rejected 0, cancelled 0", "status_5xx"},
		{"no connection", mockhead.Fault{Kind: mockhead.ResetRequest}, 2, chatBody, "success 0, error 2, rejected 0, cancelled 0", "end_of_stream reset"},
		{"a caller's mistake", mockhead.Fault{Kind: mockhead.Status, Status: 400}, 2, chatBody, "success 0, error 0, rejected 1, cancelled 0", "status_4xx"},
		{"full heads", mockhead.Fault{Kind: mockhead.Status, Status: 429, RetryAfter: "1"}, 1, chatBody, "success 0, error 0, rejected 1, cancelled 0", "status_429"},
		{"no credential", mockhead.Fault{Kind: mockhead.Status, Status: 401}, 1, chatBody, "success 0, error 1, rejected 0, cancelled 0", "unauthorized"},
		{"a redirect", mockhead.Fault{Kind: mockhead.Redirect, Location: "http://127.0.0.1:1/"}, 1, chatBody, "success 0, error 1, rejected 0, cancelled 0", "redirect"},
		{"breaks off", mockhead.Fault{Kind: mockhead.Reset, After: 4}, 2, streamBody, "success 0, error 1, rejected 0, cancelled 0", "end_of_stream reset"},
		{"an error within", mockhead.Fault{Kind: mockhead.ErrorEvent, After: 4}, 2, streamBody, "success 0, error 1, rejected 0, cancelled 0", "error_in_answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlane(t)
			for i := range c.heads {
				h := p.start(fmt.Sprint("h", i))
				if c.fault.Kind == "" {
					continue
				}
				if _, err := h.Inject(c.fault); err != nil {
					t.Fatal(err)
				}
			}
			p.answer(chatPath, c.body)
			p.settled()
			if got := p.calls(); got != c.calls {
				t.Errorf("counted %s, want %s", got, c.calls)
			}
			all, _ := p.sample("headway_proxy_call_failures_total")
			named := 0
			for reason := range strings.FieldsSeq(c.reason) {
				n, _ := p.sample("headway_proxy_call_failures_total", "reason", reason)
				named += n
			}
			want := 0
			if c.reason != "" {
				want = len(strings.Split(c.calls, "error 2")) // one call, or two
			}
			if all != want || named != want {
				t.Errorf("%d reasons of failures, %d of them %q; want %d", all, named, c.reason, want)
			}
		})
	}
}

// A caller that leaves is neither an error of the head's nor one of ours: no alert
// counts it.
func TestPitfallP1ACallerThatLeavesRaisesNoAlert(t *testing.T) {
	p := newPlane(t)
	head := p.start("a", func(o *mockhead.Options) { o.Profile = engine.Profile{} })
	if _, err := head.Inject(mockhead.Fault{Kind: mockhead.StallHeaders}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		res, err := p.ask(ctx, chatPath, chatBody)
		if err == nil {
			_ = res.Body.Close()
		}
		asked <- err
	}()
	p.eventually("the head has the request", func() bool { return head.Count() > 0 })
	leave()
	<-asked
	p.settled()
	p.eventually("the request is counted", func() bool {
		n, _ := p.sample("http_requests_total", "endpoint", chatPath, "status", "499")
		return n == 1
	})
	if got := p.calls(); got != "success 0, error 0, rejected 0, cancelled 1" {
		t.Errorf("counted %s", got)
	}
	if n, _ := p.sample("http_requests_total", "endpoint", chatPath); n != 1 {
		t.Errorf("%d requests of the endpoint are counted", n)
	}
}

// The alerts about latency look at what the service itself takes. An answer for
// which a head needs long is seen in histograms of its own.
func TestLongAnswersAreNotSlowness(t *testing.T) {
	for _, f := range []mockhead.Fault{{Kind: mockhead.StallHeaders, Seconds: 1}, {Kind: mockhead.Stall, After: 3, Seconds: 1}} {
		for _, body := range []string{chatBody, streamBody} {
			t.Run(fmt.Sprintf("%s, stream %t", f.Kind, body == streamBody), func(t *testing.T) {
				p := newPlane(t)
				h := p.start("a")
				if _, err := h.Inject(f); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				a := p.answer(chatPath, body)
				took := time.Since(begin).Seconds()
				if a.StatusCode != http.StatusOK || took < 1 {
					t.Fatalf("%d after %v s", a.StatusCode, took)
				}
				p.eventually("the request is counted", func() bool {
					n, _ := p.sample("headway_proxy_request_duration_seconds")
					return n == 1
				})
				for _, name := range []string{"http_request_duration_seconds", "headway_http_request_duration_seconds", "headway_proxy_overhead_seconds"} {
					labels := []string{}
					if strings.HasPrefix(name, "headway_http") {
						labels = []string{"endpoint", chatPath}
					}
					p.eventually(name+" has the request", func() bool { n, _ := p.sample(name, labels...); return n == 1 })
					if _, sum := p.sample(name, labels...); sum < 0 || sum > took-0.9 {
						t.Errorf("%s has %v s of %v", name, sum, took)
					}
				}
				if _, sum := p.sample("headway_proxy_request_duration_seconds"); sum < 1 || sum > took {
					t.Errorf("the request took %v s of %v", sum, took)
				}
			})
		}
	}
}

// A stream has a time to its first token and one between each two others, by the
// head's model type; the tokens are those that the head reports.
func TestTokensAreTimedAndCounted(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	asked := strings.Replace(streamBody, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
	intervals, reported := 0, 0
	for _, body := range []string{streamBody, asked, chatBody} {
		a := p.answer(chatPath, body)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		p.settled()
		intervals += max(len(contents.FindAll(a.body, -1))-1, 0)
		if n := completed.FindSubmatch(a.body); n != nil {
			tokens, err := strconv.Atoi(string(n[1]))
			if err != nil {
				t.Fatal(err)
			}
			reported += tokens
		}
	}
	for name, want := range map[string]int{"headway_proxy_first_token_seconds": 2, "headway_proxy_token_interval_seconds": intervals} {
		if n, _ := p.sample(name, "model_type", "m"); n != want || want < 2 {
			t.Errorf("%s has %d observations, want %d", name, n, want)
		}
	}
	for kind, want := range map[string]int{"input reported": 2, "output reported": reported, "input estimated": 1, "output estimated": 1} {
		of, source, _ := strings.Cut(kind, " ")
		if n, _ := p.sample("headway_proxy_tokens_total", "model_type", "m", "kind", of, "source", source); n < want || of == "output" && source == "reported" && n != want {
			t.Errorf("%d tokens of %s, want %d", n, kind, want)
		}
	}
}

var (
	contents  = regexp.MustCompile(`"delta":\{[^}]*"content":"[^"]`)
	completed = regexp.MustCompile(`"completion_tokens":(\d+)`)
)

// Names that callers invent make no series, at any endpoint.
func TestPitfallP34InventedModelsMakeNoSeries(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	ask := func(model, path string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+path, strings.NewReader(strings.Replace(chatBody, `"m"`, `"`+model+`"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "127.0.0.1:1"
		w := &discarded{header: http.Header{}}
		p.server.ServeHTTP(w, r)
		if w.status != http.StatusNotFound || !bytes.Contains(w.body.Bytes(), []byte("model_not_found")) {
			t.Fatalf("%s of %s: %d %s", path, model, w.status, w.body.Bytes())
		}
	}
	paths := []string{chatPath, "/v1/completions", "/v1/embeddings", "/v1/responses"}
	for _, path := range paths {
		ask("first", path)
	}
	before := p.series()
	for i := range 10_000 {
		ask(fmt.Sprintf("invented-%d", i), paths[i%len(paths)])
	}
	if after := p.series(); after != before {
		t.Errorf("%d series, and %d before", after, before)
	}
}

// series is the number of series of all metrics.
func (p *plane) series() (n int) {
	p.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.Fatal(err)
	}
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

// discarded is a ResponseWriter without a connection.
type discarded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(s int)           { d.status = s }
func (d *discarded) Write(b []byte) (int, error) { return d.body.Write(b) }
