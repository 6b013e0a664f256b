package fleet

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"headway/internal/address"
)

// Endpoint is the canonical form of the URL of a server, http://host:port.
func Endpoint(text string, allowLinkLocal bool) (string, error) {
	canonical, wrong := canonicalEndpoint(text, allowLinkLocal)
	if wrong != "" {
		return "", fmt.Errorf("%q %s", text, wrong)
	}
	return canonical, nil
}

// canonicalEndpoint returns a head's endpoint without a trailing slash, and what
// is wrong with it, "" if nothing. It must be scheme://host[:port] and nothing
// else: what a head says of itself ends up in other people's requests.
func canonicalEndpoint(endpoint string, allowLinkLocal bool) (canonical, wrong string) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || strings.ContainsFunc(endpoint, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return endpoint, "is not a URL; want http://host:port"
	case u.Scheme != "http" && u.Scheme != "https":
		return endpoint, "must begin with http:// or https://"
	case u.User != nil:
		return endpoint, "must not carry a user name or password"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(endpoint, "#"):
		return endpoint, "must not have a query or a fragment"
	case u.Path != "" && u.Path != "/":
		return endpoint, "must not have a path; want http://host:port"
	case u.Hostname() == "":
		return endpoint, "has no host"
	case strings.HasSuffix(u.Host, ":"):
		return endpoint, "has an empty port"
	}
	port, host := u.Port(), strings.ToLower(u.Hostname())
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0 || port[0] == '0') {
		return endpoint, "has a port outside of 1 to 65535"
	}
	switch {
	case port != "":
		host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host, address.CheckHost(u.Hostname(), allowLinkLocal, "heads.allow_link_local")
}
