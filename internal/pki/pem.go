package pki

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

// ReadAuthorities reads a file of certificates in PEM. Without a file the pool
// is nil, which stands for the authorities of the system.
func ReadAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate in PEM", file)
	}
	return pool, nil
}

// ReadPair reads the certificate that a client presents, and its key; none
// without files.
func ReadPair(certFile, keyFile string) ([]tls.Certificate, error) {
	if certFile == "" && keyFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	return []tls.Certificate{pair}, err
}

// ReadSigningKey reads an Ed25519 key, PKCS #8 in PEM.
func ReadSigningKey(file string) (ed25519.PrivateKey, error) {
	key, err := readKey[ed25519.PrivateKey](file, x509.ParsePKCS8PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("%w; want an Ed25519 key, as 'openssl genpkey -algorithm ed25519' makes", err)
	}
	return key, nil
}

// ReadPublicKey reads the public half of a signing key, PKIX in PEM.
func ReadPublicKey(file string) (ed25519.PublicKey, error) {
	key, err := readKey[ed25519.PublicKey](file, x509.ParsePKIXPublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w; want an Ed25519 public key, as 'openssl pkey -in KEY -pubout' prints it", err)
	}
	return key, nil
}

func readKey[K ed25519.PrivateKey | ed25519.PublicKey](file string, parse func([]byte) (any, error)) (none K, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return none, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return none, fmt.Errorf("%s is not PEM", file)
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		return none, fmt.Errorf("%s: %w", file, err)
	}
	key, ok := parsed.(K)
	if !ok {
		return none, fmt.Errorf("%s holds a %T", file, parsed)
	}
	return key, nil
}
