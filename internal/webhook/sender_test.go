package webhook_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"headway/api"
	"headway/internal/event"
	"headway/internal/outbound"
	"headway/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = []byte("0123456789abcdef0123456789abcdef")

// world is a sender that talks to what a test says.
type world struct {
	testing.TB
	events  *event.Stream
	metrics *prometheus.Registry
	log     bytes.Buffer
	early   string // type of an event before the sender runs, or ""

	mu     sync.Mutex
	asked  []*request
	text   io.Reader // of answers
	answer func(n int, r *request) (status int, header http.Header, err error)
}

// request is what an endpoint got.
type request struct {
	at     time.Time
	path   string
	header http.Header
	body   []byte
	gone   <-chan struct{} // closed when the sender waits no longer
}

// RoundTrip implements http.RoundTripper.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	got := &request{time.Now(), r.URL.Path, r.Header, body, r.Context().Done()}
	w.mu.Lock()
	w.asked = append(w.asked, got)
	n := len(w.asked)
	w.mu.Unlock()
	status, header, err := w.answer(n, got)
	if w.text == nil {
		w.text = strings.NewReader("")
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(w.text), Request: r}, nil
}

func always(status int) func(int, *request) (int, http.Header, error) {
	return func(int, *request) (int, http.Header, error) { return status, http.Header{}, nil }
}

// run runs a sender for the endpoints until the function it returns is called.
func (w *world) run(t testing.TB, o webhook.Options, endpoints ...webhook.Endpoint) (stop func()) {
	t.Helper()
	w.TB, w.metrics = t, prometheus.NewRegistry()
	w.events = event.New(w.metrics)
	o.Endpoints, o.Events, o.Metrics, o.Instance = endpoints, w.events, w.metrics, "test"
	o.Log = slog.New(slog.NewTextHandler(&w.log, nil))
	o.Count = outbound.NewCalls(w.metrics).Webhook
	if w.answer != nil {
		o.Transport = w
	}
	s, err := webhook.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	if w.early != "" {
		w.events.Publish(event.Event{Type: w.early})
	}
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

func (w *world) requests() []*request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*request(nil), w.asked...)
}

// value is a metric's value of the series with the label's value.
func (w *world) value(name, label string) float64 {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return -1
}

// calls are the attempts that were counted.
func (w *world) calls() (success, failed int) {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := m.GetLabel()
			switch {
			case f.GetName() != "external_service_calls_total" || l[0].GetValue() != "webhook":
			case l[1].GetValue() == "success":
				success = int(m.GetCounter().GetValue())
			default:
				failed = int(m.GetCounter().GetValue())
			}
		}
	}
	return success, failed
}

func endpoint(types ...string) webhook.Endpoint {
	return webhook.Endpoint{Name: "pager", URL: "http://pager.example/hook", Secret: secret, Types: types}
}

// verify is the signature of Standard Webhooks, written from its specification.
func verify(r *request) error {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.%s", r.header.Get("webhook-id"), r.header.Get("webhook-timestamp"), r.body)
	version, text, _ := strings.Cut(r.header.Get("webhook-signature"), ",")
	given, err := base64.StdEncoding.DecodeString(text)
	if err != nil || version != "v1" || !hmac.Equal(given, mac.Sum(nil)) {
		return errors.New("the signature is wrong")
	}
	seconds, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
	if err != nil || r.at.Sub(time.Unix(seconds, 0)).Abs() > time.Minute {
		return errors.New("the time is wrong")
	}
	return nil
}

func TestAnEventIsSentSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: always(204)}
		stop := w.run(t, webhook.Options{}, endpoint("head.*", "policy.changed"))
		synctest.Wait()
		w.events.Publish(event.Event{Type: event.HeadExpired, Time: time.Now(), Head: "gpu-1", Region: "eu", ModelTypes: []string{"llama"}, Data: map[string]int{"epoch": 3}})
		w.events.Publish(event.Event{Type: event.GuardTripped, Time: time.Now()})
		synctest.Wait()
		got := w.requests()
		if len(got) != 1 {
			t.Fatalf("%d requests", len(got))
		}
		r := got[0]
		var body struct {
			Type      string    `json:"type"`
			Timestamp time.Time `json:"timestamp"`
			Data      api.Event `json:"data"`
		}
		if err := json.Unmarshal(r.body, &body, json.RejectUnknownMembers(true)); err != nil {
			t.Fatal(err)
		}
		if err := verify(r); err != nil {
			t.Error(err)
		}
		if body.Type != "head.expired" || !body.Timestamp.Equal(time.Now()) || body.Data.Head != "gpu-1" || body.Data.ID != "test-1" || string(body.Data.Data) != `{"epoch":3}` ||
			r.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(r.header.Get("webhook-id"), "msg_") || r.path != "/hook" {
			t.Errorf("%s %v", r.body, r.header)
		}
		stop()
		if success, failed := w.calls(); success != 1 || failed != 0 || w.value("headway_webhook_messages_total", "delivered") != 1 {
			t.Errorf("counted %d and %d", success, failed)
		}
	})
}

// What fails is tried again, later each time, as the same message.
func TestAFailureIsRepeatedWithLongerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(n int, _ *request) (int, http.Header, error) {
			switch n {
			case 1:
				return 0, nil, errors.New("connection refused")
			case 2:
				return 500, http.Header{}, nil
			case 3:
				return 429, http.Header{"Retry-After": {"60"}}, nil
			}
			return 200, http.Header{}, nil
		}}
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		w.events.Publish(event.Event{Type: event.HeadExpired})
		w.events.Publish(event.Event{Type: event.HeadRemoved})
		<-time.After(10 * time.Minute)
		synctest.Wait()
		got := w.requests()
		if len(got) != 5 {
			t.Fatalf("%d requests", len(got))
		}
		for i, r := range got[:4] {
			if err := verify(r); err != nil || r.header.Get("webhook-id") != got[0].header.Get("webhook-id") || !bytes.Contains(r.body, []byte("head.expired")) {
				t.Errorf("attempt %d: %v %s", i+1, err, r.body)
			}
		}
		if first, second := got[1].at.Sub(got[0].at), got[2].at.Sub(got[1].at); first > time.Second || second > 2*time.Second {
			t.Errorf("waited %s and %s", first, second)
		}
		if asked := got[3].at.Sub(got[2].at); asked < 60*time.Second {
			t.Errorf("waited %s; the endpoint asked for 60 s", asked)
		}
		if !bytes.Contains(got[4].body, []byte("head.removed")) {
			t.Errorf("the next is %s", got[4].body)
		}
		stop()
		if success, failed := w.calls(); failed != 3 || success != 2 {
			t.Errorf("counted %d and %d", success, failed)
		}
	})
}

func TestAMessageIsGivenUpAfterAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: always(503)}
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		w.events.Publish(event.Event{Type: event.HeadExpired})
		synctest.Wait()
		if n := w.value("headway_webhook_waiting", "pager"); n != 1 {
			t.Errorf("%v wait while it is tried again", n)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if n := w.value("headway_webhook_waiting", "pager"); n != 0 {
			t.Errorf("%v wait at the end", n)
		}
		if n := len(w.requests()); n != 8 || w.value("headway_webhook_messages_total", "given_up") != 1 {
			t.Errorf("%d attempts, %v given up", n, w.value("headway_webhook_messages_total", "given_up"))
		}
		stop()
	})
}

func TestWhatIsRefusedIsNotRepeated(t *testing.T) {
	for _, status := range []int{301, 302, 307, 400, 401, 404, 422} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{answer: func(int, *request) (int, http.Header, error) {
				return status, http.Header{"Location": {"http://169.254.169.254/"}}, nil
			}}
			stop := w.run(t, webhook.Options{}, endpoint())
			synctest.Wait()
			w.events.Publish(event.Event{Type: event.HeadExpired})
			<-time.After(time.Hour)
			if n := len(w.requests()); n != 1 {
				t.Errorf("%d: %d attempts", status, n)
			}
			stop()
		})
	}
}

func TestAnEndpointThatIsGoneIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: always(410)}
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		for range 5 {
			w.events.Publish(event.Event{Type: event.HeadExpired})
			<-time.After(time.Minute)
		}
		if n := len(w.requests()); n != 1 {
			t.Errorf("%d attempts", n)
		}
		stop()
	})
}

// After five failures in a row the breaker opens: one attempt each 30 s at most.
func TestTheBreakerLeavesAFailingEndpointAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: always(400)} // given up at once, so that only the breaker spaces them
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		for range 20 {
			w.events.Publish(event.Event{Type: event.HeadExpired})
		}
		synctest.Wait()
		if n := len(w.requests()); n != 5 || w.value("headway_webhook_breaker_open", "pager") != 1 || w.value("headway_webhook_waiting", "pager") != 15 { // 14 behind the one that is held
			t.Errorf("%d attempts, breaker %v, %v wait", n, w.value("headway_webhook_breaker_open", "pager"), w.value("headway_webhook_waiting", "pager"))
		}
		<-time.After(61 * time.Second)
		synctest.Wait()
		if n := len(w.requests()); n != 7 {
			t.Errorf("%d attempts after a minute", n)
		}
		w.mu.Lock()
		w.answer = always(200)
		w.mu.Unlock()
		<-time.After(31 * time.Second)
		synctest.Wait()
		if n := len(w.requests()); n != 20 || w.value("headway_webhook_breaker_open", "pager") != 0 {
			t.Errorf("%d attempts once it works again", n)
		}
		stop()
	})
}

func TestASlowEndpointDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.answer = func(_ int, r *request) (int, http.Header, error) {
			if r.path == "/slow" {
				<-time.After(time.Hour)
			}
			return 200, http.Header{}, nil
		}
		slow := webhook.Endpoint{Name: "slow", URL: "http://slow.example/slow", Secret: secret}
		stop := w.run(t, webhook.Options{}, slow, endpoint())
		synctest.Wait()
		for range 1500 {
			w.events.Publish(event.Event{Type: event.HeadExpired})
			synctest.Wait()
		}
		if n := len(w.requests()); n != 1501 || w.value("headway_webhook_waiting", "slow") != 1001 { // and the one that is being sent
			t.Errorf("%d requests, %v wait", n, w.value("headway_webhook_waiting", "slow"))
		}
		dropped := 0.0
		families, _ := w.metrics.Gather()
		for _, f := range families {
			for _, m := range f.GetMetric() {
				labels := fmt.Sprint(m.GetLabel())
				if f.GetName() == "headway_webhook_messages_total" && strings.Contains(labels, "dropped") {
					dropped += m.GetCounter().GetValue()
				}
			}
		}
		if dropped != 499 {
			t.Errorf("%v dropped", dropped)
		}
		<-time.After(2 * time.Hour)
		stop()
	})
}

func TestWhatWaitsIsSentBeforeAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.answer = func(_ int, r *request) (int, http.Header, error) {
			select {
			case <-r.gone:
				return 0, nil, context.Canceled
			case <-time.After(100 * time.Millisecond):
				return 200, http.Header{}, nil
			}
		}
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		for range 10 {
			w.events.Publish(event.Event{Type: event.HeadExpired})
		}
		synctest.Wait()
		stop()
		if n := len(w.requests()); n != 10 || w.value("headway_webhook_messages_total", "delivered") != 10 {
			t.Errorf("%d were sent, %v arrived", n, w.value("headway_webhook_messages_total", "delivered"))
		}
	})
}

func TestAStopDoesNotWaitForAnEndpointThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: always(503)}
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		for range 100 {
			w.events.Publish(event.Event{Type: event.HeadExpired})
		}
		synctest.Wait()
		begin := time.Now()
		stop()
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("the stop took %s", took)
		}
	})
}

