// Package address decides which hosts and addresses the service may connect to:
// those of heads, webhooks, issuers and other configured servers. It also tells
// a machine's own addresses and a site's from others.
package address

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Metadata services give a machine's credentials to any local client. A head
// registered at such an address would make callers fetch them.
var (
	metadataAddrs = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"), // AWS, Google, Azure and others
		netip.MustParseAddr("100.100.100.200"), // Alibaba
		netip.MustParseAddr("192.0.0.192"),     // Oracle
		netip.MustParseAddr("168.63.129.16"),   // Azure's wire server
		netip.MustParseAddr("fd00:ec2::254"),   // AWS over IPv6
		netip.MustParseAddr("fd00:ec2::23"),    // identities of pods on AWS
		netip.MustParseAddr("fd20:ce::254"),    // Google over IPv6
	}
	metadataNames = []string{"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)

// CheckHost returns why a host is forbidden, "" if it is allowed. The setting
// is named as what allows link-local and metadata addresses.
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
		// "ends in a number"), which would bypass the check.
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
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if !allowLinkLocal && slices.Contains(metadataNames, name) {
		return "is a cloud metadata service" + allowedBy(setting)
	}
	return ""
}

// CheckAddr returns why an address is forbidden, "" if it is allowed. An IPv6
// address with an embedded IPv4 address is checked as both, since a network may
// translate it.
func CheckAddr(addr netip.Addr, allowLinkLocal bool, setting string) string {
	carried := append(certain(addr), possible(addr)...)
	all := append([]netip.Addr{addr.WithZone("")}, carried...)
	switch {
	case slices.ContainsFunc(append(certain(addr), addr), unusable):
		return "is not the address of one machine"
	case allowLinkLocal:
		return ""
	case slices.ContainsFunc(all, netip.Addr.IsLinkLocalUnicast):
		return "is a link-local address" + allowedBy(setting)
	case slices.ContainsFunc(all, func(a netip.Addr) bool { return slices.Contains(metadataAddrs, a) }):
		return "is a cloud metadata service" + allowedBy(setting)
	}
	return ""
}

func allowedBy(setting string) string {
	if setting == "" {
		return ""
	}
	return "; " + setting + " allows it"
}

// unusable reports whether an address belongs to no machine, or to many.
func unusable(a netip.Addr) bool {
	return a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || thisNetwork.Contains(a)
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")       // RFC 1122
	compatible  = netip.MustParsePrefix("::/96")           // RFC 4291
	translated  = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	nat64       = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	localNAT64  = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	sixToFour   = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo      = netip.MustParsePrefix("2001::/32")       // RFC 4380
)

// certain returns the IPv4 address that the form of an IPv6 address implies.
func certain(addr netip.Addr) []netip.Addr {
	if addr.Is4() {
		return nil
	}
	raw := addr.As16()
	switch {
	case addr.Is4In6():
		return []netip.Addr{addr.Unmap()}
	case addr == netip.IPv6Unspecified() || addr == netip.IPv6Loopback():
		return nil
	case compatible.Contains(addr), translated.Contains(addr), nat64.Contains(addr):
		return []netip.Addr{netip.AddrFrom4([4]byte(raw[12:]))}
	case sixToFour.Contains(addr):
		return []netip.Addr{netip.AddrFrom4([4]byte(raw[2:6]))}
	}
	return nil
}

// possible returns the IPv4 addresses that an IPv6 address may embed, depending
// on the network.
func possible(addr netip.Addr) []netip.Addr {
	if addr.Is4() || addr.Is4In6() {
		return nil
	}
	raw := addr.As16()
	at := func(places ...int) netip.Addr {
		return netip.AddrFrom4([4]byte{raw[places[0]], raw[places[1]], raw[places[2]], raw[places[3]]})
	}
	var list []netip.Addr
	if localNAT64.Contains(addr) {
		// RFC 6052, section 2.2, by the length of the prefix.
		list = append(list, at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12), at(12, 13, 14, 15))
	}
	if teredo.Contains(addr) {
		list = append(list, at(4, 5, 6, 7), netip.AddrFrom4([4]byte{^raw[12], ^raw[13], ^raw[14], ^raw[15]}))
	}
	// ISATAP (RFC 5214): an interface identifier of 0:5efe or 200:5efe.
	if raw[8]&^2 == 0 && raw[9] == 0 && raw[10] == 0x5e && raw[11] == 0xfe {
		list = append(list, at(12, 13, 14, 15))
	}
	return list
}

// Site returns what a rate limit counts for an address: an IPv4 address, or the
// /64 of an IPv6 address, which one site owns.
func Site(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if !addr.Is6() || addr.IsLoopback() {
		return addr
	}
	site, _ := addr.WithZone("").Prefix(64) // 64 fits
	return site.Addr()
}

// Loopback reports whether only this machine reaches a listener on host:port.
func Loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
