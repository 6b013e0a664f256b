package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// The programs that are measured side by side.
const (
	direct  = "direct" // the head itself
	base    = "reverseproxy"
	pooled  = "reverseproxy-pooled" // with a BufferPool
	headway = "headway"

	// What net/http's server takes by itself, and with the client of heads.
	served  = "net/http"
	relayed = "net/http-relay"
)

// Sizes of the measurements of the data plane.
const (
	clients    = 64  // connections that saturate a proxy
	chunks     = 200 // of a stream
	longPrompt = 400_000
	waves      = 6 // of many long prompts at once, one after the other
)

// scale is how much a section sends; the test of the sections sends little.
type scale struct {
	whole, streams, paced, prompts, many, open int

	pace int // ms between the chunks of streams that stay open, and until answers to many long prompts
}

var full = scale{whole: 20_000, streams: 1200, paced: 400, prompts: 300, many: 1000, open: 2000, pace: 2000}

// dataPlane are the sections of requests that go through the service, which the
// programs here load and measure from outside.
func dataPlane(s scale) []section {
	return append(ownFigures(s), beside(s))
}

func ownFigures(s scale) []section {
	return []section{{
		name: fmt.Sprintf("Data plane: a small completion with an API key over keep-alive, %d connections; base: a tuned httputil.ReverseProxy that does nothing else", clients),
		run: func(ctx context.Context, w *world, got results) error {
			return w.saturated(ctx, got, completion(w.key, 300, ""), s.whole, 1, served, relayed)
		},
		figures: []figure{
			{what: "ReverseProxy: processor time", bench: base, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "ReverseProxy with a BufferPool", bench: pooled, base: base, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "net/http's server answering by itself", bench: served, base: base, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "net/http's server with Headway's client of heads", bench: relayed, base: base, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "Headway: processor time", bench: headway, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "Headway over ReverseProxy", bench: headway, base: base, unit: cpu, scale: 1, shown: "× base", limit: 0.55},
			{what: "Headway over ReverseProxy: requests a second", bench: headway, base: base, unit: rate, scale: 1, shown: "× base"},
		},
	}, {
		name: fmt.Sprintf("Data plane: streams of %d chunks, %d at once; base: the same ReverseProxy", chunks, clients),
		run: func(ctx context.Context, w *world, got results) error {
			return w.saturated(ctx, got, completion(w.key, 300, fmt.Sprintf("chunks=%d", chunks)), s.streams, chunks)
		},
		figures: []figure{
			{what: "ReverseProxy: processor time of a chunk", bench: base, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "ReverseProxy with a BufferPool", bench: pooled, base: base, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "Headway: processor time of a chunk", bench: headway, unit: cpu, scale: 1e-3, shown: "µs"},
			{what: "Headway over ReverseProxy", bench: headway, base: base, unit: cpu, scale: 1, shown: "× base", limit: 1},
		},
	}, {
		name: "Data plane: time to the first byte, one request after the other with a pause of 10 ms; base: the same ReverseProxy",
		run: func(ctx context.Context, w *world, got results) error {
			w.names = append(strings.Split(*programs, ","), served, relayed)
			if err := w.startPeer(ctx, peerOf("nginx")); err != nil {
				return err
			}
			return w.added(ctx, got, s.paced)
		},
		figures: []figure{
			{what: "the head, asked directly, the median", bench: direct, unit: firstByte, scale: 1e-6, shown: "ms"},
			{what: "added by nginx", bench: "nginx", unit: added, scale: 1e-6, shown: "ms", may: true},
			{what: "added by net/http's server answering by itself", bench: served, unit: added, scale: 1e-6, shown: "ms"},
			{what: "added by net/http's server with Headway's client of heads", bench: relayed, unit: added, scale: 1e-6, shown: "ms"},
			{what: "added by ReverseProxy", bench: base, unit: added, scale: 1e-6, shown: "ms"},
			{what: "added by Headway", bench: headway, unit: added, scale: 1e-6, shown: "ms", limit: 0.3},
		},
	}, {
		name: fmt.Sprintf("Data plane: prompts of 100,000 tokens, %d kB; base: the same ReverseProxy", longPrompt/1000),
		run:  func(ctx context.Context, w *world, got results) error { return w.long(ctx, got, &s) },
		figures: []figure{
			{what: "ReverseProxy: processor time", bench: base, unit: cpu, scale: 1e-6, shown: "ms"},
			{what: "Headway: processor time", bench: headway, base: base, unit: cpu, scale: 1e-6, shown: "ms", limit: 5},
			{what: fmt.Sprintf("Headway: the most memory with %d at once, %d times", s.many, waves), bench: headway, unit: peak, scale: 1, shown: "MiB", limit: 512},
		},
	}, {
		name: fmt.Sprintf("Data plane: %d streams at once, a chunk every 2 s", s.open),
		run:  func(ctx context.Context, w *world, got results) error { return w.opened(ctx, got, &s) },
		figures: []figure{
			{what: "ReverseProxy: memory of one", bench: base, unit: each, scale: 1, shown: "KiB"},
			{what: "Headway: memory of one", bench: headway, unit: each, scale: 1, shown: "KiB", limit: 40},
		},
	}}
}