// A forbidden address is not called under any name: the check is
// where the connection is made.
func TestForbiddenAddressesAreNotCalled(t *testing.T) {
	called := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case called <- struct{}{}:
		default:
		}
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	}))
	defer server.Close()
	w := &world{}
	stop := w.run(t, webhook.Options{},
		webhook.Endpoint{Name: "metadata", URL: "http://169.254.169.254/", Secret: secret},
		webhook.Endpoint{Name: "redirects", URL: server.URL, Secret: secret})
	defer stop()
	for limit := time.Now().Add(20 * time.Second); w.value("headway_webhook_messages_total", "given_up") < 1 && time.Now().Before(limit); {
		w.events.Publish(event.Event{Type: event.HeadExpired})
		<-time.After(20 * time.Millisecond)
	}
	<-called
	stop()
	if text := w.log.String(); !strings.Contains(text, "link-local address; webhooks.allow_link_local allows it") || strings.Contains(text, server.URL) {
		t.Errorf("the log says %s", text)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// No fault of the file repeats a possible secret.
func TestTheFileRepeatsNoSecret(t *testing.T) {
	const hidden = "hunter2"
	dir := t.TempDir()
	good := "whsec_" + base64.StdEncoding.EncodeToString(secret)
	write(t, dir, "secret", good)
	write(t, dir, "wrong", "whsec_"+hidden)
	write(t, dir, "bare", hidden)
	for _, text := range []string{
		"{name: a, url: 'https://u:hunter2@h/', secret_file: secret}", "{name: a, url: 'https://hunter2@h/', secret_file: secret}",
		"{name: a, url: 'htp://h/hunter2', secret_file: secret}", "{name: a, url: 'https://h:hunter2/', secret_file: secret}",
		"{name: a, url: 'https://h/#hunter2', secret_file: secret}", "{name: a, url: {a: hunter2}, secret_file: secret}",
		"{name: a, url: *hunter2, secret_file: secret}", "{name: a, url: !hunter2 x, secret_file: secret}", "{name: a, url: &hunter2 [x], secret_file: secret}",
		"{name: a, url: 'https://h/hunter2', secret_file: wrong}", "{name: a, url: 'https://h/hunter2', secret_file: bare}",
		"{name: a, url: 'https://h/hunter2', secret_file: whsec_hunter2}", "{name: a, url: 'https://h/hunter2'}",
		"{name: a, url: 'http://169.254.169.254/hunter2', secret_file: secret}", "{name: a, url: 'https://h/hunter2', secret_file: [hunter2]}",
	} {
		_, err := webhook.Read(write(t, dir, "hooks.yaml", "endpoints: ["+text+"]"), false)
		if err == nil || strings.Contains(err.Error(), hidden) || strings.Contains(err.Error(), good[6:]) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTheFileIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	good := "whsec_" + base64.StdEncoding.EncodeToString(secret)
	write(t, dir, "secret", good+"\n")
	write(t, dir, "short", "whsec_AAAA")
	path := write(t, dir, "hooks.yaml", "endpoints:\n- {name: pager, url: 'https://pager.example/x?y=1', secret_file: secret, types: [head.expired, policy.*]}\n- {name: chat, url: 'http://10.0.0.1:9/', secret_file: secret}\n")
	list, err := webhook.Read(path, false)
	if err != nil || len(list) != 2 || list[0].Name != "pager" || !bytes.Equal(list[0].Secret, secret) || len(list[0].Types) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	old := write(t, dir, "old.yaml", "endpoints:\n- &base {name: 7, url: !!str http://a.example, secret_file: secret, types: &few [head.expired]}\n- {<<: *base, name: !mine chat}\n- {name: true, <<: [{types: *few}, *base], url: 'http://b.example'}\n")
	list, err = webhook.Read(old, false) // as earlier versions read it
	if err != nil || len(list) != 3 {
		t.Fatalf("aliases, merge keys, tags and a number for a name: %+v, %v", list, err)
	}
	for i, want := range []string{"7 http://a.example [head.expired]", "chat http://a.example [head.expired]", "true http://b.example [head.expired]"} {
		if e := list[i]; fmt.Sprint(e.Name, " ", e.URL, " ", e.Types) != want || !bytes.Equal(e.Secret, secret) {
			t.Errorf("endpoint %d is %+v, want %s", i, e, want)
		}
	}
	bomb := "a: &a0 [x]\n"
	for i := range 40 {
		bomb += fmt.Sprintf("b%d: &a%d [*a%d, *a%d]\n", i, i+1, i, i)
	}
	for text, want := range map[string]string{bomb: "too large", "endpoints: &a [*a]": "too large"} {
		if _, err := webhook.Read(write(t, dir, "bomb.yaml", text), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("aliases of aliases: %v", err)
		}
	}
	if empty, err := webhook.Read(write(t, dir, "empty.yaml", ""), false); err != nil || len(empty) != 0 {
		t.Errorf("an empty file: %v, %v", empty, err)
	}
	const ok = "name: a, url: 'http://a.example', secret_file: secret"
	for text, want := range map[string]string{
		"endpoints: [{url: 'http://a.example', secret_file: secret}]":            "/endpoints/0/name",
		"endpoints: [{name: A B, url: 'http://a.example', secret_file: secret}]": "/endpoints/0/name",
		"endpoints: [{" + ok + "}, {" + ok + "}]":                                `/endpoints/1/name: line 1: "a" is there twice`,
		"endpoints: [{name: a, secret_file: secret}]":                            "/endpoints/0/url: line 1: is required",
		"endpoints: [{name: a, url: 'ftp://a', secret_file: secret}]":            "/endpoints/0/url",
		"endpoints: [{name: a, url: 'http://u:p@a', secret_file: secret}]":       "must not carry a user name or password",
		"endpoints: [{name: a, url: 'http://169.254.169.254/', secret_file: s}]": "webhooks.allow_link_local allows it",
		"endpoints: [{name: a, url: 'http://[::a9fe:a9fe]/', secret_file: s}]":   "webhooks.allow_link_local allows it",
		"endpoints: [{name: a, url: 'http://0xa9fea9fe/', secret_file: s}]":      "neither a name nor an address",
		"endpoints: [{name: a, url: 'http://a.example'}]":                        "/endpoints/0/secret_file: line 1: is required",
		"endpoints: [{name: a, url: 'http://a.example', secret_file: nowhere}]":  "/endpoints/0/secret_file",
		"endpoints: [{name: a, url: 'http://a.example', secret_file: short}]":    "24 to 64 bytes in base64",
		"endpoints: [{" + ok + ", types: [dance]}]":                              `unknown event "dance"; allowed are head.registered, `,
		"endpoints: [{" + ok + ", types: [head.unroutabel]}]":                    `did you mean "head.unroutable"? allowed are `,
		"endpoints: [{" + ok + ", colour: red}]":                                 `line 1: unknown field "colour"; allowed are name, secret_file, types, url`,
		"endpoints: [{" + ok + ", typs: [a]}]":                                   `line 1: unknown field "typs"; did you mean "types"?`,
		"endpoint: []":                                                           `unknown field "endpoint"; did you mean "endpoints"?`,
		"endpoints: [a]":                                                         "line 1: want an object, not a string",
		"endpoints: {name: 7}":                                                   "line 1: want an array, not an object",
		"endpoints: {":                                                           "webhooks.file",
	} {
		if _, err := webhook.Read(write(t, dir, "bad.yaml", text), false); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), good[6:]) || strings.Contains(err.Error(), "struct") {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
	if _, err := webhook.Read(filepath.Join(dir, "missing"), false); err == nil {
		t.Error("a file that is not there is read")
	}
}
