package proxy

import (
	"mime"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"headway/internal/access"
	"headway/internal/openai"
	"headway/internal/upstream"
)

// toHead are the fields of a request that are not passed on, by their canonical
// names: those of the connection, those that are written here or by upstream,
// credentials and accounts, what says where the caller is, and what has some servers
// take the request for another one than its first line says. Without Accept-Encoding
// heads answer plainly, so that usage can be read.
var toHead = drop(
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	"Host", "Content-Length", "Expect", "Accept-Encoding", "Traceparent", "Tracestate", "X-Request-Id",
	"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Cookie", "Cookie2",
	"Openai-Organization", "Openai-Project",
	"Forwarded", "Via", loopField, "X-Original-Forwarded-For", "X-Envoy-External-Address", "Remote-User", "X-Remote-User", "X-Remote-Addr",
	"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Origin", "Referer",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Original-Uri", "X-Rewrite-Url",
)

// toCaller are the fields of an answer that are not passed on: those of the
// connection, and what a head has no say in: who is logged in here, where clients go
// next, and which of its own files or addresses a proxy before us answers with.
var toCaller = drop(
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Content-Length", "Date", "Server", "Set-Cookie", "Set-Cookie2", "Alt-Svc", "Strict-Transport-Security", "Www-Authenticate",
	"Clear-Site-Data", "Location", "Refresh", "X-Accel-Redirect", "X-Sendfile", "X-Lighttpd-Send-File", "X-Reproxy-Url",
	"Request-Id", "X-Request-Id", "Openai-Organization", "Openai-Project", "Anthropic-Organization-Id",
)

func drop(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// private reports whether a field has by its name a credential or the address of the
// caller, as clients and the proxies before us write them under many names.
func private(name string) bool {
	name = dashed(name)
	if strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Auth-Request-") {
		return true
	}
	before := ""
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '-' || r == '_' }) {
		if among(word, privateWords) || strings.EqualFold(word, "key") && among(before, keysOf) || strings.EqualFold(word, "cert") && strings.EqualFold(before, "client") {
			return true
		}
		before = word
	}
	return false
}

// privateWords are the words of such names, keysOf those before "key".
var (
	privateWords = []string{"authorization", "token", "secret", "password", "cookie", "credential", "credentials", "assertion", "jwt", "apikey", "ip", "clientip"}
	keysOf       = []string{"api", "access", "auth", "subscription"}
)

