package proxy

import (
	"bytes"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"headway/internal/strict"
)

// ours begins the names of fields that only Headway writes.
const ours = "X-Headway-"

// fate is what becomes of a field of a message.
type fate uint8

const (
	byKind     fate = iota // its name is in no list: the rule of kinds decides
	passed                 // it is passed on
	dropped                // it is not
	belowHeads             // it is to PassThrough alone: it is of a part or a state of the content
)

// rule says by their names which fields of messages are passed on.
type rule struct {
	known map[string]fate         // by canonical names
	kind  func(lower []byte) bool // reports whether others by such names are dropped
	drop  []string                // patterns of names in lower case that are dropped too
	pass  []string                // and of those that are passed though kind drops them
}

func (r *rule) set(f fate, names ...string) {
	for _, n := range names {
		r.known[n] = f
	}
}

// passes reports whether a field is passed on. connection are the fields that the
// message's Connection field names.
func (r *rule) passes(name string, connection []string, whole bool) bool {
	f := r.known[name]
	if f == byKind {
		f = r.decide(name)
	}
	if f == dropped || f == belowHeads && !whole {
		return false
	}
	for _, line := range connection {
		for field := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(field), name) {
				return false
			}
		}
	}
	return true
}

func (r *rule) decide(name string) fate {
	var memory [64]byte
	lower := memory[:0]
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		default: // _ and . are - to some readers
			return dropped
		}
		lower = append(lower, c)
	}
	switch {
	case matches(r.drop, lower):
		return dropped
	case r.kind(lower) && !matches(r.pass, lower):
		return dropped
	}
	return passed
}

func matches(patterns []string, name []byte) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return strict.Match(p, string(name), nil) })
}

// toHeads is the rule of requests. Not passed on are fields of the connection, those
// that are written here or by upstream, credentials and accounts, who and where the
// caller is, and what has some servers take the request for another one than its first
// line says. Without Accept-Encoding heads answer plainly, so that usage can be read.
//
// drop and pass are names, * for any characters; pass does not have a field passed
// that is dropped by its very name.
func toHeads(drop, pass []string) *rule {
	r := &rule{known: map[string]fate{}, kind: privateOrActs, drop: lowered(drop), pass: lowered(pass)}
	r.set(passed,
		"Accept", "Accept-Language", "Cache-Control", "Content-Type", "Pragma", "User-Agent", "Idempotency-Key", "X-Idempotency-Key",
		"Openai-Beta", "Anthropic-Beta", "Anthropic-Version", "Anthropic-Dangerous-Direct-Browser-Access", "X-Openai-Client-User-Agent", "X-Client-Request-Id",
		"X-Stainless-Arch", "X-Stainless-Async", "X-Stainless-Lang", "X-Stainless-Os", "X-Stainless-Package-Version", "X-Stainless-Read-Timeout",
		"X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Timeout", "X-Stainless-Helper-Method")
	for name := range r.known {
		if matches(r.drop, []byte(strings.ToLower(name))) {
			r.known[name] = dropped
		}
	}
	r.set(belowHeads,
		"Range", "Content-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
		"Digest", "Content-Digest", "Repr-Digest", "Content-Md5")
	r.set(dropped,
		"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Host", "Content-Length", "Expect", "Accept-Encoding", "Traceparent", "Tracestate", "X-Request-Id",
		"Authorization", "Proxy-Authorization", "X-Api-Key", "Api-Key", "Cookie", "Cookie2", "Openai-Organization", "Openai-Project",
		"Forwarded", "Via", loopField, "From", "Origin", "Referer")
	return r
}

func lowered(names []string) []string {
	lower := make([]string, 0, len(names))
	for _, n := range names {
		lower = append(lower, strings.ToLower(n))
	}
	return lower
}

// privateParts are in the names of fields with a credential of the caller, or with
// who or where it is, as clients and the proxies before us write them; privateWords
// are such words of a name.
var (
	privateParts = parts("auth", "token", "secret", "passw", "passphrase", "passcode", "session", "cookie", "credential", "assertion", "signature", "bearer", "ticket",
		"jwt", "oidc", "saml", "dpop", "csrf", "xsrf", "cert", "identity", "principal", "claim", "impersonat", "user", "email", "login", "account", "organization",
		"forward", "addr", "country", "latlong", "latitude", "longitude", "override")
	privateWords = words("key", "keys", "pass", "pwd", "otp", "pin", "sid", "uid", "dn", "idp", "sub", "subject", "roles", "groups", "remote", "viewer", "geo", "city", "ssl", "tls", "mtls")

	// noAddress are words that end like those of addresses: clientip.
	noAddress = words("clip", "skip", "zip", "gzip", "chip", "strip", "flip", "ship", "trip", "tip", "equip", "ownership", "membership", "relationship")
)

// actingPrefixes begin, with or without x-, the names of fields in which proxies say
// what a request was before them, or another is to do: some servers take that for the
// request.
var actingPrefixes = parts("original-", "rewrite-", "rewritten-", "envoy-", "http-", "method", "script-", "path-info", "path-translated", "proxy", "ms-original", "waws-", "arr-",
	"request-uri", "request-url", "request-path", "request-method", "request-scheme", "url", "uri", "scheme", "host", "server-", "front-end-", "destination", "real-",
	"accel-", "sendfile", "lighttpd-", "surrogate-", "sec-", "access-control-", "cloudfront-", "cf-", "fastly-", "appengine-", "headway-")

