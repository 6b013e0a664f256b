package fleet

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Addresses that hand out a machine's credentials to whoever asks from it. A
// head that registers one would make the fleet's callers ask.
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // AWS, Google, Azure and others
	netip.MustParseAddr("fd00:ec2::254"),   // AWS over IPv6
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("168.63.129.16"),   // Azure's wire server
}

var metadataNames = []string{"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToIP = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

// checkEndpoint returns what is wrong with a head's endpoint, "" if nothing. It
// must be scheme://host[:port] and nothing else: what a head says of itself
// ends up in other people's requests.
func checkEndpoint(endpoint string, allowLinkLocal bool) string {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || strings.ContainsFunc(endpoint, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "is not a URL; want http://host:port"
	case u.Scheme != "http" && u.Scheme != "https":
		return "must begin with http:// or https://"
	case u.User != nil:
		return "must not carry a user name or password"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(endpoint, "#"):
		return "must not have a query or a fragment"
	case u.Path != "" && u.Path != "/":
		return "must not have a path; want http://host:port"
	case u.Hostname() == "":
		return "has no host"
	}
	if strings.HasSuffix(u.Host, ":") {
		return "has an empty port"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || port[0] == '0' {
			return "has a port outside of 1 to 65535"
		}
	}
	return CheckHost(u.Hostname(), allowLinkLocal, "heads.allow_link_local")
}

// CheckHost says why a host must not be connected to, "" if it may. The setting
// is what allows link-local and cloud metadata addresses.
func CheckHost(host string, allowLinkLocal bool, setting string) string {
	if strings.Contains(host, "%") {
		return "must not name an IPv6 zone"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return CheckAddr(addr, allowLinkLocal, setting)
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := labels[len(labels)-1]
	if last == "" || last[0] >= '0' && last[0] <= '9' {
		// Resolvers read 0x7f.1, 127.1 and 2130706433 as addresses (WHATWG URL,
		// "ends in a number"), and that is how a refused one slips through.
		return "has a host that is neither a name nor an address in its usual form"
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || l[0] == '-' {
			return "has a host that is not a name"
		}
	}
	if len(host) > 253 {
		return "has a host of over 253 characters"
	}
	if !allowLinkLocal {
		for _, name := range metadataNames {
			if strings.EqualFold(strings.TrimSuffix(host, "."), name) {
				return "is a cloud metadata service; " + setting + " allows it"
			}
		}
	}
	return ""
}

// CheckAddr says why an address must not be connected to, "" if it may. The
// setting is what allows link-local and cloud metadata addresses.
func CheckAddr(addr netip.Addr, allowLinkLocal bool, setting string) string {
	addr = embedded(addr)
	switch {
	case addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not the address of one machine"
	case allowLinkLocal:
		return ""
	case addr.IsLinkLocalUnicast():
		return "is a link-local address; " + setting + " allows it"
	}
	for _, m := range metadataAddrs {
		if addr == m {
			return "is a cloud metadata service; " + setting + " allows it"
		}
	}
	return ""
}

// embedded returns the IPv4 address that an IPv6 address carries, else addr.
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() {
		return addr
	}
	raw := addr.As16()
	switch {
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(raw[12:16]))
	case sixToIP.Contains(addr):
		return netip.AddrFrom4([4]byte(raw[2:6]))
	}
	return addr
}

// canonicalEndpoint is a valid endpoint without a trailing slash.
func canonicalEndpoint(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	host := strings.ToLower(u.Hostname())
	if port := u.Port(); port != "" {
		return fmt.Sprintf("%s://%s", u.Scheme, net.JoinHostPort(host, port))
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host
}
