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

// schedLatency is the time goroutines wait for a processor, the first sign of a
// machine that is too small.
var schedLatency = regexp.MustCompile(`^/sched/latencies:seconds$`)

// client makes an HTTP client whose requests are counted.
func (a *App) client(count *outbound.Counter, timeout time.Duration) *http.Client {
	c := outbound.NewClient(outbound.Options{Timeout: timeout, Count: count})
	a.stops = append(a.stops, func() error { c.CloseIdleConnections(); return nil })
	return c
}

// mayCall refuses configured servers at forbidden addresses. Private ones are
// allowed, link-local ones are not. Resolved and redirected addresses are
// checked when they are dialed.
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