func parts(list ...string) (all [][]byte) {
	for _, p := range list {
		all = append(all, []byte(p))
	}
	return all
}

func words(list ...string) map[string]bool {
	all := map[string]bool{}
	for _, w := range list {
		all[w] = true
	}
	return all
}

// privateOrActs is the kind of fields of requests that are dropped.
func privateOrActs(name []byte) bool {
	if begins(bytes.TrimPrefix(name, []byte("x-")), actingPrefixes) {
		return true
	}
	for _, p := range privateParts {
		if at := bytes.Index(name, p); at >= 0 && !bytes.HasPrefix(name[at:], []byte("tokeniz")) {
			return true
		}
	}
	for word := range bytes.SplitSeq(name, []byte("-")) {
		if privateWords[string(word)] || isKey(word) || isAddress(word) {
			return true
		}
	}
	return false
}

// isKey reports whether a word is one like apikey. Portkey is a gateway.
func isKey(word []byte) bool {
	return bytes.HasSuffix(word, []byte("key")) && string(word) != "portkey"
}

// isAddress reports whether a word is one like ip, clientip or ipv6.
func isAddress(word []byte) bool {
	return bytes.HasSuffix(word, []byte("ip")) && !noAddress[string(word)] || bytes.HasPrefix(word, []byte("ipv"))
}

func begins(name []byte, prefixes [][]byte) bool {
	return slices.ContainsFunc(prefixes, func(p []byte) bool { return bytes.HasPrefix(name, p) })
}

// toCallers is the rule of answers. Not passed on are fields of the connection, and
// what a head has no say in: who is logged in here, where clients go next, what a
// browser does with this origin, and what a proxy before us answers with or keeps.
var toCallers = func() *rule {
	r := &rule{known: map[string]fate{}, kind: func(name []byte) bool { return begins(name, actingAnswers) }}
	r.set(passed, "Content-Type", "Content-Encoding", "Cache-Control", "Openai-Processing-Ms", "Openai-Version")
	r.set(dropped,
		"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Date", "Server", "Set-Cookie", "Set-Cookie2", "Alt-Svc", "Alt-Used", "Strict-Transport-Security", "Www-Authenticate",
		"Clear-Site-Data", "Location", "Refresh", "Request-Id", "X-Request-Id", "Openai-Organization", "Openai-Project", "Anthropic-Organization-Id",
		"Link", "X-Associated-Content", "Nel", "Expect-Ct", "Accept-Ch", "Critical-Ch", "Set-Login", "Use-As-Dictionary", "Speculation-Rules", "Activate-Storage-Access")
	return r
}()

// actingAnswers begin the names of such fields of answers.
var actingAnswers = parts("x-headway-", "access-control-", "proxy", "x-accel-", "x-sendfile", "x-lighttpd-", "x-litespeed-", "x-reproxy-", "x-envoy-",
	"surrogate-", "cdn-", "edge-", "cloudflare-", "report", "public-key-pins", "service-worker-", "sec-", "secure-session-", "authentication-", "attribution-reporting-")

// limitsOf begin the names of the fields in which servers say what is left of a
// caller's limits.
var limitsOf = []string{"X-Ratelimit-", "Ratelimit", "Anthropic-Ratelimit-"}

// speaksOfLimits reports whether a header has what is left of the caller's limits
// here: a head's own would be taken for them.
func speaksOfLimits(h http.Header) bool {
	return h["X-Ratelimit-Limit-Requests"] != nil || h["X-Ratelimit-Limit-Tokens"] != nil
}

func ofLimits(name string) bool {
	return slices.ContainsFunc(limitsOf, func(p string) bool { return strings.HasPrefix(name, p) })
}

// leastSecret is the length of the shortest credential that is looked for. Clients
// send short words where none is needed.
const leastSecret = 16

// secretsOf are the credentials of a request, in both fields that clients send
// them in. No other field takes them to a head either.
func secretsOf(h http.Header) [2]string {
	_, bearer, _ := strings.Cut(h.Get("Authorization"), " ")
	return [2]string{textproto.TrimString(bearer), h.Get("X-Api-Key")}
}

func holds(value, secret string) bool {
	return len(secret) >= leastSecret && strings.Contains(value, secret)
}

// inURL reports whether a credential of the caller stands in the request's path or
// query too, which the head would get.
func (x *exchange) inURL() bool {
	if x.caller.Endpoint != PassThrough && x.r.URL.RawQuery == "" {
		return false
	}
	text := x.r.URL.RequestURI()
	for range decodings {
		if holds(text, x.secrets[0]) || holds(text, x.secrets[1]) {
			return true
		}
		if !strings.Contains(text, "%") {
			break
		}
		text = escaped.ReplaceAllStringFunc(text, func(code string) string {
			b, _ := strconv.ParseUint(code[1:], 16, 8) // the pattern has checked it
			return string([]byte{byte(b)})
		})
	}
	return false
}

// decodings is how often readers of a URL may decode it, and once more.
const decodings = 4

var escaped = regexp.MustCompile(`%[0-9a-fA-F]{2}`)
