package address_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"headway/internal/address"
)

// forms are the ways to write an IPv4 address as a host.
func forms(a netip.Addr) map[string]string {
	b := a.As4()
	number := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	h1, h2 := fmt.Sprintf("%x", number>>16), fmt.Sprintf("%x", number&0xffff)
	hex := h1 + ":" + h2
	not := fmt.Sprintf("%x:%x", ^number>>16, ^number&0xffff)
	return map[string]string{
		"usual":                    a.String(),
		"trailing dot":             a.String() + ".",
		"two trailing dots":        a.String() + "..",
		"decimal":                  fmt.Sprint(number),
		"hexadecimal":              fmt.Sprintf("0x%08x", number),
		"hexadecimal, upper case":  fmt.Sprintf("0X%08X", number),
		"octal":                    fmt.Sprintf("0%o", number),
		"hexadecimal parts":        fmt.Sprintf("0x%x.0x%x.0x%x.0x%x", b[0], b[1], b[2], b[3]),
		"octal parts":              fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]),
		"mixed parts":              fmt.Sprintf("%d.0x%x.0%o.%d", b[0], b[1], b[2], b[3]),
		"two parts":                fmt.Sprintf("%d.%d", b[0], number&0xffffff),
		"three parts":              fmt.Sprintf("%d.%d.%d", b[0], b[1], number&0xffff),
		"leading zeros":            fmt.Sprintf("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3]),
		"full-width digits":        strings.Map(func(r rune) rune { return map[bool]rune{true: r - '0' + '０', false: r}[r != '.'] }, a.String()),
		"ideographic dots":         strings.ReplaceAll(a.String(), ".", "。"),
		"mapped":                   "::ffff:" + a.String(),
		"mapped, in hexadecimal":   "::ffff:" + hex,
		"compatible":               "::" + a.String(),
		"compatible, hexadecimal":  "::" + hex,
		"translated":               "::ffff:0:" + hex,
		"NAT64":                    "64:ff9b::" + hex,
		"local NAT64 of 96":        "64:ff9b:1::" + hex,
		"local NAT64 of 96, more":  "64:ff9b:1:abcd::" + hex,
		"local NAT64 of 48":        fmt.Sprintf("64:ff9b:1:%s:%02x:%02x00::", h1, b[2], b[3]),
		"local NAT64 of 56":        fmt.Sprintf("64:ff9b:1:%02x:%02x:%02x%02x::", b[0], b[1], b[2], b[3]),
		"local NAT64 of 64":        fmt.Sprintf("64:ff9b:1:0:%02x:%02x%02x:%02x00:0", b[0], b[1], b[2], b[3]),
		"6to4":                     "2002:" + hex + "::1",
		"Teredo server":            "2001:0:" + hex + "::1",
		"Teredo client":            "2001:0:4136:e378:8000:63bf:" + not,
		"ISATAP":                   "2001:db8::5efe:" + hex,
		"ISATAP, a global address": "2001:db8::200:5efe:" + hex,
		"ISATAP, link-local":       "fe80::5efe:" + hex,
		"zone":                     "::ffff:" + a.String() + "%eth0",
	}
}

// No form of an address that is refused is accepted.
func TestEveryFormOfARefusedAddress(t *testing.T) {
	for _, a := range []string{"169.254.169.254", "169.254.170.2", "169.254.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16"} {
		for form, host := range forms(netip.MustParseAddr(a)) {
			if address.CheckHost(host, false, "x") == "" {
				t.Errorf("%s as %s (%s) is accepted", a, host, form)
			}
		}
	}
	for _, host := range []string{
		"fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
		"metadata", "METADATA.google.internal", "metadata.google.internal.", "metadata.goog", "instance-data",
		"0.0.0.0", "0.0.0.1", "::", "::ffff:0.0.0.0", "64:ff9b::", "2002::", "255.255.255.255", "::ffff:255.255.255.255", "224.0.0.1", "ff02::1", "::ffff:224.0.0.1", "64:ff9b::224.0.0.1",
		"", ".", "a..b", "-a", "a b", "a_\x00", "7", "a.7", "0x7f.1", "127.1", "[::1]", strings.Repeat("a", 64), strings.Repeat("a.", 130) + "a",
	} {
		if address.CheckHost(host, false, "x") == "" {
			t.Errorf("%q is accepted", host)
		}
	}
	for _, host := range []string{
		"10.0.0.5", "127.0.0.1", "::1", "localhost", "gpu-1.example.com", "gpu_1", "example.com.", "2001:db8::1", "fd00::1", "192.168.1.1", "8.8.8.8",
		"::ffff:10.0.0.5", "::10.0.0.5", "64:ff9b::10.0.0.5", "64:ff9b:1::10.0.0.5", "64:ff9b:1:a00:0:500::", "2002:a00:5::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fd00::5efe:a00:5", "1e100.net", "xn--bcher-kva.example",
	} {
		if wrong := address.CheckHost(host, false, "x"); wrong != "" {
			t.Errorf("%q %s", host, wrong)
		}
	}
}

