package access

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Holder says who the holder of a client's certificate is.
type Holder struct {
	Name    string // pattern of a URI, a DNS name or the common name; * stands for any characters
	Role    Role
	Heads   []string // of role head
	Regions []string
}

// ParseHolder reads NAME=ROLE, or NAME=head:IDS[:REGIONS] with several ids or
// regions joined by |.
func ParseHolder(text string) (Holder, error) {
	at := strings.LastIndexByte(text, '=')
	if at <= 0 {
		return Holder{}, fmt.Errorf("%q: want NAME=ROLE", text)
	}
	role, rest, scoped := strings.Cut(text[at+1:], ":")
	h := Holder{Name: text[:at], Role: Role(role)}
	if !slices.Contains(Roles(), h.Role) {
		return h, fmt.Errorf("%q: want one of the roles viewer, operator, admin, head, client", text)
	}
	if scoped != (h.Role == RoleHead) {
		return h, fmt.Errorf("%q: a head, and only a head, has ids: NAME=head:IDS[:REGIONS]", text)
	}
	if scoped {
		ids, regions, _ := strings.Cut(rest, ":")
		h.Heads = strings.Split(ids, "|")
		if regions != "" {
			h.Regions = strings.Split(regions, "|")
		}
		for _, list := range [][]string{h.Heads, h.Regions} {
			if faults := checkPatterns("", list); len(faults) > 0 {
				return h, fmt.Errorf("%q: %s", text, faults[0].Reason)
			}
		}
	}
	return h, nil
}

// certificate is the principal of the certificate that the client showed, if
// it was verified and somebody is named by it.
func (g *Guard) certificate(r *http.Request) *Principal {
	if len(g.o.Certificates) == 0 || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	names := namesOf(r.TLS.VerifiedChains[0][0])
	for _, h := range g.o.Certificates {
		for _, name := range names {
			if match(h.Name, name) {
				return &Principal{Type: "certificate", ID: name, Name: name, Role: h.Role, Heads: h.Heads, Regions: h.Regions}
			}
		}
	}
	return nil
}

func namesOf(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	names = append(names, c.DNSNames...)
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	return names
}
