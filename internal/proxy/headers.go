package proxy

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"headway/internal/access"
	"headway/internal/openai"
	"headway/internal/upstream"
)

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
		if x.proxy.toHeads.passes(name, connection, e == PassThrough) && (e.Form != openai.JSON || name != "Content-Type") {
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
		a.call.Body, a.call.Stream, a.call.Length = nil, x.upload, x.r.ContentLength
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
	connection, limits := from["Connection"], speaksOfLimits(h)
	for name, values := range from {
		if h[name] == nil && toCallers.passes(name, connection, true) && !(limits && ofLimits(name)) { // what is set already is ours
			if x.model != "" && len(values) == 1 && values[0] == x.real && strings.Contains(name, "Model") {
				values = []string{x.model}
			}
			h[name] = values
			if x.headKey != "" && slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, x.headKey) }) {
				delete(h, name)
			}
		}
	}
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // or net/http would guess one
	}
	if length > automatic || length >= 0 && (x.unread() || x.r.Method == http.MethodHead) {
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
