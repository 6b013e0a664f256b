package app

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lookupLimit is how long the registration of a head waits for the addresses of its
// name, where its port is one of ours.
const lookupLimit = time.Second

// leadsHere reports whether an endpoint is this service itself: one of its
// listeners, by any name, or its external URL. What it cannot know, such as the
// address of a load balancer in front, ends at the header CDN-Loop.
func (a *App) leadsHere(ctx context.Context, endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	if own := a.external(); own != nil && u.Scheme == own.Scheme && strings.EqualFold(u.Hostname(), own.Hostname()) && portOf(u) == portOf(own) {
		return true
	}
	for _, l := range []net.Listener{a.listener, a.dataListener} {
		if l == nil {
			continue
		}
		if own, err := netip.ParseAddrPort(l.Addr().String()); err == nil && portOf(u) == own.Port() &&
			slices.ContainsFunc(a.addressesOf(ctx, u.Hostname()), func(ip netip.Addr) bool { return answersAt(own.Addr(), ip) }) {
			return true
		}
	}
	return false
}

func portOf(u *url.URL) uint16 {
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return uint16(n)
	}
	return map[string]uint16{"http": 80, "https": 443}[u.Scheme]
}

// addressesOf are those of a host, none if they are not known in time.
func (a *App) addressesOf(ctx context.Context, host string) []netip.Addr {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	a.calls.DNS.Add(err == nil)
	return found
}

// answersAt reports whether a listener at own is reached at ip.
func answersAt(own, ip netip.Addr) bool {
	own, ip = own.Unmap().WithZone(""), ip.Unmap().WithZone("")
	if !own.IsUnspecified() {
		return ip == own
	}
	if ip.IsLoopback() {
		return true
	}
	local, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(local, func(l net.Addr) bool {
		p, err := netip.ParsePrefix(l.String())
		return err == nil && p.Addr().Unmap() == ip
	})
}
