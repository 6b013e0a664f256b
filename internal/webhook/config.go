package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"headway/internal/address"
	"headway/internal/event"
	"headway/internal/strict"
)

// Endpoint is a receiver of events.
type Endpoint struct {
	Name   string   // for the log and the metrics
	URL    string   // http or https
	Secret []byte   // signs what is sent
	Types  []string // of events, such as head.expired or head.*; none: all
}

// Bounds of the file.
const (
	maxFile      = 1 << 20
	maxEndpoints = 100
	maxTypes     = 1000 // of one endpoint
	maxFaults    = 100
	minSecret    = 24 // bytes; the specification wants 24 to 64
	maxSecret    = 64
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Read reads the endpoints from a YAML file. Errors name the endpoint and the
// field, never a secret.
func Read(path string, allowLinkLocal bool) ([]Endpoint, error) {
	raw, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("webhooks.file: %w", err)
	}
	var list []Endpoint
	r := strict.NewYAML(raw, strict.Options{Most: maxFaults, Loose: true})
	if r.Kind() != strict.Null {
		r.Fields(map[string]func(){"endpoints": func() {
			r.Array(maxEndpoints, func(int) {
				e := readEndpoint(r, filepath.Dir(path), allowLinkLocal)
				if e.Name != "" && slices.ContainsFunc(list, func(other Endpoint) bool { return other.Name == e.Name }) {
					r.FaultIn("name", "%s is there twice", strict.Quote(e.Name))
				}
				list = append(list, e)
			})
		}})
	}
	faults, err := r.Done()
	switch {
	case err != nil:
		return nil, fmt.Errorf("webhooks.file %s: %w", path, err)
	case len(faults) > 0:
		return nil, strict.Listed("webhooks.file "+path+" is invalid", faults)
	}
	return list, nil
}

func readEndpoint(r *strict.Reader, dir string, allowLinkLocal bool) (e Endpoint) {
	var secretFile string
	object := r.Kind() == strict.Object
	r.Fields(map[string]func(){
		"name":        func() { r.Text(&e.Name) },
		"url":         func() { r.Text(&e.URL) },
		"secret_file": func() { r.Text(&secretFile) },
		"types":       func() { r.Texts(maxTypes, &e.Types) },
	})
	if !object {
		return e
	}
	if !nameForm.MatchString(e.Name) {
		r.FaultIn("name", "want 1 to 63 lower-case letters, digits, - and _")
	}
	if wrong := checkURL(e.URL, allowLinkLocal); wrong != "" {
		r.FaultIn("url", "%s", wrong)
	}
	for _, pattern := range e.Types {
		if !slices.ContainsFunc(event.Types(), func(kind string) bool { return event.Matches(pattern, kind) }) {
			r.FaultIn("types", "%s, and patterns as head.*", strict.Unknown("event", pattern, event.Types()))
		}
	}
	var err error
	if e.Secret, err = readSecret(dir, secretFile); err != nil {
		r.FaultIn("secret_file", "%v", err)
	}
	return e
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return raw, err
}

// readSecret reads a secret of the form whsec_BASE64.
func readSecret(dir, path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("is required: a file with the secret that signs, as made with: echo whsec_$(openssl rand -base64 32)")
	}
	if strings.HasPrefix(path, "whsec_") {
		return nil, errors.New("want the path of a file, and this is a secret itself; put it into a file that only this user can read")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	raw, err := readBounded(path, 4096)
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(raw)), "whsec_")
	secret, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(secret) < minSecret || len(secret) > maxSecret {
		return nil, fmt.Errorf("%s does not have whsec_ and %d to %d bytes in base64", path, minSecret, maxSecret)
	}
	return secret, nil
}

func checkURL(text string, allowLinkLocal bool) string {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return "is required"
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "want http://host/path or https://host/path"
	case u.User != nil:
		return "must not carry a user name or password"
	case u.Fragment != "":
		return "must not have a fragment"
	}
	return address.CheckHost(u.Hostname(), allowLinkLocal, setting)
}

// setting allows link-local addresses.
const setting = "webhooks.allow_link_local"
