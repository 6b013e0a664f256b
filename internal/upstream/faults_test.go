package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// faulty puts a proxy before a head that makes one fault, as toxiproxy describes
// it in JSON; none for "".
func faulty(t *testing.T, endpoint, fault string) string {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "head", "127.0.0.1:0", endpoint[len("http://"):])
	if err := server.Collection.Add(proxy, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	if fault != "" {
		if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(fault)); err != nil {
			t.Fatal(err)
		}
	}
	return "http://" + proxy.Listen
}

// Faults of the network between the service and a head that is well.
func TestFaultsOfTheNetwork(t *testing.T) {
	const size = 20000
	head := func(_ int, c net.Conn, r *bufio.Reader) {
		for _, more := request(r); more; _, more = request(r) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
		}
	}
	for name, c := range map[string]struct {
		fault    string
		kinds    []Kind
		received bool
		body     int // at most
	}{
		"none":             {"", nil, true, size},
		"reset at once":    {`{"type":"reset_peer","stream":"upstream","attributes":{"timeout":0}}`, []Kind{Reset, EndOfStream, Write}, false, 0},
		"reset of answers": {`{"type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`, []Kind{Reset, EndOfStream}, false, 0},
		"in the middle":    {`{"type":"limit_data","stream":"downstream","attributes":{"bytes":5000}}`, []Kind{Reset, EndOfStream}, true, 5000},
		"in the header":    {`{"type":"limit_data","stream":"downstream","attributes":{"bytes":20}}`, []Kind{Reset, EndOfStream}, true, 0},
		"black hole":       {`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`, []Kind{FirstByteTimeout}, false, 0},
		"small slices":     {`{"type":"slicer","stream":"downstream","attributes":{"average_size":100,"size_variation":50,"delay":1}}`, nil, true, size},
		"slow":             {`{"type":"bandwidth","stream":"downstream","attributes":{"rate":200}}`, nil, true, size},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeads(t, nil)
			call := post(faulty(t, rawHead(t, head), c.fault))
			if name == "black hole" {
				call.Limits.FirstByte = 100 * time.Millisecond
			}
			_, body, err := do(t.Context(), h, call)
			if c.kinds == nil {
				if err != nil || len(body) != size {
					t.Errorf("%d bytes, %v", len(body), err)
				}
				return
			}
			e, is := errors.AsType[*Error](err)
			if !is || !strings.Contains(fmt.Sprint(c.kinds), string(e.Kind)) || e.Received != c.received || !e.Sent || len(body) > c.body {
				t.Errorf("%d bytes, %+v", len(body), e)
			}
			if open, _, _ := h.counts(); open != 0 {
				t.Errorf("%d open", open)
			}
		})
	}
}
