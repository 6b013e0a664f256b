package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"headway/client"
	"headway/internal/engine"
	"headway/internal/mockhead"
	"headway/internal/sim"
	"headway/internal/workload"
)

// The fleet of the proof, and its traffic: 0.8 of what eight heads of round_robin carry.
const (
	proofHeads = 4
	proofRate  = 0.8 * 5.75 / 8 * proofHeads // requests a second, by the clock of the heads
)

// proof is one trace that is played on simulated and on real heads.
type proof struct {
	workload string
	requests int
	speed    float64 // of the heads, and of the trace with them
}

// proven is what one strategy came to: seconds to the first token by the clock of the
// heads, and the cached part of all prompts.
type proven struct{ ttft, hits float64 }

// Speeds of the proof. A machine that is too slow for one tries half of it; at the
// least of them it compares in any case.
const (
	proofFastest = 10.
	proofSlowest = 2.5
)

// proofFigures are what strategies are compared by: the less, the better. What heads had
// cached depends little on how busy the machine is, so that the short form looks at it
// alone.
var proofFigures = []struct {
	name string
	long bool
	of   func(proven) float64
}{
	{"tokens of prompts for each that was cached", false, func(p proven) float64 { return 1 / p.hits }},
	{"seconds to the first token", true, func(p proven) float64 { return p.ttft }},
}

// Real heads behind the proxy of a real process come to the order of strategies that
// the simulator foretells for the same trace, fleet and speed.
func TestSoakStrategiesRankAsSimulated(t *testing.T) {
	p := proof{either("poisson:shared=6000,input=7000,prefixes=80", workload.Sample), either(150, int(soak.Seconds()*proofFastest*proofRate)), proofFastest}
	strategies := either([]string{"round_robin", "adaptive"}, []string{"round_robin", "random", "least_loaded", "session_affinity", "prefix_aware", "adaptive"})
	measured := p.measured(t, strategies)
	foretold := p.foretold(t, strategies)
	p.show(t, strategies, foretold, measured)
	for i, name := range strategies {
		// Few requests of a trace that shares much: what is lost is lost by the proxy.
		if least, _ := between(foretold[i], proven.cached); *soak == 0 && measured[i].hits < 0.8*least {
			t.Errorf("%s: of prompts %.3f was cached, in the simulation %.3f", name, measured[i].hits, least)
		}
	}
	compared := 0
	for _, f := range proofFigures {
		if f.long && *soak == 0 {
			continue
		}
		for i, a := range strategies {
			for j, b := range strategies {
				if !clearly(foretold[i], foretold[j], f.of) {
					continue
				}
				if compared++; f.of(measured[i]) >= f.of(measured[j]) {
					t.Errorf("%s has %.2f %s, %s %.2f", a, f.of(measured[i]), f.name, b, f.of(measured[j]))
				}
			}
		}
	}
	if compared == 0 {
		t.Error("by the simulator no strategy differs clearly from another: there is nothing to compare")
	}
}

// clearly reports whether a is with each seed so much less than b that it is no chance.
func clearly(a, b []proven, of func(proven) float64) bool {
	const noise = 1.3
	for seed := range a {
		if noise*of(a[seed]) >= of(b[seed]) {
			return false
		}
	}
	return true
}

func (p proven) cached() float64 { return p.hits }

// between is the least and the greatest of a figure.
func between(list []proven, of func(proven) float64) (least, most float64) {
	least = math.Inf(1)
	for _, one := range list {
		least, most = min(least, of(one)), max(most, of(one))
	}
	return least, most
}

// show logs what was foretold, from the least to the most, and what was measured.
func (p *proof) show(t *testing.T, strategies []string, foretold [][]proven, measured []proven) {
	t.Helper()
	out := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%d requests at %g times the speed\t\t\t\t\n", p.requests, p.speed)
	fmt.Fprintf(out, "strategy\tsimulated s\tmeasured s\tsimulated hits\tmeasured hits\n")
	for i, name := range strategies {
		sooner, later := between(foretold[i], func(p proven) float64 { return p.ttft })
		fewer, more := between(foretold[i], proven.cached)
		fmt.Fprintf(out, "%s\t%.2f to %.2f\t%.2f\t%.3f to %.3f\t%.3f\n", name, sooner, later, measured[i].ttft, fewer, more, measured[i].hits)
	}
	_ = out.Flush()
}

func proofProfile(t testing.TB) engine.Profile {
	t.Helper()
	i := slices.IndexFunc(engine.Profiles(), func(p engine.Profile) bool { return p.Name == "qwen32b-h100x2" })
	if i < 0 {
		t.Fatal("there is no such profile")
	}
	return engine.Profiles()[i]
}

