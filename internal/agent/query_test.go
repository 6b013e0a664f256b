package agent

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/outbound"
)

// nameServer is a DNS server over UDP and TCP.
type nameServer struct {
	addr string

	mu      sync.Mutex
	records map[string][]string // by "TYPE name.", in the form of a zone file
	fails   map[string]int      // code of the answer, by "TYPE name."
	overTCP int
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	s := &nameServer{records: map[string][]string{}, fails: map[string]int{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	packets, err := net.ListenPacket("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after both are shut down
	for _, d := range []*dns.Server{{Listener: listener}, {PacketConn: packets}} {
		ready := make(chan struct{})
		d.Handler, d.NotifyStartedFunc = s, func() { close(ready) }
		serving.Go(func() {
			if err := d.ActivateAndServe(); err != nil {
				t.Error(err)
			}
		})
		<-ready
		t.Cleanup(func() {
			if err := d.Shutdown(); err != nil {
				t.Error(err)
			}
		})
	}
	return s
}

// ServeDNS implements dns.Handler.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := new(dns.Msg)
	a.SetReply(q)
	key := dns.TypeToString[q.Question[0].Qtype] + " " + strings.ToLower(q.Question[0].Name)
	for _, text := range s.records[key] {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err) // the test's
		}
		a.Answer = append(a.Answer, rr)
	}
	known := slices.ContainsFunc([]string{"A ", "AAAA ", "SRV "}, func(kind string) bool { return s.records[kind+strings.ToLower(q.Question[0].Name)] != nil })
	if !known {
		a.Rcode = dns.RcodeNameError
	}
	if code := s.fails[key]; code != 0 {
		a.Rcode, a.Answer = code, nil
	}
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		a.Truncate(size)
	} else {
		s.overTCP++
	}
	_ = w.WriteMsg(a)
}

// add adds a record in the form of a zone file.
func (s *nameServer) add(kind, name, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := kind + " " + name
	s.records[key] = append(s.records[key], fmt.Sprintf("%s 5 IN %s %s", name, kind, data))
}

func (s *nameServer) fail(kind, name string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[kind+" "+name] = code
}

// The answers of a real server are read: addresses of both kinds with the port,
// SRV records with theirs, more of them than a datagram holds.
func TestADNSServerIsAsked(t *testing.T) {
	s := newNameServer(t)
	s.add("A", "gpu.test.", "10.0.0.2")
	s.add("A", "gpu.test.", "10.0.0.1")
	s.add("AAAA", "gpu.test.", "fd00::1")
	s.add("AAAA", "gpu.test.", "::ffff:10.0.0.1")
	s.add("A", "four.test.", "10.0.0.1")
	for i := range 500 {
		s.add("A", "many.test.", fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	s.add("SRV", "_http._tcp.gpu.test.", "10 5 8001 b.gpu.test.")
	s.add("SRV", "_http._tcp.gpu.test.", "0 0 8000 A.gpu.test.")
	s.add("SRV", "_http._tcp.none.test.", "0 0 0 .")
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Host: "gpu.test.", Port: 8000, Family: "ip"}, "10.0.0.1:8000 10.0.0.2:8000 [fd00::1]:8000"},
		{Query{Host: "gpu.test.", Port: 8000, Family: "ip4"}, "10.0.0.1:8000 10.0.0.2:8000"},
		{Query{Host: "four.test.", Port: 1, Family: "ip"}, "10.0.0.1:1"},
		{Query{Service: "_http._tcp.gpu.test."}, "a.gpu.test:8000 b.gpu.test:8001"},
		{Query{Service: "_http._tcp.none.test."}, ""},
	} {
		c.q.Server = s.addr
		if got, err := c.q.Lookup(t.Context()); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v %v, want %s", c.q, got, err, c.want)
		}
	}
	many := Query{Host: "many.test.", Port: 80, Family: "ip", Server: s.addr}
	if got, err := many.Lookup(t.Context()); err != nil || len(got) != 500 || s.overTCP == 0 {
		t.Errorf("%d addresses, %v, %d questions over TCP", len(got), err, s.overTCP)
	}
}

// A name that does not exist and one without such records differ from failures;
// a part that fails is a failure, not a shorter list. Lookups are counted.
func TestADNSServerThatFails(t *testing.T) {
	s := newNameServer(t)
	s.add("A", "gpu.test.", "10.0.0.1")
	s.add("AAAA", "gpu.test.", "fd00::1")
	s.add("A", "half.test.", "10.0.0.1")
	s.add("A", "dead.test.", "10.0.0.1")
	s.fail("AAAA", "half.test.", dns.RcodeServerFailure)
	s.fail("A", "dead.test.", dns.RcodeRefused)
	s.fail("AAAA", "dead.test.", dns.RcodeRefused)
	metrics := prometheus.NewRegistry()
	calls := outbound.NewCalls(metrics)
	for _, c := range []struct {
		q      Query
		absent bool
	}{
		{Query{Host: "none.test.", Family: "ip"}, true},
		{Query{Service: "_http._tcp.none.test."}, true},
		{Query{Host: "half.test.", Family: "ip6"}, false},
		{Query{Host: "half.test.", Family: "ip"}, false},
		{Query{Host: "dead.test.", Family: "ip"}, false},
	} {
		c.q.Server, c.q.Port, c.q.Count = s.addr, 8000, calls.DNS
		r := newResolver(Name{Lookup: c.q.Lookup}, nil)
		if got, err := r.lookup(t.Context()); len(got) > 0 || (err == nil) != c.absent {
			t.Errorf("%+v: %v %v", c.q, got, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	q := Query{Host: "gpu.test.", Family: "ip", Server: s.addr, Count: calls.DNS}
	if _, err := q.Lookup(ended); err == nil {
		t.Error("a lookup after the end has an answer")
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == "dns" {
			got[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
		}
	}
	if got["error"] != 3 || got["success"] != 2 {
		t.Errorf("counted %v, want 3 errors and 2 successes", got)
	}
}
