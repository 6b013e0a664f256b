package app

import (
	"fmt"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/config"
	"headway/internal/outbound"
)

// A head that is the service itself is known by each of its addresses and names.
func TestPitfallP27TheServiceKnowsItsOwnAddresses(t *testing.T) {
	open := func(addr string) net.Listener {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	a := &App{
		config: config.Config{External: "https://gateway.example/headway/"}, calls: outbound.NewCalls(prometheus.NewRegistry()),
		listener: open("127.0.0.1:0"), dataListener: open("0.0.0.0:0"),
	}
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // of TCP
	api, data := port(a.listener), port(a.dataListener)
	for endpoint, want := range map[string]bool{
		fmt.Sprintf("http://127.0.0.1:%d", api):          true,
		fmt.Sprintf("https://127.0.0.1:%d", api):         true,
		fmt.Sprintf("http://localhost:%d", api):          true,
		fmt.Sprintf("http://[::ffff:127.0.0.1]:%d", api): true,
		fmt.Sprintf("http://127.0.0.2:%d", api):          false, // the listener is at one address
		fmt.Sprintf("http://127.0.0.2:%d", data):         true,  // this one at all
		fmt.Sprintf("http://localhost:%d", data):         true,
		fmt.Sprintf("http://10.254.254.254:%d", data):    false,
		"http://127.0.0.1:1":                             false,
		"http://localhost":                               false,
		"https://gateway.example":                        true,
		"https://GATEWAY.example:443":                    true,
		"http://gateway.example":                         false,
		"https://gateway.example:8443":                   false,
	} {
		if got := a.leadsHere(t.Context(), endpoint); got != want {
			t.Errorf("%s leads here: %t, want %t", endpoint, got, want)
		}
	}
}
