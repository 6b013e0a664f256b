package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"headway/internal/proxy"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// Two answers of a head, long enough for a fault within them.
var (
	toxicStream = roleEvent + strings.Repeat(tokenEvent, 200) + finishEvent + doneEvent
	toxicAnswer = strings.Replace(gateAnswer, "hello", strings.Repeat("hello ", 5000), 1)
)

// toxicPlane has a head behind a network with a fault, and a sound one beside it
// where there is one.
func toxicPlane(t *testing.T, fault string, alone bool) *plane {
	t.Helper()
	limit := time.Minute
	if strings.Contains(fault, `"timeout","stream"`) { // it is what ends the request
		limit = time.Second
	}
	p := newPlane(t, func(o *proxy.Options) {
		heads, err := upstream.New(upstream.Options{
			Metrics: prometheus.NewRegistry(), IdleTimeout: 4 * time.Second, MaxOpen: 100, MaxOpenPerHead: 100, MaxIdlePerHead: 100,
			Limits: upstream.Limits{Connect: 10 * time.Second, Write: 30 * time.Second, FirstByte: limit, Idle: limit, Total: 10 * time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = heads.Close(context.WithoutCancel(t.Context())) })
		o.Heads, o.Limits.RetryShare = heads, 1
	})
	answer := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if strings.Contains(string(b), `"stream":true`) {
			say(w, toxicStream)
			return
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = io.WriteString(w, toxicAnswer)
	}
	s := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(s.Close)
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	network := toxiproxy.NewProxy(server, "head", "127.0.0.1:0", strings.TrimPrefix(s.URL, "http://"))
	if err := server.Collection.Add(network, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(network.Stop)
	if _, err := network.Toxics.AddToxicJson(strings.NewReader(fault)); err != nil {
		t.Fatal(err)
	}
	p.registered("behind", "http://"+network.Listen)
	if !alone {
		sound := httptest.NewServer(http.HandlerFunc(answer))
		t.Cleanup(sound.Close)
		p.registered("sound", sound.URL)
	}
	return p
}

// A network that is slow changes nothing of an answer. One that breaks is a fault
// that another head makes good, up to the first content; a head that is alone is
// answered for by an error, and never by a part of an answer.
func TestFaultsOfTheNetworkThroughTheDataPlane(t *testing.T) {
	const (
		harmless = iota // each answer is whole
		before          // it breaks before the first content
		within          // and after it
	)
	for name, c := range map[string]struct {
		fault  string
		breaks int
		code   string // of a head that is alone
	}{
		"latency":                    {`{"type":"latency","stream":"downstream","attributes":{"latency":300,"jitter":100}}`, harmless, ""},
		"latency of requests":        {`{"type":"latency","stream":"upstream","attributes":{"latency":300}}`, harmless, ""},
		"bandwidth":                  {`{"type":"bandwidth","stream":"downstream","attributes":{"rate":100}}`, harmless, ""},
		"bandwidth of requests":      {`{"type":"bandwidth","stream":"upstream","attributes":{"rate":10}}`, harmless, ""},
		"slicer":                     {`{"type":"slicer","stream":"downstream","attributes":{"average_size":50,"size_variation":40,"delay":10}}`, harmless, ""},
		"slow_close":                 {`{"type":"slow_close","stream":"downstream","attributes":{"delay":500}}`, harmless, ""},
		"reset_peer":                 {`{"type":"reset_peer","stream":"upstream","attributes":{"timeout":0}}`, before, "head_"},
		"reset_peer of answers":      {`{"type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`, before, "head_"},
		"timeout":                    {`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`, before, "head_first_byte_timeout"},
		"timeout, then closed":       {`{"type":"timeout","stream":"downstream","attributes":{"timeout":100}}`, before, "head_"},
		"timeout of requests":        {`{"type":"timeout","stream":"upstream","attributes":{"timeout":0}}`, before, "head_first_byte_timeout"},
		"limit_data in the header":   {`{"type":"limit_data","stream":"downstream","attributes":{"bytes":20}}`, before, "head_"},
		"limit_data in the role":     {`{"type":"limit_data","stream":"downstream","attributes":{"bytes":250}}`, before, "head_"},
		"limit_data in the middle":   {`{"type":"limit_data","stream":"downstream","attributes":{"bytes":5000}}`, within, "head_"},
		"limit_data in the requests": {`{"type":"limit_data","stream":"upstream","attributes":{"bytes":50}}`, before, "head_"},
	} {
		for _, alone := range []bool{true, false} {
			for _, body := range []string{chatBody, streamBody} {
				kind := " beside a sound head"
				if alone {
					kind = " alone"
				}
				stream := body == streamBody
				if stream {
					kind += ", stream"
				}
				t.Run(name+kind, func(t *testing.T) {
					t.Parallel()
					p := toxicPlane(t, c.fault, alone)
					want, asked := toxicAnswer, 1
					if stream {
						want = toxicStream
					}
					if !alone {
						asked = 4 // some of them go to the sound one at once
					}
					whole, broken := 0, 0
					answers := make(chan planeAnswer, asked)
					for range asked {
						go func() {
							res, err := p.ask(t.Context(), chatPath, body)
							if err != nil {
								answers <- planeAnswer{&http.Response{}, nil, err}
								return
							}
							defer res.Body.Close()
							b, err := io.ReadAll(res.Body)
							answers <- planeAnswer{res, b, err}
						}()
					}
					for range asked {
						a := <-answers
						switch {
						case a.StatusCode == http.StatusOK && a.err == nil:
							whole++
							if string(a.body) != want {
								t.Errorf("an answer of %d bytes that looks whole is another than the head's of %d", len(a.body), len(want))
							}
						case a.StatusCode == http.StatusOK: // it was cut
							broken++
							if text := string(a.body); !stream || strings.Contains(text, "[DONE]") || c.breaks == within && strings.Count(text, `"role"`) != 1 {
								t.Errorf("it broke as %v:\n%s", a.err, text)
							}
						default:
							broken++
							if a.err != nil || !strings.Contains(string(a.body), `"code":"`+c.code) || a.StatusCode != http.StatusBadGateway && a.StatusCode != http.StatusGatewayTimeout {
								t.Errorf("%d %v\n%s", a.StatusCode, a.err, a.body)
							}
						}
						if s := string(a.body); broken > 0 && a.StatusCode == http.StatusOK && a.err != nil && !strings.Contains(s, `"error"`) && strings.HasSuffix(s, "\n\n") {
							t.Errorf("a stream that was cut between events has no event of an error:\n%s", s)
						}
					}
					switch {
					case c.breaks == harmless && broken > 0,
						c.breaks == before && broken > 0 && !alone,
						c.breaks == within && broken > 0 && !alone && !stream,
						c.breaks != harmless && whole > 0 && alone:
						t.Errorf("%d answers are whole, %d broken", whole, broken)
					}
					p.settled()
					for _, d := range p.router.Recent(routing.RecentQuery{Limit: 10}) {
						if o, ended := d.Outcome(); !ended || (c.breaks == harmless) != (o.Result == routing.ResultOK) && d.Head.ID == "behind" {
							t.Errorf("the outcome at %s is %+v, %t", d.Head.ID, o, ended)
						}
					}
				})
			}
		}
	}
}
