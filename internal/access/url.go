package access

import (
	"net/http"
	"net/netip"
	"strings"
)

// CheckURL refuses a request with a credential anywhere in its URL, where logs
// and histories keep it, whether it is a good one or not. The error is ErrInURL.
// It costs the caller nothing: the credential is not looked at, and a foreign
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
		switch strings.ToLower(decoded(name)) {
		case "api_key", "apikey", "access_token", "token", "key", "authorization":
			return true
		}
	}
	return false
}

// keyIn reports whether a URL has something of the form of our keys, or what
// begins a local credential. A head may be called hw_1.
func keyIn(url string) bool {
	for url = decoded(url); ; {
		at := strings.Index(url, "hw")
		if at < 0 {
			return false
		}
		url = url[at:]
		if strings.HasPrefix(url, localPrefix) || isKey(url) {
			return true
		}
		url = url[len("hw"):]
	}
}

// isKey reports whether a text begins as a key does: with the prefix, an id and
// one character of the secret.
func isKey(text string) bool {
	rest, ours := strings.CutPrefix(text, keyPrefix)
	if !ours || len(rest) < keyIDLength+2 || rest[keyIDLength] != '_' {
		return false
	}
	return strings.Trim(rest[:keyIDLength], "0123456789abcdef") == ""
}

// keyIDLength is how many hexadecimal digits the id of a key has.
const keyIDLength = 12

// decoded is a part of a URL without percent-encoding; what is not encoded as it
// should be stays as it is, for there may be a key behind it.
func decoded(text string) string {
	at := strings.IndexByte(text, '%')
	if at < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for {
		out = append(out, text[:at]...)
		text = text[at:]
		if hi, lo := digit(text, 1), digit(text, 2); hi >= 0 && lo >= 0 {
			out, text = append(out, byte(hi<<4|lo)), text[3:]
		} else {
			out, text = append(out, '%'), text[1:]
		}
		if at = strings.IndexByte(text, '%'); at < 0 {
			return string(append(out, text...))
		}
	}
}

// digit is the value of the hexadecimal digit at a place, -1 if there is none.
func digit(text string, at int) int {
	if at >= len(text) {
		return -1
	}
	switch c := text[at]; {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