// Units of the measurements.
const (
	cpu       = "cpu-ns/request"
	rate      = "requests/s"
	firstByte = "ns/first"
	added     = "ns/added"
	peak      = "MiB"
	each      = "KiB/stream"
)

var (
	binary   = flag.String("binary", "", "the service's program; without one it is built")
	programs = flag.String("programs", strings.Join([]string{base, pooled, headway}, ","), "what is measured side by side in the sections of the data plane")
)

// world is a mock head with the base and the service before it.
type world struct {
	parts map[string]*process // by the name of the program
	names []string            // of those that are measured
	key   string
	dir   string

	profile string // of the service, where it is written; "": none is
}

func (r results) add(bench, unit string, v float64) {
	if r[bench] == nil {
		r[bench] = map[string][]float64{}
	}
	r[bench][unit] = append(r[bench][unit], v)
}

func newWorld(ctx context.Context) (*world, error) {
	w := &world{parts: map[string]*process{}, names: strings.Split(*programs, ",")}
	if err := w.start(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) start(ctx context.Context) (err error) {
	if w.dir, err = os.MkdirTemp("", "headway-bench-"); err != nil {
		return err
	}
	if w.parts[direct], err = startSelf(ctx, as, "head"); err != nil {
		return err
	}
	for _, name := range []string{base, pooled, served, relayed} {
		if w.parts[name], err = startSelf(ctx, as, name, "-target", w.parts[direct].addr); err != nil {
			return err
		}
	}
	program, err := w.service(ctx)
	if err != nil {
		return err
	}
	p, err := startHeadway(ctx, program, w.dir, "--lease-base-interval", "1h", "--lease-remove-after", "10h", "--redis-mode", "off")
	if err != nil {
		return err
	}
	w.parts[headway] = p
	if err := w.must(ctx, "/api/v1/heads", `{"id":"h","endpoint":"http://`+w.parts[direct].addr+`","model_type":"m","region":"us","engine":"vllm","status":"active"}`, nil); err != nil {
		return err
	}
	var key struct{ Secret string }
	if err := w.must(ctx, "/api/v1/keys", `{"name":"bench","role":"admin"}`, &key); err != nil {
		return err
	}
	w.key = key.Secret
	return nil
}

// service is the command that the service is started by.
func (w *world) service(ctx context.Context) ([]string, error) {
	switch {
	case w.profile != "":
		self, err := os.Executable()
		return []string{self, as, serviceAs, "-target", w.profile}, err
	case *binary != "":
		return []string{*binary}, nil
	}
	program, err := build(ctx, w.dir)
	return []string{program}, err
}

func (w *world) close() {
	for _, p := range w.parts {
		if p != nil {
			p.stop()
		}
	}
	_ = os.RemoveAll(w.dir)
}

// must posts to the service while it is open.
func (w *world) must(ctx context.Context, path, body string, to any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.parts[headway].addr+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: time.Minute}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusCreated {
		return errors.Join(err, fmt.Errorf("POST %s: %s: %s", path, res.Status, raw))
	}
	if to == nil {
		return nil
	}
	return json.Unmarshal(raw, to)
}

