package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"headway/api"
	"headway/client"
	"headway/internal/mockhead"
)

// otlpServer keeps what is posted to it.
type otlpServer struct {
	*httptest.Server
	mu     sync.Mutex
	raw    []byte
	spans  int
	header http.Header
}

func newOTLPServer(t *testing.T) *otlpServer {
	t.Helper()
	s := &otlpServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request := ptraceotlp.NewExportRequest()
		if err := errors.Join(err, request.UnmarshalProto(body)); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.raw, s.header = append(s.raw, body...), r.Header
		s.spans += request.Traces().SpanCount()
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *otlpServer) got() (spans int, raw string, header http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spans, string(s.raw), s.header
}

// No prompt, hash of one or answer is kept anywhere: not in the log at its most talkative,
// the trail, the metrics, decisions and their explanations, events, spans, or any
// file of the data directory; with answers that are whole, streamed, broken off and
// refused.
func TestPitfallS27NoPromptAndNoAnswerIsKept(t *testing.T) {
	const prompt, answer = "marker-of-the-prompt-5b1f", "marker-of-the-answer-77ac"
	otlp := newOTLPServer(t)
	dir := t.TempDir()
	headers := filepath.Join(dir, "otlp")
	write(t, headers, "Authorization: Bearer for-the-collector\nX-Tenant: fleet\n")
	p := serve(t, filepath.Join(dir, "data"), "--log-level", "debug", "--monitor-interval", "1s", "--decisions-explain-share", "1", "--lease-base-interval", "30s", "--eject-enabled=false",
		"--tracing-otlp-endpoint", otlp.URL, "--tracing-otlp-headers-file", headers)
	events := new(lockedText)
	ctx, stop := context.WithCancel(t.Context())
	listening := p.follow(ctx, events)
	var heads []*mockhead.Head
	for i := range 2 {
		h, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"m"}, Speed: 1000})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		heads = append(heads, h)
		p.must(201, "POST", "/api/v1/heads", fmt.Sprintf(`{"id":"h%d","endpoint":%q,"model_types":["m"],"region":"eu","engine":"vllm","status":"active","load":{"in_flight":0}}`, i, h.URL()))
	}
	said := new(lockedText)
	ask := func(path, body string) {
		t.Helper()
		status, text, err := p.do("POST", path, body)
		if err != nil && status == 0 {
			t.Fatal(err)
		}
		if strings.Contains(string(text), answer) {
			said.add("the answer came")
		}
	}
	long := strings.Repeat(prompt+" ", 50)
	var hashed api.DecisionRequest
	client.HashText(&hashed, long)
	bodies := []string{
		`{"model":"m","messages":[{"role":"user","content":"` + long + `"}],"user":"u","max_tokens":5}`,
		`{"model":"m","stream":true,"messages":[{"role":"user","content":"` + long + `"}],"max_tokens":5}`,
		`{"model":"nobody-has-this","messages":[{"role":"user","content":"` + long + `"}]}`,
		`{"model":"m","messages":[{"role":"user","content":"` + long + `"}],"model":"m"}`,
		`{"model":"m","messages":[{"role":"user","content":"` + long,
	}
	faults := []mockhead.Fault{
		{},
		{Kind: mockhead.Status, Status: 500, Body: `{"error":{"message":"` + answer + `"}}`},
		{Kind: mockhead.Status, Status: 400, Body: `{"error":{"message":"` + answer + `"}}`},
		{Kind: mockhead.ErrorEvent, After: 2, Body: `{"message":"` + answer + `"}`},
		{Kind: mockhead.Reset, After: 3},
		{Kind: mockhead.Garbage, Body: answer + "\r\n\r\n"},
	}
	for _, f := range faults {
		var injected []*mockhead.Injection
		for _, h := range heads {
			if f.Kind == "" {
				continue
			}
			i, err := h.Inject(f)
			if err != nil {
				t.Fatal(err)
			}
			injected = append(injected, i)
		}
		for _, body := range bodies {
			ask("/v1/chat/completions", body)
		}
		ask("/v1/embeddings", `{"model":"m","input":["`+prompt+`"]}`)
		ask("/v1/messages", `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"`+long+`"}]}`)
		ask("/v1/completions", `{"model":"m","max_tokens":5,"prompt":"`+long+`"}`)
		for _, i := range injected {
			i.Remove()
		}
	}
	for _, body := range []string{
		`{"model_type":"m","explain":true,"session_id":"s","turn":2,"prompt":"` + long + `"}`,
		`{"model_type":"m","explain":true,"prefix_hashes":["` + strings.Join(hashed.PrefixHashes, `","`) + `"]}`,
		`{"model_type":"none","prompt":"` + long + `"}`,
		`{"model_type":"m","turn":-1,"prompt":"` + long + `"}`,
		`{"model_type":"m","prompt":["` + long + `"]}`,
		`{"model_type":"m","prompt":"` + long,
	} {
		_, text, err := p.do("POST", "/api/v1/decisions", body)
		if err != nil {
			t.Fatal(err)
		}
		said.add(string(text))
	}
	if !strings.Contains(said.String(), "the answer came") {
		t.Error("no answer had the marker, so that this test proves nothing of answers")
	}
	eventually(t, patience, "calls of the collector are counted", func() error {
		if strings.Contains(string(p.must(200, "GET", "/metrics", "")), `external_service_calls_total{service="otlp",status="success"} 0`) {
			return errors.New("none")
		}
		return nil
	})
	for _, path := range []string{
		"/metrics", "/api/v1/decisions?limit=1000", "/api/v1/decisions?limit=1000&explain=true", "/api/v1/heads", "/api/v1/heads/h0", "/api/v1/audit", "/api/v1/strategies",
		"/prometheus/api/v1/series?match[]={__name__=~%22.%2B%22}", "/api/v1/state/export", "/v1/models", "/api/v1/decision-log",
	} {
		_, text, err := p.do("GET", path, "")
		if err != nil {
			t.Fatal(err)
		}
		said.add(path + "\n" + string(text))
		if id := strings.Index(string(text), `"dec_`); id >= 0 && strings.HasPrefix(path, "/api/v1/decisions") {
			one := string(text[id+1:])
			one, _, _ = strings.Cut(one, `"`)
			said.add(string(p.must(200, "GET", "/api/v1/decisions/"+one, "")))
		}
	}
	for _, args := range [][]string{{"status"}, {"doctor"}, {"audit", "search"}, {"heads", "list", "-o", "wide"}, {"decisions", "worst", "--json"}, {"decisions", "export"}} {
		_, stdout, stderr := here(t, append(args, "--data-dir", p.dataDir)...)
		said.add(stdout + stderr)
	}
	stop()
	<-listening
	p.stop()
	for line := range p.lines {
		said.add(line)
	}
	spans, raw, header := otlp.got()
	if spans == 0 || header.Get("Authorization") != "Bearer for-the-collector" || header.Get("X-Tenant") != "fleet" {
		t.Errorf("%d spans with the header %v", spans, header)
	}
	places := map[string]string{"an answer, the log or a command": said.String(), "the spans": raw, "the events": events.String()}
	err := filepath.WalkDir(p.dataDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		places[path] = string(content)
		if unpacked, ok := strings.CutSuffix(path, ".gz"); ok {
			in, err := gzip.NewReader(bytes.NewReader(content))
			if err != nil {
				return err
			}
			if content, err = io.ReadAll(in); err != nil || !bytes.Contains(content, []byte(`"decision_id"`)) {
				t.Errorf("%s has no decision, so that this test proves nothing of it: %v", path, err)
			}
			places[unpacked] = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(places) < 7 {
		t.Errorf("only %d places were searched", len(places))
	}
	for place, text := range places {
		for _, marker := range append(hashed.PrefixHashes, prompt, answer, "bWFya2VyLW9mLXRoZS1wcm9tcHQ", "for-the-collector") {
			if i := strings.Index(text, marker); i >= 0 {
				t.Errorf("%s has %q: %s", place, marker, text[max(i-200, 0):min(i+100, len(text))])
			}
		}
	}
	if !strings.Contains(raw, "headway.time_to_first_token_ms") {
		t.Error("no span has the time to the first token")
	}
}

// lockedText is text that several goroutines add to.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.WriteString(s + "\n")
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// follow reads events until ctx ends.
func (p *process) follow(ctx context.Context, to *lockedText) <-chan struct{} {
	p.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/events", http.NoBody)
	if err != nil {
		p.Fatal(err)
	}
	res, err := (&http.Client{Transport: p.client.Transport}).Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		p.Fatalf("events: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer res.Body.Close()
		b := make([]byte, 4096)
		for {
			n, err := res.Body.Read(b)
			to.add(string(b[:n]))
			if err != nil {
				return
			}
		}
	}()
	return ended
}
