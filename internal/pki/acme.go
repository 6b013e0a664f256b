package pki

import (
	"crypto/tls"
	"net/http"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// ACME obtains certificates from an authority such as Let's Encrypt by the
// TLS-ALPN-01 challenge, for which the listener must be reachable as port 443
// of the hosts.
type ACME struct {
	Hosts     []string     // names to get certificates for; others are refused
	Email     string       // for the authority's messages; may be empty
	Directory string       // URL of the authority; "": Let's Encrypt
	CacheDir  string       // where keys and certificates are kept, mode 0700
	Client    *http.Client // nil: the default one
}

func (a ACME) configure(c *tls.Config) {
	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(a.CacheDir),
		HostPolicy: autocert.HostWhitelist(a.Hosts...),
		Email:      a.Email,
		Client:     &acme.Client{DirectoryURL: a.Directory, HTTPClient: a.Client, UserAgent: "headway"},
	}
	c.GetCertificate = m.GetCertificate
	c.NextProtos = append(c.NextProtos, acme.ALPNProto)
}
