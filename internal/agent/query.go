package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"headway/internal/outbound"
)

// Query is what DNS is asked: the addresses of Host, each with Port, or the SRV
// records of Service.
type Query struct {
	Host    string
	Port    uint16
	Family  string            // of addresses: ip, ip4 or ip6
	Service string            // _name._proto.domain
	Server  string            // host:port of the DNS server; "": those of the system
	Count   *outbound.Counter // of lookups
}

// Lookup returns host:port of each answer, sorted, each once. It asks the servers
// itself, without the system's library, so that an answer of which a part is
// missing is an error and not a shorter list. Priority and weight of SRV records
// are ignored; their targets stay names, for TLS and as heads register them.
func (q *Query) Lookup(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil { // the resolver may have an answer all the same
		return nil, err
	}
	r := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, server string) (net.Conn, error) {
		if q.Server != "" {
			server = q.Server
		}
		// A machine's own resolver often is at a link-local address.
		return outbound.NewDialer(outbound.Options{Timeout: lookupLimit, AllowLinkLocal: true}).DialContext(ctx, network, server)
	}}
	found, err := q.ask(ctx, r)
	no, isDNS := err.(*net.DNSError) //nolint:errorlint // as the resolver makes it
	if ctx.Err() == nil || err == nil {
		q.Count.Add(err == nil || isDNS && no.IsNotFound)
	}
	slices.Sort(found)
	return slices.Compact(found), err
}

func (q *Query) ask(ctx context.Context, r *net.Resolver) (found []string, err error) {
	if q.Service == "" {
		addrs, err := r.LookupNetIP(ctx, q.Family, q.Host)
		for _, a := range addrs {
			found = append(found, netip.AddrPortFrom(a.Unmap().WithZone(""), q.Port).String())
		}
		return found, err
	}
	_, records, err := r.LookupSRV(ctx, "", "", q.Service)
	if err != nil && len(records) > 0 {
		return nil, fmt.Errorf("look up %s: %w", q.Service, err) // some targets are no names
	}
	for _, s := range records {
		target := strings.ToLower(strings.TrimSuffix(s.Target, "."))
		if target == "" { // there is no such service, RFC 2782
			continue
		}
		found = append(found, net.JoinHostPort(target, strconv.Itoa(int(s.Port))))
	}
	return found, err
}
