package pki_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headway/internal/pki"
)

func TestKeysThatSign(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rawPrivate, _ := x509.MarshalPKCS8PrivateKey(private)
	rawPublic, _ := x509.MarshalPKIXPublicKey(public)
	privateFile, publicFile := keyFile(t, rawPrivate), keyFile(t, rawPublic)
	if key, err := pki.ReadSigningKey(privateFile); err != nil || !key.Equal(private) {
		t.Errorf("the signing key: %v", err)
	}
	if key, err := pki.ReadPublicKey(publicFile); err != nil || !key.Equal(public) {
		t.Errorf("the public key: %v", err)
	}
	if _, err := pki.ReadSigningKey(publicFile); err == nil || !strings.Contains(err.Error(), "genpkey") {
		t.Errorf("a public key as the signing key: %v", err)
	}
	if _, err := pki.ReadPublicKey(privateFile); err == nil || !strings.Contains(err.Error(), "-pubout") {
		t.Errorf("a signing key as the public key: %v", err)
	}
	i := install(t)
	if _, err := pki.ReadSigningKey(i.key); err == nil || !strings.Contains(err.Error(), "*ecdsa.PrivateKey") {
		t.Errorf("a key of another kind: %v", err)
	}
	if _, err := pki.ReadSigningKey(filepath.Join(i.dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func keyFile(t *testing.T, raw []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWithoutFilesThereIsNothingToTrustOrPresent(t *testing.T) {
	if pool, err := pki.ReadAuthorities(""); pool != nil || err != nil {
		t.Errorf("%v, %v; want the authorities of the system", pool, err)
	}
	if own, err := pki.ReadPair("", ""); own != nil || err != nil {
		t.Errorf("%v, %v", own, err)
	}
	if _, err := pki.ReadPair("/none", ""); err == nil {
		t.Error("a certificate without its key")
	}
}