// The setting allows link-local and metadata addresses, and not what is no
// machine's or no address.
func TestTheSettingAllows(t *testing.T) {
	for _, host := range []string{"169.254.169.254", "::ffff:169.254.1.1", "fe80::1", "metadata", "fd00:ec2::254", "2002:a9fe:a9fe::1"} {
		if wrong := address.CheckHost(host, false, "heads.allow_link_local"); !strings.HasSuffix(wrong, "; heads.allow_link_local allows it") {
			t.Errorf("%s: %q", host, wrong)
		}
		if wrong := address.CheckHost(host, false, ""); wrong == "" || strings.Contains(wrong, "allows") {
			t.Errorf("%s: %q", host, wrong)
		}
		if wrong := address.CheckHost(host, true, "x"); wrong != "" {
			t.Errorf("%s is allowed, and %s", host, wrong)
		}
	}
	for _, host := range []string{"0.0.0.0", "::", "224.0.0.1", "2852039166", "0xa9fea9fe", "fe80::1%eth0", "a..b"} {
		if address.CheckHost(host, true, "x") == "" {
			t.Errorf("%s is accepted", host)
		}
	}
}

// FuzzHost: what is accepted is a name that no resolver reads as an address, or
// an address whose every form is accepted, and no form of a refused IPv4 address
// is.
func FuzzHost(f *testing.F) {
	for _, host := range forms(netip.MustParseAddr("169.254.169.254")) {
		f.Add(host, uint32(0xa9fea9fe))
	}
	f.Add("gpu-1.example.com", uint32(0x0a000005))
	f.Fuzz(func(t *testing.T, host string, number uint32) {
		if address.CheckHost(host, false, "x") == "" {
			if strings.ContainsAny(host, "%/@:?#\\ ") && !strings.Contains(host, ":") {
				t.Errorf("%q is accepted", host)
			}
			if a, err := netip.ParseAddr(host); err == nil && (a.IsLinkLocalUnicast() || a.Unmap().IsLinkLocalUnicast()) {
				t.Errorf("%s is accepted", a)
			}
			if last := host[strings.LastIndexByte(strings.TrimSuffix(host, "."), '.')+1:]; last[0] >= '0' && last[0] <= '9' && !validAddress(host) {
				t.Errorf("%q ends in a number", host)
			}
		}
		a := netip.AddrFrom4([4]byte{byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)})
		if address.CheckAddr(a, false, "x") == "" {
			return
		}
		for form, host := range forms(a) {
			wrong := address.CheckHost(host, false, "x")
			// What only a network may translate is refused for credentials alone,
			// and these are the IPv6 addresses that are special themselves.
			maybe := strings.Contains(form, "local NAT64") || strings.Contains(form, "Teredo") || strings.Contains(form, "ISATAP")
			if wrong == "" && !(maybe && address.CheckAddr(a, true, "x") != "") && host != "::1" {
				t.Errorf("%s as %s (%s) is accepted", a, host, form)
			}
		}
	})
}

func validAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func TestWhatIsCountedForAnAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "::1": "::1",
		"2001:db8::1:2:3:4": "2001:db8::", "fe80::1%eth0": "fe80::",
	} {
		if got := address.Site(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestWhichListenersAreOnLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:80": true, "127.9.9.9:0": true, "[::1]:80": true, "localhost:80": true,
		"0.0.0.0:80": false, ":80": false, "10.0.0.1:80": false, "[::]:80": false, "example.org:80": false, "127.0.0.1": false,
	} {
		if got := address.Loopback(listen); got != want {
			t.Errorf("%s: %v", listen, got)
		}
	}
}
