package access

import (
	"encoding/hex"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// CheckURL refuses a request with a credential anywhere in its URL, where logs
// and histories keep it, whether it is a good one or not. The error is ErrInURL.
// It costs the caller nothing: the credential is not checked, and a foreign
// page can have a browser send such a request.
func (g *Guard) CheckURL(r *http.Request) error {
	if !keyIn(r.RequestURI) && (r.URL.RawQuery == "" || !namesKey(r.URL.RawQuery)) {
		return nil
	}
	return g.failed(ErrInURL, nil, netip.Addr{})
}

// namesKey reports whether a query has a parameter by a name under which others
// take keys.
func namesKey(query string) bool {
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		name = strings.Map(letter, decoded(name))
		switch name {
		case "token", "key", "authorization":
			return true
		}
		if slices.ContainsFunc(keyNames, func(k string) bool { return strings.HasSuffix(name, k) }) { // X-Api-Key
			return true
		}
	}
	return false
}

var keyNames = []string{"apikey", "accesskey", "accesstoken", "authtoken", "bearertoken", "idtoken"}

// letter leaves letters, in lower case.
func letter(r rune) rune {
	if r = unicode.ToLower(r); unicode.IsLetter(r) {
		return r
	}
	return -1
}

// key matches the beginning of a key, with one character of its secret, or of a
// local credential. A head may be called hw_1.
var key = regexp.MustCompile(`(?s)hw_[0-9a-f]{12}_.|` + localPrefix)

func keyIn(url string) bool {
	url = decoded(url)
	return strings.Contains(url, "hw") && key.MatchString(url)
}

var escaped = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

// decoded is a part of a URL without percent-encoding. Unlike url.PathUnescape
// it leaves a wrong encoding as it is: a key may follow.
func decoded(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	return escaped.ReplaceAllStringFunc(text, func(code string) string {
		b, _ := hex.DecodeString(code[1:]) // the pattern has checked it
		return string(b)
	})
}
