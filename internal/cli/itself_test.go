package cli

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"headway/internal/freeport"
)

// lines keeps what a command prints while it runs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// await waits until a line has each of the texts.
func (l *lines) await(t *testing.T, texts ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		l.mu.Lock()
		all := l.b.String()
		l.mu.Unlock()
		for line := range strings.Lines(all) {
			found := true
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no line has %q:\n%s", texts, all)
		}
	}
}

// resolver is a DNS server that knows one name, of an address.
func resolver(t *testing.T, record string) string {
	t.Helper()
	packets, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rr, err := dns.NewRR(record)
	if err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: packets, NotifyStartedFunc: func() { close(ready) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg)
		a.SetReply(q)
		if q.Question[0].Qtype == rr.Header().Rrtype && q.Question[0].Name == rr.Header().Name {
			a.Answer = []dns.RR{rr}
		}
		_ = w.WriteMsg(a)
	})}
	go func() { done <- s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-done
	})
	return packets.LocalAddr().String()
}

// begun runs a command until the test ends.
func begun(t *testing.T, args ...string) *lines {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	said, ended := new(lines), make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, testBuild, args, said, said)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return said
}

// The service is no head of itself, by each way to name it as one: by the API, in
// the list of the configuration, by a name that resolves to it, and by an agent.
func TestPitfallP27TheServiceIsNoHeadOfItself(t *testing.T) {
	_, port, _ := net.SplitHostPort(freeport.Address(t))
	own := "http://localhost:" + port
	server := resolver(t, "gpu.test. 5 IN A 127.0.0.1")
	dir := t.TempDir()
	file := filepath.Join(dir, "headway.yaml")
	if err := os.WriteFile(file, []byte(`
listen: 127.0.0.1:`+port+`
data_dir: `+dir+`
redis: {mode: off}
http: {lame_duck: 1ms}
heads: [{id: listed, endpoint: 'http://localhost:`+port+`', engine: openai, model_types: [m]}]
discovery: [{name: gpu.test., port: `+port+`, engine: openai, model_types: [m], server: '`+server+`', interval: 1s}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	service := begun(t, "serve", "--config", file)
	service.await(t, "msg=listening")
	agent := begun(t, "agent", "--engine", "openai", "--url", own, "--id", "by-agent", "--model-type", "m", "--interval", "100ms", "--drain-timeout", "1ms", "--server", own)
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	ask := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, own+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	t.Cleanup(client.CloseIdleConnections)
	for _, endpoint := range []string{own, "http://127.0.0.1:" + port, "https://localhost:" + port} {
		if status, body := ask(http.MethodPost, "/api/v1/heads", `{"id":"by-api","endpoint":"`+endpoint+`","model_types":["m"],"region":"us","status":"active"}`); status != http.StatusUnprocessableEntity || !strings.Contains(body, "itself") {
			t.Errorf("%s: %d %s", endpoint, status, body)
		}
	}
	agent.await(t, "by-agent", "itself")
	service.await(t, "head=listed ", "itself")
	service.await(t, "head=127.0.0.1:"+port+" ", "itself") // that of the name
	if status, body := ask(http.MethodGet, "/api/v1/heads", ""); status != http.StatusOK || !strings.Contains(body, `"data":[]`) {
		t.Errorf("the heads are %d %s", status, body)
	}
	if status, body := ask(http.MethodPost, "/v1/chat/completions", `{"model":"m","messages":[]}`); status != http.StatusNotFound {
		t.Errorf("a request for its model: %d %s", status, body)
	}
}
