package webhook

import (
	"bytes"
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

	"go.yaml.in/yaml/v3"

	"headway/internal/address"
	"headway/internal/event"
	"headway/internal/strict"
)

// Endpoint is somebody who is told of events.
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
	minSecret    = 24 // bytes; the specification wants 24 to 64
	maxSecret    = 64
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Read reads the endpoints from a YAML file. The errors name the endpoint and
// the field; secrets are in none of them.
func Read(path string, allowLinkLocal bool) ([]Endpoint, error) {
	raw, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("webhooks.file: %w", err)
	}
	var file struct {
		Endpoints []struct {
			Name       string   `yaml:"name"`
			URL        string   `yaml:"url"`
			SecretFile string   `yaml:"secret_file"`
			Types      []string `yaml:"types"`
		} `yaml:"endpoints"`
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("webhooks.file %s: %s", path, inWords(err))
	}
	var errs []error
	var list []Endpoint
	if len(file.Endpoints) > maxEndpoints {
		errs = append(errs, fmt.Errorf("endpoints: has %d; at most %d are allowed", len(file.Endpoints), maxEndpoints))
	}
	for i, e := range file.Endpoints {
		fault := func(field, format string, args ...any) {
			errs = append(errs, fmt.Errorf("endpoints[%d].%s: %s", i, field, fmt.Sprintf(format, args...)))
		}
		switch {
		case !nameForm.MatchString(e.Name):
			fault("name", "want 1 to 63 lower-case letters, digits, - and _")
		case slices.ContainsFunc(list, func(other Endpoint) bool { return other.Name == e.Name }):
			fault("name", "%s is there twice", e.Name)
		}
		if wrong := checkURL(e.URL, allowLinkLocal); wrong != "" {
			fault("url", "%s", wrong)
		}
		for _, pattern := range e.Types {
			if !slices.ContainsFunc(event.Types(), func(kind string) bool { return event.Matches(pattern, kind) }) {
				fault("types", "no event is %q%s; there are %s, and patterns as head.*", pattern, strict.DidYouMean(pattern, event.Types()), strings.Join(event.Types(), ", "))
			}
		}
		secret, err := readSecret(filepath.Dir(path), e.SecretFile)
		if err != nil {
			fault("secret_file", "%v", err)
		}
		list = append(list, Endpoint{Name: e.Name, URL: e.URL, Secret: secret, Types: e.Types})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("webhooks.file %s: %w", path, err)
	}
	return list, nil
}

// fields are those of the file.
var fields = []string{"endpoints", "name", "url", "secret_file", "types"}

// unquoted is what the library repeats of text that begins with * or !, as a
// secret may.
var unquoted = regexp.MustCompile(`'[^']*'`)

var unknownField = regexp.MustCompile(`field (.+) not found in type .+`)

// inWords is what is wrong with the file, without the names that its parts have
// in the program.
func inWords(err error) string {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return unquoted.ReplaceAllString(err.Error(), "'…'")
	}
	texts := slices.Clone(wrong.Errors)
	for i, text := range texts {
		line, _, _ := strings.Cut(text, ": ")
		if found := unknownField.FindStringSubmatch(text); found != nil {
			texts[i] = fmt.Sprintf("%s: unknown field %q%s; there are %s", line, found[1], strict.DidYouMean(found[1], fields), strings.Join(fields, ", "))
		} else {
			texts[i] = line + ": has the wrong form; want endpoints, a list of entries with name, url, secret_file and types"
		}
	}
	return strings.Join(texts, "; ")
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
