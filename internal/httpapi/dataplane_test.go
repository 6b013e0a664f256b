package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/internal/engine"
	"headway/internal/fleet"
	"headway/internal/httpapi"
	"headway/internal/mockhead"
	"headway/internal/outbound"
	"headway/internal/proxy"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// plane is a world with a data plane.
type plane struct {
	*world
	url     string
	client  *http.Client
	network *memoryNetwork // nil: that of the machine
}

func newPlane(t testing.TB, change ...func(*proxy.Options)) *plane {
	t.Helper()
	p := &plane{client: planeClient}
	p.world = newWorld(t, func(o *httpapi.Options) {
		heads, err := upstream.New(upstream.Options{
			Metrics: o.Metrics, IdleTimeout: 4 * time.Second, MaxOpen: 1000, MaxOpenPerHead: 500, MaxIdlePerHead: 100,
			Limits: upstream.Limits{Connect: 10 * time.Second, Write: 30 * time.Second, FirstByte: time.Minute, Idle: time.Minute, Total: 10 * time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := heads.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		options := proxy.Options{Router: o.Router, Fleet: o.Fleet, Heads: heads, Metrics: o.Metrics, Calls: outbound.NewCalls(o.Metrics).Head, Log: o.Log, Guard: o.Guard, Audit: o.Audit}
		for _, c := range change {
			c(&options)
		}
		if o.Proxy, err = proxy.New(options); err != nil {
			t.Fatal(err)
		}
	})
	p.url = "http://" + p.listen()
	return p
}

// start starts a mock head of the model m, and registers it.
func (p *plane) start(id string, change ...func(*mockhead.Options)) *mockhead.Head {
	p.Helper()
	o := mockhead.Options{Models: []string{"m"}, Speed: 1000, Record: 100}
	for _, c := range change {
		c(&o)
	}
	h, err := mockhead.Start(p.Context(), o)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(h.Close)
	p.registered(id, h.URL())
	return h
}

// registered registers a head of the model m at an address.
func (p *plane) registered(id, endpoint string) {
	p.Helper()
	_, err := p.fleet.Register(p.Context(), fleet.Spec{ID: id, Endpoint: endpoint, ModelTypes: []string{"m"}, Region: "us"}, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
	if err != nil {
		p.Fatal(err)
	}
}

var planeClient = &http.Client{Timeout: 5 * time.Minute}

// ask sends a request; header are names and values in turn.
func (p *plane) ask(ctx context.Context, path, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return p.client.Do(r)
}

// answer is an answer that was read to its end.
type planeAnswer struct {
	*http.Response
	body []byte
	err  error // of reading it
}

func (p *plane) answer(path, body string, header ...string) planeAnswer {
	p.Helper()
	res, err := p.ask(p.Context(), path, body, header...)
	if err != nil {
		p.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return planeAnswer{res, b, err}
}

const (
	chatPath = "/v1/chat/completions"
	chatBody = `{"model":"m","max_tokens":20,"ignore_eos":true,"messages":[{"role":"user","content":"hello"}]}`
)

var streamBody = strings.Replace(chatBody, `"max_tokens"`, `"stream":true,"max_tokens"`, 1)

// settled waits until no place is taken.
func (p *plane) settled() {
	p.Helper()
	p.eventually("no place is taken", func() bool { return p.router.Open() == 0 })
}

// eventually waits for what happens at another end of a connection.
func (p *plane) eventually(what string, ok func() bool) {
	p.Helper()
	for end := time.Now().Add(time.Minute); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("gave up waiting until %s", what)
		}
	}
}

// decisionOf is the decision that an answer names.
func (p *plane) decisionOf(h http.Header) *routing.Decision {
	p.Helper()
	d, err := p.router.Decision(h.Get("X-Headway-Decision-Id"))
	if err != nil {
		p.Fatalf("the decision %q: %v", h.Get("X-Headway-Decision-Id"), err)
	}
	return d
}

func TestARequestIsAnsweredByAHead(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	a := p.answer(chatPath, chatBody, "Authorization", "Bearer whatever")
	if a.err != nil || a.StatusCode != http.StatusOK || !bytes.Contains(a.body, []byte(`"completion_tokens":20`)) {
		t.Fatalf("%d %s %v", a.StatusCode, a.body, a.err)
	}
	got := head.Received()
	if len(got) != 1 || got[0].SHA256 != sha256.Sum256([]byte(chatBody)) {
		t.Errorf("the head received %d requests, or another body", len(got))
	}
	if bytes.Contains(got[0].Head, []byte("whatever")) {
		t.Errorf("the head saw the caller's credential:\n%s", got[0].Head)
	}
	for name, want := range map[string]string{"X-Headway-Head": "a", "X-Headway-Attempts": "1", "X-Headway-Region": "us"} {
		if v := a.Header.Get(name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	p.settled()
	o, ended := p.decisionOf(a.Header).Outcome()
	if !ended || o.Result != routing.ResultOK || o.OutputTokens != 20 || o.InputTokens <= 0 || o.TTFT <= 0 || !o.Whole {
		t.Errorf("the outcome is %+v, %t", o, ended)
	}
}

func TestAStreamIsPassedOnAsItComes(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	direct, err := planeClient.Post(head.URL()+chatPath, "application/json", strings.NewReader(streamBody))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Body.Close()
	want, err := io.ReadAll(direct.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := p.answer(chatPath, streamBody)
	if a.err != nil || a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != direct.Header.Get("Content-Type") {
		t.Fatalf("%d %v %v", a.StatusCode, a.Header, a.err)
	}
	if got, want := shape(a.body), shape(want); got != want {
		t.Errorf("the stream is\n%s\nand the head's own is\n%s", got, want)
	}
	p.settled()
	o, _ := p.decisionOf(a.Header).Outcome()
	if o.Result != routing.ResultOK || o.TTFT <= 0 || o.TTFT > o.Duration || o.Whole {
		t.Errorf("the outcome is %+v", o)
	}
}

// shape is a stream without what differs each time.
func shape(stream []byte) string {
	var out []string
	s := bufio.NewScanner(bytes.NewReader(stream))
	for s.Scan() {
		line := s.Text()
		if data, ok := strings.CutPrefix(line, "data: {"); ok {
			var v map[string]any
			if json.Unmarshal([]byte("{"+data), &v) == nil {
				delete(v, "id")
				delete(v, "created")
				b, _ := json.Marshal(v)
				line = string(b)
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// What a head does before its first content is tried again at another; the caller
// sees one whole answer.
func TestAnotherHeadAnswersUntilTheFirstContent(t *testing.T) {
	for name, f := range map[string]mockhead.Fault{
		"reset at accept":       {Kind: mockhead.ResetAccept},
		"reset after request":   {Kind: mockhead.ResetRequest},
		"no HTTP":               {Kind: mockhead.Garbage},
		"status 500":            {Kind: mockhead.Status, Status: 500},
		"status 503":            {Kind: mockhead.Status, Status: 503},
		"status 429":            {Kind: mockhead.Status, Status: 429, RetryAfter: "1"},
		"status 401":            {Kind: mockhead.Status, Status: 401},
		"status 499":            {Kind: mockhead.Status, Status: 499},
		"redirect":              {Kind: mockhead.Redirect, Location: "http://127.0.0.1:1/"},
		"reset after headers":   {Kind: mockhead.Reset},
		"reset after role":      {Kind: mockhead.Reset, After: 1},
		"cut after role":        {Kind: mockhead.Cut, After: 1},
		"error event first":     {Kind: mockhead.ErrorEvent},
		"error event after one": {Kind: mockhead.ErrorEvent, After: 1},
		"endless header":        {Kind: mockhead.EndlessHeader},
	} {
		for _, body := range []string{chatBody, streamBody} {
			t.Run(fmt.Sprintf("%s, stream %t", name, body == streamBody), func(t *testing.T) {
				p := newPlane(t)
				bad := p.start("bad")
				if _, err := bad.Inject(f); err != nil {
					t.Fatal(err)
				}
				p.start("good")
				for range 6 { // some of them go to the good one at once
					a := p.answer(chatPath, body)
					if a.err != nil || a.StatusCode != http.StatusOK || bytes.Contains(a.body, []byte("error")) {
						t.Fatalf("%d %v\n%s", a.StatusCode, a.err, a.body)
					}
					if body == streamBody && (!bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n")) || bytes.Count(a.body, []byte(`"role"`)) != 1) {
						t.Fatalf("the stream is not that of one head:\n%s", a.body)
					}
				}
				p.settled()
			})
		}
	}
}

// A head that dies after its first content leaves an error event and a connection
// that is cut, never an end that looks clean.
func TestPitfallP4AStreamThatBreaksNeverLooksComplete(t *testing.T) {
	for _, kind := range []mockhead.Kind{mockhead.Reset, mockhead.Cut, mockhead.ErrorEvent} {
		t.Run(string(kind), func(t *testing.T) {
			p := newPlane(t)
			for _, id := range []string{"a", "b"} {
				if _, err := p.start(id).Inject(mockhead.Fault{Kind: kind, After: 4}); err != nil {
					t.Fatal(err)
				}
			}
			a := p.answer(chatPath, streamBody)
			if a.StatusCode != http.StatusOK || !errors.Is(a.err, io.ErrUnexpectedEOF) || bytes.Contains(a.body, []byte("[DONE]")) {
				t.Errorf("%d, the end is %v:\n%s", a.StatusCode, a.err, a.body)
			}
			if n := bytes.Count(a.body, []byte(`"error"`)); n != 1 || bytes.Count(a.body, []byte(`"role"`)) != 1 {
				t.Errorf("%d error events, or the events of two heads:\n%s", n, a.body)
			}
			p.settled()
			if o, _ := p.decisionOf(a.Header).Outcome(); o.Result != routing.ResultError {
				t.Errorf("the outcome is %+v", o)
			}
		})
	}
}

// A caller that leaves ends the work at the head, streaming or not, and no head is
// blamed.
func TestPitfallP1P2TheCallerLeaves(t *testing.T) {
	for _, body := range []string{chatBody, streamBody} {
		for _, f := range []mockhead.Fault{{Kind: mockhead.StallHeaders}, {Kind: mockhead.Stall, After: 3}} {
			t.Run(fmt.Sprintf("stream %t, %s", body == streamBody, f.Kind), func(t *testing.T) {
				p := newPlane(t)
				head := p.start("a", func(o *mockhead.Options) { o.Profile = engine.Profile{} })
				if _, err := head.Inject(f); err != nil {
					t.Fatal(err)
				}
				ctx, leave := context.WithCancel(t.Context())
				asked := make(chan error, 1)
				go func() {
					res, err := p.ask(ctx, chatPath, body)
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					asked <- err
				}()
				p.eventually("the head has the request", func() bool { return head.Count() > 0 })
				leave()
				if err := <-asked; !errors.Is(err, context.Canceled) {
					t.Errorf("the caller saw %v", err)
				}
				p.settled()
				d := p.router.Recent(routing.RecentQuery{Limit: 1})[0]
				if o, _ := d.Outcome(); o.Result != routing.ResultCancelled {
					t.Errorf("the outcome is %+v", o)
				}
			})
		}
	}
}

// The end of a connection is no end of an object, however long it was.
func TestPitfallP4AnAnswerWithoutALengthThatBreaksNeverLooksComplete(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := ""
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"text\":\""+strings.Repeat("a", 400<<10)+end)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	p := newPlane(t)
	p.registered("a", "http://"+l.Addr().String())
	for _, end = range []string{`"}`, "", `"`} {
		a := p.answer(chatPath, chatBody)
		if whole := end == `"}`; a.StatusCode != http.StatusOK || (a.err == nil) != whole {
			t.Errorf("with %q at its end the answer is %d, %v", end, a.StatusCode, a.err)
		}
		p.settled()
		if o, _ := p.decisionOf(a.Header).Outcome(); (o.Result == routing.ResultOK) != (end == `"}`) {
			t.Errorf("with %q at its end the outcome is %+v", end, o)
		}
	}
}