func (p *proof) source(t *testing.T, seed uint64) workload.Source {
	t.Helper()
	traffic, err := workload.Open(p.workload, p.requests)
	if err != nil {
		t.Fatal(err)
	}
	source, err := traffic.Play(workload.Play{Rate: proofRate * p.speed, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// foretold is what each strategy comes to in the simulation, with one seed after the
// other.
func (p *proof) foretold(t *testing.T, strategies []string) (all [][]proven) {
	t.Helper()
	for _, name := range strategies {
		var seeds []proven
		for seed := range uint64(5) {
			seeds = append(seeds, p.simulated(t, name, seed+1))
		}
		all = append(all, seeds)
	}
	return all
}

func (p *proof) simulated(t *testing.T, name string, seed uint64) proven {
	t.Helper()
	c, err := sim.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	heads := make([]sim.Head, proofHeads)
	for i := range heads {
		heads[i] = sim.Head{Profile: proofProfile(t), Speed: p.speed}
	}
	m, err := sim.Run(t.Context(), sim.Options{Source: p.source(t, seed), Heads: heads, Policy: c.Policy, Seed: seed, Reports: proofReports})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.
	for _, ms := range m.TTFT {
		sum += ms / 1e3
	}
	return proven{sum / float64(len(m.TTFT)) * p.speed, m.HitRate()}
}

// measured is what each strategy comes to on real heads, all at the same speed: the
// greatest that the machine keeps up with.
func (p *proof) measured(t *testing.T, strategies []string) (all []proven) {
	t.Helper()
	for len(all) < len(strategies) {
		is, late := p.played(t, strategies[len(all)])
		t.Logf("%s: requests were sent %v late at %g times the speed", strategies[len(all)], late.Round(time.Microsecond), p.speed)
		// The order of requests is what is played. It is kept while they are late by
		// little of the time between two of them.
		if every := time.Duration(float64(time.Second) / proofRate / p.speed); late > every/4 && p.speed > proofSlowest {
			p.speed /= 2
			all = nil
			continue
		}
		all = append(all, is)
	}
	return all
}

// proofReports is the time between two reports of a head.
const proofReports = time.Second

// played replays the trace in real time, on a process and heads of its own. Requests
// were late by so much on average.
func (p *proof) played(t *testing.T, name string) (is proven, late time.Duration) {
	t.Helper()
	dir := t.TempDir()
	file := dir + "/policy.yaml"
	if err := os.WriteFile(file, []byte("default_strategy: "+name+"\ncaller_may: [session]"), 0o600); err != nil {
		t.Fatal(err)
	}
	service := serve(t, dir, "--policy", file, "--lease-base-interval", proofReports.String())
	defer service.stop()
	leave := service.proofFleet(p.speed)
	defer leave()
	var (
		mu       sync.Mutex
		sum      time.Duration
		in, had  int64
		answered sync.WaitGroup
	)
	source := p.source(t, 1)
	begin := time.Now()
	for {
		a, ok := source.Next()
		if !ok {
			break
		}
		body := proofBody(t, &a)
		due := begin.Add(a.At)
		<-time.After(time.Until(due))
		late += time.Since(due)
		answered.Go(func() {
			first, tokens, cached, err := service.prove(body, a.Session)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			sum, in, had = sum+first, in+tokens, had+cached
		})
	}
	answered.Wait()
	n := float64(p.requests)
	return proven{sum.Seconds() * p.speed / n, float64(had) / float64(max(in, 1))}, time.Duration(float64(late) / n)
}

// proofFleet registers the heads, which report until it is left.
func (p *process) proofFleet(speed float64) (leave func()) {
	router, err := client.New(p.url)
	if err != nil {
		p.Fatal(err)
	}
	ctx, quiet := context.WithCancel(p.Context())
	var agents sync.WaitGroup
	var heads []*mockhead.Head
	for i := range proofHeads {
		h, err := mockhead.Start(ctx, mockhead.Options{Models: []string{"m"}, Profile: proofProfile(p.TB), Speed: speed, StreamInterval: 16})
		if err != nil {
			p.Fatal(err)
		}
		agent, err := h.NewAgent(router, mockhead.Place{ID: fmt.Sprint("head-", i+1), Region: "here"})
		if err != nil {
			p.Fatal(err)
		}
		agents.Go(func() { agent.Run(ctx) })
		heads = append(heads, h)
	}
	for until := time.Now().Add(20 * time.Second); p.metric("active_heads") < proofHeads; {
		if time.Now().After(until) {
			p.Fatal("the heads do not register")
		}
		<-time.After(20 * time.Millisecond)
	}
	return func() {
		quiet()
		agents.Wait()
		for _, h := range heads {
			h.Close()
		}
	}
}

// proofBody is a request of the trace.
func proofBody(t *testing.T, a *workload.Arrival) []byte {
	t.Helper()
	var text []byte
	left := a.Input
	for _, block := range a.Blocks() {
		text = mockhead.AppendText(text, block, 0, min(left, workload.BlockTokens))
		left -= workload.BlockTokens
	}
	body, err := json.Marshal(map[string]any{
		"model": "m", "max_tokens": a.Output, "ignore_eos": true, "stream": true,
		"messages":       []map[string]string{{"role": "user", "content": string(text)}},
		"stream_options": map[string]bool{"include_usage": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// prove sends a request of the trace, and reads its stream.
func (p *process) prove(body []byte, session string) (first time.Duration, tokens, cached int64, err error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPost, p.url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return 0, 0, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if session != "" {
		req.Header.Set("X-Headway-Session", session)
	}
	res, err := (&http.Client{Transport: p.client.Transport}).Do(req)
	if err != nil {
		return 0, 0, 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	var last struct {
		Usage *struct {
			PromptTokens int64 `json:"prompt_tokens"`
			Details      struct {
				CachedTokens int64 `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		} `json:"usage"`
	}
	for lines.Scan() {
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if !is || data == "[DONE]" {
			continue
		}
		if first == 0 && strings.Contains(data, `"content":"`) && !strings.Contains(data, `"content":""`) {
			first = time.Since(began)
		}
		if err := json.Unmarshal([]byte(data), &last); err != nil {
			return 0, 0, 0, fmt.Errorf("%w: %s", err, data)
		}
	}
	if last.Usage == nil || res.StatusCode != http.StatusOK {
		return 0, 0, 0, fmt.Errorf("status %d, first token after %v, no usage: %w", res.StatusCode, first, lines.Err())
	}
	return first, last.Usage.PromptTokens, last.Usage.Details.CachedTokens, nil
}
