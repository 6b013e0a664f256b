package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/upstream"
)

// PassThrough is the endpoint of requests to heads of other kinds, by
// /heads/{model_type}/{path at the head}: of any method, with bodies that nothing
// is read from.
var PassThrough = &openai.Endpoint{Name: "heads", Form: openai.None}

const passThroughPath = "/heads/"

// maxReplayed is the longest body of a request to PassThrough that is read before
// it is sent, so that another head can get it. Longer ones go to one head as they
// come.
const maxReplayed = 1 << 20

// readPassThrough finds the model type and the path at the head, and reads the body
// if it is short.
func (x *exchange) readPassThrough() error {
	switch {
	case len(x.r.Header["Upgrade"]) > 0 && !strings.EqualFold(strings.Join(x.r.Header["Upgrade"], ","), "h2c") || x.r.Method == http.MethodConnect:
		return &openai.Error{Status: http.StatusNotImplemented, Code: "upgrade_not_supported", Message: "Connections cannot be upgraded here."}
	case x.r.Method == http.MethodTrace: // its answer is the request, with the head's own credential
		return &openai.Error{Status: http.StatusMethodNotAllowed, Message: "TRACE is not passed to heads."}
	}
	model, path, wrong := split(x.r.URL.EscapedPath(), func(model string) bool { return x.proxy.pool(model) != nil })
	if wrong != nil {
		return wrong
	}
	x.fields.Model, x.target = model, path
	if err := x.permittedSomewhere(model); err != nil {
		return err
	}
	if q := x.r.URL.RawQuery; q != "" || x.r.URL.ForceQuery {
		x.target += "?" + q
	}
	if x.r.ContentLength < 0 || x.r.ContentLength > maxReplayed {
		x.upload = newUpload(x)
		x.proxy.underway.awaits(x.standing, true)
	} else if err := x.readBody(); err != nil {
		return err
	}
	return x.request()
}

func (p *Proxy) pool(model string) *fleet.Pool {
	return p.o.Fleet.Snapshot().Pools[p.o.Router.Policy().Model(model)]
}

var errPath = errors.New("readers may take the path apart in different ways")

// maxModelParts is how many parts of a path a model type may be, which has slashes
// that are not encoded.
const maxModelParts = 4

// split takes the model type from the front of a path as it came, and leaves the
// rest as it is. A part of it that is . or .., however often it is encoded, with
// parameters or without, is refused, as is a control character: what stands
// between here and the head may resolve it.
func split(escaped string, known func(model string) bool) (model, path string, wrong *openai.Error) {
	parts := strings.Split(strings.TrimPrefix(escaped, passThroughPath), "/")
	for i, part := range parts {
		decoded, err := url.PathUnescape(part)
		if err == nil {
			err = checkPart(decoded)
		}
		if err != nil {
			return "", "", &openai.Error{Status: http.StatusBadRequest, Code: "invalid_path", Message: "The path cannot be decoded, or has a control character, or . or .. in it, which others resolve."}
		}
		if i == 0 {
			model = decoded
		}
	}
	rest := parts[1:]
	for i, longer := 0, model; !known(model) && i < min(len(rest), maxModelParts-1); i++ {
		if longer += "/" + rest[i]; known(longer) {
			model, rest = longer, rest[i+1:]
		}
	}
	if !fleet.ValidModelType(model) {
		return "", "", openai.ModelNotFound(model)
	}
	return model, "/" + strings.Join(rest, "/"), nil
}

// checkPart refuses a part of a path that a reader may resolve, which decodes it
// once more or cuts parameters from it.
func checkPart(part string) error {
	for {
		for piece := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == '/' || r == '\\' }) {
			if name, _, _ := strings.Cut(piece, ";"); name == "." || name == ".." {
				return errPath
			}
		}
		if strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errPath
		}
		next, err := url.PathUnescape(part)
		if err != nil || next == part {
			return nil
		}
		part = next
	}
}

// mayTryAgain reports whether a request to PassThrough that a head answered so may
// be sent to another head: one that may be carried out twice, and what the head said
// that it did not do.
func (x *exchange) mayTryAgain(status int) bool {
	return status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented && x.repeatable()
}

// forwards reports whether an answer to PassThrough is for the caller as it is.
func (x *exchange) forwards(status int) bool {
	return !isRedirect(status) && status >= 200 && status != http.StatusUnauthorized && status != http.StatusProxyAuthRequired && !x.mayTryAgain(status)
}

// forward passes on an answer from which nothing is read but its begin.
func (x *exchange) forward(res *upstream.Response, begin []byte) *failure {
	x.first = x.proxy.o.Now()
	x.proxy.o.Router.Answered(x.decision)
	length := res.ContentLength
	if res.Status == http.StatusNoContent || res.Status == http.StatusNotModified {
		length = -1
	}
	x.header(res.Status, res.Header, length)
	if x.write(x.mask.apply(begin)) != nil {
		return x.left()
	}
	x.text += int64(len(begin))
	c, _ := chunks.Get().(*chunk)
	defer chunks.Put(c)
	return x.rest(res, &openai.Answer{Endpoint: x.caller.Endpoint}, false, c.b[:])
}

// isolate has a browser take the pages of a head for those of no origin: they are not
// to act with the rights of the console, whose origin they come from.
func isolate(h, from http.Header) {
	h["Content-Security-Policy"] = append([]string{"sandbox"}, from["Content-Security-Policy"]...)
	h["X-Content-Type-Options"] = []string{"nosniff"}
}
