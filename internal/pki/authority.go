package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// The files of an authority's directory.
const (
	CACertFile     = "ca.pem"     // give it to clients
	caKeyFile      = "ca-key.pem" // signs more certificates; keep it
	ServerCertFile = "server.pem"
	ServerKeyFile  = "server-key.pem"
)

// Validity of certificates.
const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 397 * 24 * time.Hour // what browsers accept at most
)

// Authority signs certificates for one installation.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  time.Time
}

// OpenAuthority reads or creates the authority in dir. Keys have mode 0600.
func OpenAuthority(dir string, now time.Time) (a *Authority, created bool, err error) {
	certFile, keyFile := filepath.Join(dir, CACertFile), filepath.Join(dir, caKeyFile)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	switch {
	case err == nil:
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || !pair.Leaf.IsCA {
			return nil, false, fmt.Errorf("%s is no authority that 'headway tls init' made", certFile)
		}
		return &Authority{pair.Leaf, key, encodeCert(pair.Leaf.Raw), now}, false, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("read the authority in %s: %w", dir, err)
	}
	for _, f := range []string{certFile, keyFile} {
		if _, err := os.Stat(f); err == nil {
			return nil, false, fmt.Errorf("%s is there without its other half; move it away or restore the other", f)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, fmt.Errorf("make the directory of the authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, false, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Headway authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a = &Authority{key: key, now: now}
	raw, err := a.sign(template, template, &key.PublicKey)
	if err != nil {
		return nil, false, err
	}
	if a.cert, err = x509.ParseCertificate(raw); err != nil {
		return nil, false, err
	}
	a.pem = encodeCert(raw)
	if err := writeKey(keyFile, key); err != nil {
		return nil, false, err
	}
	return a, true, writeNew(certFile, a.pem, 0o644)
}

func (a *Authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
}

// Server writes a certificate for host names or addresses, and its key. The
// files must not exist.
func (a *Authority) Server(hosts []string, certFile, keyFile string) error {
	t := a.leaf(hosts[0], x509.ExtKeyUsageServerAuth)
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.issue(t, certFile, keyFile)
}

// Client writes a certificate with the name as its common name or, if it is a
// URI, as its URI.
func (a *Authority) Client(name, certFile, keyFile string) error {
	t := a.leaf(name, x509.ExtKeyUsageClientAuth)
	if u, err := url.Parse(name); err == nil && u.Scheme != "" && u.Host != "" {
		t.URIs = []*url.URL{u}
	}
	return a.issue(t, certFile, keyFile)
}

func (a *Authority) leaf(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: a.now.Add(-time.Hour), NotAfter: a.now.Add(leafLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
}

func (a *Authority) issue(template *x509.Certificate, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	raw, err := a.sign(template, a.cert, &key.PublicKey)
	if err != nil {
		return fmt.Errorf("sign a certificate: %w", err)
	}
	if err := writeKey(keyFile, key); err != nil {
		return err
	}
	return writeNew(certFile, append(encodeCert(raw), a.pem...), 0o644)
}

func encodeCert(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeNew(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)
}

func writeNew(file string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
