package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"headway/api"
	"headway/internal/mockhead"
)

// nameServer answers with the records that are set, or SERVFAIL with none.
func nameServer(t *testing.T) (addr string, set func(records ...string)) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var now []dns.RR
	ready, done := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: packets, NotifyStartedFunc: func() { close(ready) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		a := new(dns.Msg)
		a.SetReply(q)
		for _, rr := range now {
			if h := rr.Header(); h.Rrtype == q.Question[0].Qtype && h.Name == q.Question[0].Name {
				a.Answer = append(a.Answer, rr)
			}
		}
		if len(now) == 0 {
			a.Rcode = dns.RcodeServerFailure
		}
		_ = w.WriteMsg(a)
	})}
	go func() { done <- s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return packets.LocalAddr().String(), func(records ...string) {
		mu.Lock()
		defer mu.Unlock()
		now = nil
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err) // the test's
			}
			now = append(now, rr)
		}
	}
}

// The addresses and services that names of the configuration resolve to are heads:
// they come and go with the records, stay while the server fails, and follow the
// file at SIGHUP. An address that no head may have is none.
func TestNamesOfTheConfigurationAreHeads(t *testing.T) {
	var port string
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} { // of one port
		head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama"}, Addr: net.JoinHostPort(host, cmp.Or(port, "0"))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(head.Close)
		_, port, _ = net.SplitHostPort(strings.TrimPrefix(head.URL(), "http://"))
	}
	server, set := nameServer(t)
	a := func(host string) string { return "gpu.test. 5 IN A " + host }
	srv := "_vllm._tcp.gpu.test. 5 IN SRV 0 0 " + port + " localhost."
	set(a("127.0.0.1"), a("169.254.169.254"), srv)
	dir := t.TempDir()
	file := filepath.Join(dir, "headway.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	named := "discovery:\n- {name: gpu.test., port: " + port + ", engine: vllm, region: eu, server: '" + server + "', interval: 1s}\n"
	write(named)
	p := serve(t, dir, "--config", file)
	heads := func(want ...string) {
		t.Helper()
		eventually(t, time.Minute, strings.Join(want, " "), func() error {
			var list struct{ Data []api.Head }
			if _, body, err := p.do(http.MethodGet, "/api/v1/heads", ""); err != nil || json.Unmarshal(body, &list) != nil {
				return fmt.Errorf("%s %w", body, err)
			}
			var got []string
			for i := range list.Data {
				if h := &list.Data[i]; h.Routable {
					got = append(got, h.ID+" "+h.Region+" "+h.Labels["headway-source"])
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				return fmt.Errorf("heads %q %w", got, errors.ErrUnsupported)
			}
			return nil
		})
	}
	one, two := "127.0.0.1:"+port+" eu dns", "127.0.0.2:"+port+" eu dns"
	heads(one)
	set(a("127.0.0.1"), a("127.0.0.2"), srv)
	heads(one, two)
	set() // the server fails
	failed := `external_service_calls_total{service="dns",status="error"}`
	eventually(t, time.Minute, "lookups fail", func() error {
		if _, body, err := p.do(http.MethodGet, "/metrics", ""); err != nil || strings.Contains(string(body), failed+" 0\n") || !strings.Contains(string(body), `headway_discovered_heads{state="followed"} 2`) {
			return fmt.Errorf("%w %w", err, errors.ErrUnsupported)
		}
		return nil
	})
	heads(one, two)
	set(a("127.0.0.2"), srv)
	heads(two)
	write(named + "- {srv: _vllm._tcp.gpu.test., engine: vllm, region: us, server: '" + server + "', interval: 1s}\n")
	p.signal(syscall.SIGHUP)
	heads(two, "localhost:"+port+" us dns")
	write("discovery: [{name: 127.0.0.1, engine: gpt}, {srv: a b, port: 1, engine: vllm, server: x}, {name: a, srv: b, port: 1, engine: vllm, key_file: /none}]\n")
	p.signal(syscall.SIGHUP)
	p.logs("reload failed", "discovery.0.name", "discovery.0.port", "discovery.0.engine", "discovery.1.srv", "discovery.1.port", "discovery.1.server",
		"discovery.2 ("+file+":1): wants name", "discovery.2.key_file")
	heads(two, "localhost:"+port+" us dns")
	write("discovery: []\n")
	p.signal(syscall.SIGHUP)
	heads()
	p.logs("reloaded", "discovery.listed=0 discovery.added=0 discovery.removed=2 discovery.changed=0")
	p.stop()
}

// An address that left its name between two starts is removed once the name is resolved,
// and not while the server fails.
func TestAnAddressThatLeftItsNameBetweenTwoStarts(t *testing.T) {
	head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(head.Close)
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(head.URL(), "http://"))
	server, set := nameServer(t)
	set("gpu.test. 5 IN A " + host)
	dir := t.TempDir()
	file := filepath.Join(dir, "headway.yaml")
	if err := os.WriteFile(file, []byte("discovery:\n- {name: gpu.test., port: "+port+", engine: vllm, family: ipv4, server: '"+server+"', interval: 1s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, dir, "--config", file)
	p.has(host+":"+port, `"routable":true`)
	p.stop()

	set() // the server fails
	p = serve(t, dir, "--config", file)
	p.logs("the name cannot be resolved")
	p.has(host+":"+port, `"headway-source":"dns"`)
	set("gpu.test. 5 IN A 127.0.0.9")
	p.has(host+":"+port, "")
	p.logs("lists of an earlier start", "heads.removed=1")
	p.stop()
}
