package proxy

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"headway/internal/access"
	"headway/internal/openai"
	"headway/internal/upstream"
)

// toHead are the fields of a request that are not passed on, by their canonical
// names: those of the connection, those that upstream writes, credentials, and
// what says where the caller is. Without Accept-Encoding heads answer plainly, so
// that usage can be read.
var toHead = drop(
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	"Host", "Content-Length", "Expect", "Accept-Encoding",
	"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Cookie", "Cookie2",
	"X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token", "X-Goog-Api-Key", "X-Amz-Security-Token",
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Real-Ip", "Via",
	"X-Request-Id", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Origin", "Referer",
)

// toCaller are the fields of an answer that are not passed on.
var toCaller = drop(
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Content-Length", "Date", "Server", "Set-Cookie", "Set-Cookie2", "Alt-Svc", "Strict-Transport-Security", "Www-Authenticate", "X-Request-Id",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Location",
)

func drop(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// ours begins the names of fields that only Headway writes.
const ours = "X-Headway-"

// passes reports whether a field is passed on. connection are the fields that the
// message's Connection field names.
func passes(name string, drop map[string]bool, connection []string) bool {
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

// prepare makes the call to the decision's head.
func (x *exchange) prepare() {
	d, e := x.decision, x.caller.Endpoint
	x.real, x.model = "", ""
	if d.ModelType != x.fields.Model {
		x.real, x.model = d.ModelType, x.fields.Model
	}
	x.asked = x.fields.Stream && e.AsksUsage && x.fields.IncludeUsage == openai.Absent && reportsUsage[d.Head.Engine]
	pieces, _ := x.fields.Rewrite(x.pieces[:0], x.body.b, x.real, x.asked)
	fields := x.fieldA[:0]
	connection := x.r.Header["Connection"]
	for name, values := range x.r.Header {
		if passes(name, toHead, connection) && (e.Form != openai.JSON || name != "Content-Type") {
			for _, v := range values {
				fields = append(fields, upstream.Field{Name: name, Value: v})
			}
		}
	}
	fields = append(fields, upstream.Field{Name: "X-Request-Id", Value: x.caller.RequestID})
	if e.Form == openai.JSON { // curl -d says that it is a form; the body was read as JSON
		fields = append(fields, upstream.Field{Name: "Content-Type", Value: "application/json"})
	}
	path := e.HeadPath
	if q := x.r.URL.RawQuery; q != "" {
		path += "?" + q
	}
	x.call = upstream.Call{
		Endpoint: d.Head.Endpoint, Method: x.r.Method, Path: path, Header: fields, Body: pieces,
	}
	if x.fields.Stream && e.Streams && e.Name != "audio.speech" { // that may be answered by sound
		x.call.Silence = x.silent
	}
}

// reportsUsage are the engines that are known to have stream_options.
var reportsUsage = map[string]bool{"vllm": true, "sglang": true, "trtllm": true, "llamacpp": true, "tgi": true}

// header begins the answer to the caller.
func (x *exchange) header(status int, from http.Header, length int64) {
	h := x.w.Header()
	connection := from["Connection"]
	for name, values := range from {
		if passes(name, toCaller, connection) {
			h[name] = values
		}
	}
	if length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	x.describe(h)
	x.begun = true
	x.w.WriteHeader(status)
}

// describe says in the answer how the request was placed.
func (x *exchange) describe(h http.Header) {
	if d := x.decision; d != nil {
		h["X-Headway-Decision-Id"] = []string{d.ID()}
		h["X-Headway-Strategy"] = []string{d.Strategy}
		h["X-Headway-Region"] = []string{d.Head.Region}
		if x.caller.Principal.May(access.Read) {
			h["X-Headway-Head"] = []string{d.Head.ID}
		}
	}
	h["X-Headway-Attempts"] = []string{strconv.Itoa(x.attempts)}
	x.answers(x.proxy.o.Now())
	h["X-Headway-Overhead-Ms"] = []string{strconv.FormatFloat(millis(x.overhead), 'f', 3, 64)}
}

// isEvents reports whether an answer is a stream of events.
func isEvents(h http.Header) bool { return mediaType(h) == "text/event-stream" }

func mediaType(h http.Header) string {
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
