package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"headway/internal/access"
)

// sane demands that a principal has a name that can be shown, and a
// role that exists.
func sane(t *testing.T, p *access.Principal) {
	t.Helper()
	if p.ID == "" || len(p.ID) > 1000 || strings.ContainsFunc(p.ID, func(c rune) bool { return !unicode.IsPrint(c) }) {
		t.Fatalf("the principal's id is %q", p.ID)
	}
	for _, role := range access.Roles() {
		if p.Role == role {
			return
		}
	}
	t.Fatalf("the principal's role is %q", p.Role)
}

// FuzzClaims signs anything as an issuer's claims and header: it names a sane
// principal with no more than the claims say, or none.
func FuzzClaims(f *testing.F) {
	i := newIssued(f, access.Options{Failures: 1e9})
	f.Add(`{"roles":["admin","viewer"]}`, `{}`)
	f.Add(`{"roles":"headway_head","heads":["a-*"],"regions":["eu"],"sub":"x"}`, `{"kid":"2"}`)
	f.Add(`{"exp":1e300,"nbf":"soon","iat":-1,"aud":["headway",7]}`, `{"alg":"none"}`)
	f.Add(`{"sub":{"a":1},"roles":{"a":["admin"]},"heads":[[["*"]]]}`, `{"jku":"http://127.0.0.1/","crit":["exp"]}`)
	f.Fuzz(func(t *testing.T, claims, header string) {
		var c, h map[string]any
		if json.Unmarshal([]byte(claims), &c) != nil || json.Unmarshal([]byte(header), &h) != nil {
			return
		}
		p, err := i.try(i.token(h, c))
		if err != nil {
			return
		}
		sane(t, p)
		if p.Role == access.RoleAdmin && !strings.Contains(claims, "admin") {
			t.Fatalf("an administrator by %s", claims)
		}
	})
}

// FuzzCertificateNames has an authority of ours sign any names: they match a
// holder only as the pattern says.
func FuzzCertificateNames(f *testing.F) {
	holder, err := access.ParseHolder("spiffe://ours/*=operator")
	if err != nil {
		f.Fatal(err)
	}
	d := open(f, access.Options{Certificates: []access.Holder{holder}})
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Unix(1<<40, 0), Subject: pkix.Name{CommonName: "root"}}
	f.Add("spiffe://ours/a", "", "")
	f.Add("spiffe://ours/\x1b[31m", "a.example", "spiffe://ours/b")
	f.Add("http://[::1", "*", "\u202e")
	f.Fuzz(func(t *testing.T, uri, dns, common string) {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Unix(1<<40, 0), Subject: pkix.Name{CommonName: common}}
		if dns != "" {
			leaf.DNSNames = []string{dns}
		}
		if u, err := url.Parse(uri); err == nil && uri != "" {
			leaf.URIs = []*url.URL{u}
		}
		raw, err := x509.CreateCertificate(rand.Reader, leaf, root, &authority.PublicKey, authority)
		if err != nil {
			return
		}
		shown, err := x509.ParseCertificate(raw)
		if err != nil {
			return
		}
		r := ask(near, "", "")
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{shown}, VerifiedChains: [][]*x509.Certificate{{shown, root}}}
		p, err := d.guard.Authenticate(r)
		if err != nil || p == nil || p.Type != "certificate" {
			return
		}
		sane(t, p)
		if p.Role != access.RoleOperator || !strings.Contains(p.ID, "spiffe://ours/") {
			t.Fatalf("%q, %q and %q are %+v", uri, dns, common, p)
		}
	})
}

// FuzzHolder reads any line of access.certificates.
func FuzzHolder(f *testing.F) {
	f.Add("spiffe://ours/*=operator")
	f.Add("a=b=head:x|y*:eu|us")
	f.Add("=head:::")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := access.ParseHolder(text)
		if err != nil {
			return
		}
		if h.Name == "" || !strings.HasPrefix(text, h.Name+"=") || (h.Role == access.RoleHead) != (len(h.Heads) > 0) {
			t.Fatalf("%q was read as %+v", text, h)
		}
	})
}
