package access

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"headway/internal/strict"
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

// certificate is the principal of the client's certificate, nil if that was not
// verified or has no holder. It lasts as long as the certificate and the
// authorities that signed it, not as long as the connection. The errors wrap
// ErrExpired or ErrUntrusted.
func (g *Guard) certificate(c *tls.ConnectionState) (*Principal, error) {
	if len(g.o.Certificates) == 0 || c == nil || len(c.VerifiedChains) == 0 {
		return nil, nil //nolint:nilnil // no error: there may be another credential
	}
	shown := c.PeerCertificates
	names := namesOf(shown[0])
	for _, h := range g.o.Certificates {
		for _, name := range names {
			if !strict.Match(h.Name, name, nil) {
				continue
			}
			if !g.o.Now().Before(shown[0].NotAfter) {
				return nil, ErrExpired
			}
			if !g.trusts(shown) {
				return nil, fmt.Errorf("%w: no authority signs it any more", ErrUntrusted)
			}
			return &Principal{
				Type: "certificate", ID: name, Name: name, Role: h.Role, Heads: h.Heads, Regions: h.Regions,
				Expires: shown[0].NotAfter, shown: shown,
			}, nil
		}
	}
	return nil, nil //nolint:nilnil // as above
}

// trust remembers which certificates an authority has signed, so that only the
// first request of a connection pays for the check.
type trust struct {
	authorities *x509.CertPool
	known       *cache[[sha256.Size]byte, bool]
}

// trusts reports whether a current authority has signed a certificate. The
// handshake has found it so; that holds while the authorities are the same.
func (g *Guard) trusts(shown []*x509.Certificate) bool {
	if g.o.Authorities == nil {
		return true
	}
	authorities := g.o.Authorities()
	if authorities == g.first {
		return true
	}
	t := g.trust.Load()
	if t == nil || t.authorities != authorities {
		t = &trust{authorities, newCache[[sha256.Size]byte, bool](g.forgotten.WithLabelValues("certificates"))}
		g.trust.Store(t)
	}
	hash := sha256.New()
	for _, c := range shown {
		hash.Write(c.Raw)
	}
	sum, now := [sha256.Size]byte(hash.Sum(nil)), g.o.Now()
	if good, known := t.known.get(sum, now); known {
		return good
	}
	o := x509.VerifyOptions{
		Roots: authorities, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range shown[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := shown[0].Verify(o)
	t.known.put(sum, err == nil, now)
	return err == nil
}

// namesOf are the names that a certificate may be matched by: its URIs and DNS
// names, without any its common name. Names that hide characters do not count.
func namesOf(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	names = append(names, c.DNSNames...)
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" || !strict.Printable(name) })
}
