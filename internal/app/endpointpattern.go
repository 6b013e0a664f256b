package app

import (
	"net/netip"
	"strings"

	"headway/internal/strict"
)

// endpointPattern is an endpoint of heads with stars in it. What a star stands for
// ends where a part of the address does, so that no one gets the key of others by a
// name or an address of its own choice: http://10.0.0.*:8000 has no name, and
// http://gpu-*:8000 none in another's domain.
type endpointPattern struct {
	scheme, port string
	anyPort      bool     // the host ends in * and no port is behind it
	labels       []string // of the host
	kind         hostKind
}

// hostKind is what a host is written as.
type hostKind int

const (
	hostName hostKind = iota
	hostIPv4
	hostIPv6
	hostAny // * alone
)

func newEndpointPattern(text string) *endpointPattern {
	scheme, host, port := splitEndpoint(strings.TrimSuffix(strings.ToLower(text), "/"))
	p := &endpointPattern{scheme: scheme, port: port, anyPort: port == "" && strings.HasSuffix(host, "*")}
	switch {
	case host == "*":
		p.kind = hostAny
	case strings.HasPrefix(host, "["):
		p.kind, p.labels = hostIPv6, strings.Split(host, ":")
		return p
	case strings.Trim(host, "0123456789.*") == "" && strings.ContainsAny(host, "0123456789"):
		p.kind = hostIPv4
	}
	p.labels = strings.Split(host, ".")
	return p
}

// splitEndpoint takes an endpoint apart. The brackets of an address stay with it.
func splitEndpoint(text string) (scheme, host, port string) {
	scheme, host, _ = strings.Cut(text, "://")
	if at := strings.LastIndexByte(host, ':'); at > strings.LastIndexByte(host, ']') {
		host, port = host[:at], host[at+1:]
	}
	return scheme, host, port
}

// matches reports whether an endpoint in its canonical form is one of the pattern.
func (p *endpointPattern) matches(endpoint string) bool {
	scheme, host, port := splitEndpoint(endpoint)
	if !strict.Match(p.scheme, scheme, nil) || !p.anyPort && (!strict.Match(p.port, port, nil) || (p.port == "") != (port == "")) {
		return false
	}
	kind := hostName
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if kind = hostIPv4; addr.Is6() {
			kind = hostIPv6
		}
	}
	switch p.kind {
	case hostAny:
		return true
	case kind:
	default:
		return false
	}
	if kind == hostIPv6 {
		return p.matchParts(strings.Split(host, ":"))
	}
	return p.matchParts(strings.Split(host, "."))
}

// anyDomain reports whether the last part of a name of several may be any.
func (p *endpointPattern) anyDomain() bool {
	return p.kind == hostName && len(p.labels) > 1 && strings.Contains(p.labels[len(p.labels)-1], "*")
}

// matchParts compares part by part. A first part * of a name stands for one or more,
// which are all in the domain behind it, and a last part * of an IPv4 address for all
// that is left of it.
func (p *endpointPattern) matchParts(parts []string) bool {
	labels := p.labels
	last := len(labels) - 1
	switch more := len(parts) - len(labels); {
	case more < 0:
		return false
	case p.kind == hostName && labels[0] == "*":
		labels, parts = labels[1:], parts[more+1:]
	case p.kind == hostIPv4 && labels[last] == "*":
		labels, parts = labels[:last], parts[:last]
	case more > 0:
		return false
	}
	for i, label := range labels {
		if !strict.Match(label, parts[i], nil) {
			return false
		}
	}
	return true
}
