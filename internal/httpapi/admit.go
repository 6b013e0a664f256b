package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"headway/api"
	"headway/internal/apiv1"
)

// admit refuses requests that a browser was tricked into sending: those with the
// Host of another service (a name that was rebound to this machine's address) and
// those from another site's page. Health checks and scrapes name any Host or none;
// a browser sends its language with them.
func (s *Server) admit(rt *route, r *http.Request) error {
	if last := s.lastHost.Load(); last == nil || *last != r.Host {
		switch own := s.ownHost(r); {
		case !own && rt.probe && len(r.Header["Accept-Language"]) == 0:
			return refuseForeign(r)
		case r.Host == "" && rt.client: // of HTTP/1.0: browsers always send one
			return refuseForeign(r)
		case !own:
			return &apiv1.Problem{
				Code:   api.CodeForeignHost,
				Detail: "The Host header names neither an address of this machine, nor a name of its certificate or in http.allowed_hosts.",
			}
		}
		host := strings.Clone(r.Host)
		s.lastHost.Store(&host)
	}
	return refuseForeign(r)
}

// ownHost reports whether the Host header means this service: the address that
// the connection came to, a loopback one, a name of our certificate, or one that
// the operator allows. The port does not matter, since a tunnel may change it.
func (s *Server) ownHost(r *http.Request) bool {
	name := r.Host
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		name = host
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil && (ip.Unmap().IsLoopback() || ip.Unmap() == localAddr(r)) {
		return true
	}
	if s.o.Names != nil && s.o.Names(name) || name != "" && strings.EqualFold(name, s.external.host) {
		return true
	}
	return slices.ContainsFunc(s.o.Limits.AllowedHosts, func(allowed string) bool {
		return strings.EqualFold(strings.Trim(allowed, "[]"), name)
	})
}

// localAddr is the address that the connection came to.
func localAddr(r *http.Request) netip.Addr {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return addr.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

var errForeign = &apiv1.Problem{Code: api.CodeCrossOrigin, Detail: "Requests from another site's page are refused."}

// refuseForeign refuses a request if a browser says that it comes from another
// origin's page. Other clients send neither header.
func refuseForeign(r *http.Request) error {
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return errForeign
		}
	}
	if origin := r.Header["Origin"]; len(origin) > 0 {
		u, err := url.Parse(origin[0])
		if err != nil || len(origin) > 1 || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return errForeign
		}
	}
	return nil
}
