package fleet

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"headway/internal/address"
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
	return address.CheckHost(u.Hostname(), allowLinkLocal, "heads.allow_link_local")
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
