package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"headway/api"
)

// admit refuses requests that a browser was tricked into sending: those with
// somebody else's Host (a name that was rebound to this machine) and those
// that come from another site's page.
func (s *Server) admit(r *http.Request) error {
	if !s.ownHost(r.Host) {
		s.metrics.refused(refusedHost)
		return &problem{
			status: http.StatusMisdirectedRequest, code: api.CodeForeignHost,
			detail: "The Host header names neither this machine's loopback address nor a name in http.allowed_hosts.",
		}
	}
	if crossOrigin(r) {
		s.metrics.refused(refusedOrigin)
		return &problem{
			status: http.StatusForbidden, code: api.CodeCrossOrigin,
			detail: "Requests from another site's page are refused.",
		}
	}
	return nil
}

// ownHost reports whether a Host header means this service.
func (s *Server) ownHost(host string) bool {
	if host == "127.0.0.1:8080" || host == "localhost:8080" { // the usual ones
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.IsLoopback()
	}
	return slices.ContainsFunc(s.limits.AllowedHosts, func(h string) bool { return strings.EqualFold(h, name) || strings.EqualFold(h, host) })
}

// crossOrigin reports whether a browser says that the request comes from
// another origin's page. Clients that are no browsers send neither header.
func crossOrigin(r *http.Request) bool {
	if site := r.Header["Sec-Fetch-Site"]; len(site) > 0 && site[0] != "same-origin" && site[0] != "none" {
		return true
	}
	origin := r.Header["Origin"]
	if len(origin) == 0 {
		return false
	}
	u, err := url.Parse(origin[0])
	return err != nil || len(origin) > 1 || !strings.EqualFold(u.Host, r.Host)
}