func among(word string, list []string) bool {
	for _, w := range list {
		if len(w) == len(word) && strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// ours begins the names of fields that only Headway writes.
const ours = "X-Headway-"

// dashed is the canonical name of a field as those read it who take _ for -.
func dashed(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	return textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// passes reports whether a field is passed on. connection are the fields that the
// message's Connection field names.
func passes(name string, drop map[string]bool, connection []string) bool {
	if other := dashed(name); other != name && !passes(other, drop, connection) {
		return false
	}
	if drop[name] || strings.HasPrefix(name, ours) {
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

// leastSecret is the length of the shortest credential that is looked for. Clients
// send short words where none is needed.
const leastSecret = 16

// secretsOf are the credentials of a request, in both fields that clients send
// them in. No other field takes them to a head either.
func secretsOf(h http.Header) [2]string {
	_, bearer, _ := strings.Cut(h.Get("Authorization"), " ")
	return [2]string{strings.TrimSpace(bearer), h.Get("X-Api-Key")}
}

func holds(value, secret string) bool {
	return len(secret) >= leastSecret && strings.Contains(value, secret)
}

// prepare makes the call to the decision's head.
func (a *attempt) prepare() {
	x, d, e := a.x, a.decision, a.x.caller.Endpoint
	if d.ModelType != x.fields.Model && e != PassThrough {
		a.real, a.model = d.ModelType, x.fields.Model
	}
	a.asked = x.fields.Stream && e.AsksUsage && x.fields.IncludeUsage == openai.Absent && x.proxy.asks(d.Head.Engine)
	pieces := append(a.pieces[:0], x.body.b)
	if e != PassThrough {
		pieces, _ = x.fields.Rewrite(pieces[:0], x.body.b, a.real, a.asked)
	}
	fields := a.lines[:0]
	connection := x.r.Header["Connection"]
	for name, values := range x.r.Header {
		if passes(name, toHead, connection) && !private(name) && (e.Form != openai.JSON || name != "Content-Type") {
			for _, v := range values {
				if !holds(v, x.secrets[0]) && !holds(v, x.secrets[1]) {
					fields = append(fields, upstream.Field{Name: name, Value: v})
				}
			}
		}
	}
	fields = x.proxy.signed(fields, x.r.Header)
	fields = append(fields, upstream.Field{Name: "X-Request-Id", Value: x.caller.RequestID}, upstream.Field{Name: "Traceparent", Value: x.trace.Traceparent(a.span)})
	if x.proxy.o.HeadKey != nil {
		if a.headKey = x.proxy.o.HeadKey(d.Head.Endpoint); a.headKey != "" {
			a.mask.of(a.headKey)
			fields = append(fields, upstream.Field{Name: "Authorization", Value: "Bearer " + a.headKey})
		}
	}
	for _, v := range x.trace.State() {
		fields = append(fields, upstream.Field{Name: "Tracestate", Value: v})
	}
	if e.Form == openai.JSON { // curl -d says that it is a form; the body was read as JSON
		fields = append(fields, upstream.Field{Name: "Content-Type", Value: "application/json"})
	}
	path := e.HeadPath
	if e == PassThrough {
		path = x.target
		for _, v := range x.r.Header["Accept-Encoding"] {
			fields = append(fields, upstream.Field{Name: "Accept-Encoding", Value: v})
		}
	} else if q := x.r.URL.RawQuery; q != "" {
		path += "?" + q
	}
	a.call = upstream.Call{
		Endpoint: d.Head.Endpoint, Method: x.r.Method, Path: path, Header: fields, Body: pieces,
	}
	if x.upload != nil && !x.upload.kept {
		a.call.Stream, a.call.Length = x.upload, x.r.ContentLength
	}
	if x.fields.Stream && e.Streams && e.Name != "audio.speech" { // that may be answered by sound
		a.call.Silence = x.silent
	}
}

// reportsUsage are the engines that are known to have stream_options.
var reportsUsage = map[string]bool{"vllm": true, "sglang": true, "trtllm": true, "llamacpp": true, "tgi": true}

func (p *Proxy) asks(engine string) bool {
	return p.o.AskUsage == AskAlways || p.o.AskUsage != AskNever && reportsUsage[strings.ToLower(engine)]
}

// header begins the answer to the caller.
func (x *exchange) header(status int, from http.Header, length int64) {
	h := x.w.Header()
	connection := from["Connection"]
	for name, values := range from {
		if h[name] == nil && passes(name, toCaller, connection) && !strings.HasPrefix(name, "Access-Control-") { // what is set already is ours
			if x.model != "" && len(values) == 1 && values[0] == x.real && strings.Contains(name, "Model") {
				values = []string{x.model}
			}
			h[name] = values
			if x.headKey != "" && slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, x.headKey) }) {
				delete(h, name)
			}
		}
	}
	if length > automatic || length >= 0 && x.r.Method == http.MethodHead {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	if x.caller.Endpoint == PassThrough {
		isolate(h, from)
	}
	x.describe(h, &x.said)
	x.begun, x.status = true, status
	x.w.WriteHeader(status)
}

// automatic is up to which length net/http says it itself, of an answer that is
// whole before anything of it was sent. One field less keeps a header's map small.
const automatic = 2000

// said are the values that describe sets in a header. net/http copies a header when
// the answer begins.
type said [6]string

// describe says in the answer how the request was placed.
func (x *exchange) describe(h http.Header, values *said) {
	d := x.placed
	if d == nil {
		return
	}
	n := 0
	set := func(name, value string) {
		values[n] = value
		h[name] = values[n : n+1 : n+1]
		n++
	}
	at := x.first // which was just now
	if at.IsZero() {
		at = x.proxy.o.Now()
	}
	x.answers(at)
	var text [96]byte
	id := d.AppendID(text[:0])
	both := string(strconv.AppendFloat(id, millis(x.overhead), 'f', 3, 64)) // one allocation
	set("X-Headway-Decision-Id", both[:len(id)])
	set("X-Headway-Overhead-Ms", both[len(id):])
	set("X-Headway-Attempts", strconv.Itoa(x.attempts))
	if queued := d.Queued(); queued > 0 {
		h["X-Headway-Queue-Ms"] = []string{strconv.FormatFloat(millis(queued), 'f', 3, 64)}
	}
	if d.Head != nil {
		set("X-Headway-Strategy", d.Strategy)
		set("X-Headway-Region", d.Head.Region)
		if f := d.Fallback(); f != nil {
			h["X-Headway-Fallback"] = []string{d.ModelType + ";region=" + d.Head.Region + ";reason=" + f.Why.String()}
		}
		if x.caller.Principal.May(access.Read) {
			set("X-Headway-Head", d.Head.ID)
		}
	}
}

// isEvents reports whether an answer is a stream of events.
func isEvents(h http.Header) bool { return mediaType(h) == "text/event-stream" }

// mediaType is the type of an answer's content, "" for one that is encoded, so
// that it cannot be read.
func mediaType(h http.Header) string {
	if encoded(h) {
		return ""
	}
	v := h.Get("Content-Type")
	switch v {
	case "application/json", "text/event-stream":
		return v
	}
	t, _, err := mime.ParseMediaType(v)
	if err != nil {
		return ""
	}
	return t
}

// encoded reports whether the content of a message is compressed.
func encoded(h http.Header) bool {
	e := h["Content-Encoding"]
	return len(e) > 1 || len(e) == 1 && !strings.EqualFold(e[0], "identity")
}
