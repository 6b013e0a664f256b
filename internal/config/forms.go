package config

import (
	"net"
	"net/netip"
	"net/url"
	urlpath "path"
	"slices"
	"strconv"
	"strings"

	"headway/internal/strict"
)

var (
	hostPort = form{allowed: "host:port, such as 127.0.0.1:8080", valid: func(s string) bool {
		host, port, err := net.SplitHostPort(s)
		n, portErr := strconv.ParseUint(port, 10, 16)
		return err == nil && portErr == nil && strconv.FormatUint(n, 10) == port && len(s) <= maxText && strict.Printable(host)
	}}
	optionalHostPort = form{allowed: hostPort.allowed + ", or nothing", valid: func(s string) bool { return s == "" || hostPort.valid(s) }}
	optionalNATS     = form{show: withoutUser, allowed: "nats://host:port or tls://host:port without a password, several with commas, or nothing", valid: func(s string) bool {
		return s == "" || len(s) <= maxText && !slices.ContainsFunc(strings.Split(s, ","), func(u string) bool { return !isURL(strings.TrimSpace(u), "nats", "tls") })
	}}
	path         = form{allowed: "a path of at most 4096 bytes", valid: func(s string) bool { return s != "" && isPath(s) }}
	optionalPath = form{allowed: "a path of at most 4096 bytes, or nothing", valid: isPath}
	hostName     = form{allowed: "host names or addresses without a port", valid: func(s string) bool {
		if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			return true
		}
		return s != "" && len(s) <= 253 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == ""
	}}
	line        = form{allowed: "one line of text", valid: isPath}
	optionalURL = form{show: withoutUser, allowed: "an https URL, or nothing", valid: func(s string) bool { return s == "" || isURL(s, "https", "http") }}
	ownURL      = form{show: withoutUser, allowed: "an http or https URL, without a user and a query, whose path does not begin with " + strings.Join(ourPaths, ", ") + "; or nothing", valid: isOwnURL}
	webURL      = form{show: withoutUser, allowed: "http or https URLs", valid: func(s string) bool { return isURL(s, "https", "http") }}
	hookURL     = form{show: withoutPath, allowed: "http or https URLs", valid: webURL.valid}
	redisURL    = form{show: withoutUser, allowed: "redis://host:port or rediss://host:port without a password, or nothing", valid: func(s string) bool {
		return s == "" || isURL(s, "redis", "rediss")
	}}
	network = form{allowed: "addresses or networks such as 10.0.0.0/8", valid: func(s string) bool {
		_, addrErr := netip.ParseAddr(s)
		_, prefixErr := netip.ParsePrefix(s)
		return addrErr == nil || prefixErr == nil
	}}
	algorithm = form{allowed: "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA", valid: func(s string) bool {
		return slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}, s)
	}}
	mapping = form{allowed: "NAME=ROLE", valid: func(s string) bool {
		at := strings.LastIndexByte(s, '=')
		return at > 0 && at < len(s)-1 && len(s) <= maxText && strict.Printable(s)
	}}
)

// isURL reports whether s is a URL of one of the schemes without a password,
// which lists of processes would show.
func isURL(s string, schemes ...string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || len(s) > maxText || !slices.Contains(schemes, u.Scheme) {
		return false
	}
	_, secret := u.User.Password()
	return !secret
}

// maxText bounds a text in bytes.
const maxText = 4096

func isPath(s string) bool { return len(s) <= maxText && strict.Printable(s) }

// quote quotes the beginning of an input without secrets.
func quote(s string) string { return strict.Quote(Scrub(s)) }

// ourPaths are the first segments of the service's paths.
var ourPaths = []string{"api", "console", "heads", "livez", "metrics", "openapi.json", "prometheus", "readyz", "v1"}

// isOwnURL reports whether s can be the service's URL. A path that begins like
// one of the service's would be ambiguous.
func isOwnURL(s string) bool {
	if s == "" {
		return true
	}
	u, err := url.Parse(s)
	if err != nil || !isURL(s, "https", "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || u.RawPath != "" {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	clean := urlpath.Clean("/" + u.Path)
	return !slices.Contains(ourPaths, first) && (u.Path == "" || strings.TrimSuffix(u.Path, "/") == strings.TrimSuffix(clean, "/"))
}