// saturated measures the processor time of each request, or of each part of it.
// The programs are measured in turn, in short slices, of which the medians count:
// what else the machine does then disturbs all of them. Beside are programs that are
// measured in this section alone.
func (w *world) saturated(ctx context.Context, got results, request []byte, total, parts int, beside ...string) error {
	const slicesOfRound = 12
	names := append(slices.Clone(w.names), beside...)
	n := max(total/slicesOfRound, 1)
	crowds, slice := map[string]crowd{}, results{}
	defer func() {
		for _, c := range crowds {
			c.close()
		}
	}()
	for _, name := range names {
		c, err := gather(ctx, w.parts[name].addr, clients)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		crowds[name] = c
	}
	for turn := range slicesOfRound + 1 {
		for i := range names {
			name := names[(i+turn)%len(names)]
			p := w.parts[name]
			n := max(n/slowness(name), 1)
			before := p.cpu()
			took, err := crowds[name].saturate(ctx, request, n)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if turn > 0 { // the first one warms up
				slice.add(name, cpu, float64((p.cpu()-before).Nanoseconds())/float64(n*parts))
				slice.add(name, rate, float64(n)/took.Seconds())
			}
		}
	}
	for _, name := range names {
		got.add(name, cpu, median(slice[name][cpu]))
		got.add(name, rate, median(slice[name][rate]))
	}
	return nil
}

// added measures the median time to the first byte, over that of the head alone.
func (w *world) added(ctx context.Context, got results, n int) error {
	request := completion(w.key, 300, "chunks=2")
	times := map[string][]float64{}
	names := append([]string{direct}, w.names...)
	for range 4 {
		for _, name := range names {
			slice, err := pace(ctx, w.parts[name].addr, request, n/4, 10*time.Millisecond)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			times[name] = append(times[name], slice...)
		}
	}
	got.add(direct, firstByte, median(times[direct]))
	for _, name := range w.names {
		got.add(name, added, median(times[name])-median(times[direct]))
	}
	return nil
}

// long measures long prompts: the memory that waves of many at once take of a service
// that has just started, and the processor time of each.
func (w *world) long(ctx context.Context, got results, s *scale) error {
	if len(got[headway][peak]) == 0 {
		crowd, err := gather(ctx, w.parts[headway].addr, s.many)
		if err != nil {
			return err
		}
		defer crowd.close()
		for range waves {
			if err := crowd.together(completion(w.key, longPrompt, fmt.Sprintf("wait=%d", s.pace)), nil); err != nil {
				return err
			}
		}
		kib, err := w.parts[headway].memory("VmHWM")
		if err != nil {
			return err
		}
		got.add(headway, peak, float64(kib)/1024)
	}
	return w.saturated(ctx, got, completion(w.key, longPrompt, ""), s.prompts, 1)
}

// opened measures the memory of a stream that is open.
func (w *world) opened(ctx context.Context, got results, s *scale) error {
	request := completion(w.key, 300, fmt.Sprintf("chunks=4,pace=%d", s.pace))
	for _, name := range w.names {
		p := w.parts[name]
		before, err := p.memory("VmRSS")
		if err != nil {
			return err
		}
		crowd, err := gather(ctx, p.addr, s.open)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		most := 0
		err = crowd.together(request, func() {
			for range 12 { // most of the time that they take
				time.Sleep(time.Duration(s.pace) * time.Millisecond / 4)
				now, _ := p.memory("VmRSS")
				most = max(most, now)
			}
		})
		crowd.close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		got.add(name, each, float64(most-before)/float64(s.open))
	}
	return nil
}

// measured runs the section once in each round.
func (s *section) measured(ctx context.Context, rounds int) (results, error) {
	got := results{}
	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for range rounds {
		if err := s.run(ctx, w, got); err != nil {
			return nil, err
		}
	}
	return got, nil
}
