// Package address decides which hosts and addresses may be connected to: heads,
// webhooks, issuers and all else that is named from outside.
package address

import (
	"net/netip"
	"slices"
	"strings"
)

// Services that hand out a machine's credentials to all who ask from it. A head
// that registers one would make the fleet's callers ask.
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

// CheckHost says why a host must not be connected to, "" if it may. The setting
// is what allows link-local and cloud metadata addresses; "": nothing does.
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
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if !allowLinkLocal && slices.Contains(metadataNames, name) {
		return "is a cloud metadata service" + allowedBy(setting)
	}
	return ""
}

// CheckAddr says why an address must not be connected to, "" if it may. An IPv6
// address that carries an IPv4 address is as good as that: a network between may
// translate it.
func CheckAddr(addr netip.Addr, allowLinkLocal bool, setting string) string {
	carried := append(certain(addr), possible(addr)...)
	all := append([]netip.Addr{addr.WithZone("")}, carried...)
	switch {
	case slices.ContainsFunc(append(certain(addr), addr), nobody):
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

// nobody reports whether an address is of no machine, or of many.
func nobody(a netip.Addr) bool {
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

// certain is the IPv4 address that the form of an IPv6 address carries.
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

// possible are the IPv4 addresses that an IPv6 address may carry, depending on
// how a network is set up.
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
