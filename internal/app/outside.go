package app

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"headway/internal/address"
	"headway/internal/outbound"
)

// schedLatency adds the time that goroutines wait for a processor, which shows
// that the machine is too small before anything else does.
var schedLatency = regexp.MustCompile(`^/sched/latencies:seconds$`)

// client is for HTTP to a service, whose requests it counts.
func (a *App) client(service string, timeout time.Duration) *http.Client {
	c := outbound.NewClient(outbound.Options{Timeout: timeout, Count: a.calls.Of(service)})
	a.stops = append(a.stops, func() error { c.CloseIdleConnections(); return nil })
	return c
}

// mayCall refuses servers of a setting that must not be called. They may be
// private, since the operator names them, and no service of this kind has a
// link-local address. What a name resolves to, and what such a server names
// besides itself, is checked when it is dialed.
func mayCall(setting string, servers ...string) error {
	for _, server := range servers {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil { // the configuration has checked it
			return fmt.Errorf("%s is not a URL", setting)
		}
		if wrong := address.CheckHost(u.Hostname(), false, ""); wrong != "" {
			return fmt.Errorf("%s %s", setting, wrong)
		}
	}
	return nil
}
