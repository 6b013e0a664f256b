package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"headway/internal/access"
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

// inference are the engines that /v1 is for. Their other paths load adapters, free
// caches or end the process.
var inference = map[string]bool{"vllm": true, "sglang": true, "tgi": true, "llamacpp": true, "ollama": true, "trtllm": true, "openai": true}

// upload is a body on its way from the caller to a head.
type upload struct {
	x     *exchange
	begun bool // some of it was asked for: no other head can get it any more
	until time.Time
}

func (u *upload) Read(p []byte) (int, error) {
	u.begun = true
	limit := u.x.proxy.o.Limits.BodyTime
	if now := time.Now(); u.until.Sub(now) < limit/2 {
		u.until = now.Add(limit)
		_ = u.x.rc.SetReadDeadline(u.until)
		if u.x.proxy.bodies.stopping.Load() { // it may be later than that of stop
			return 0, ErrStopping
		}
	}
	n, err := u.x.r.Body.Read(p)
	if err == io.EOF {
		_ = u.x.rc.SetReadDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // upstream makes a kind of it
}

// readPassThrough finds the model type and the path at the head, and reads the body
// if it is short.
func (x *exchange) readPassThrough() error {
	if len(x.r.Header["Upgrade"]) > 0 && !strings.EqualFold(x.r.Header.Get("Upgrade"), "h2c") || x.r.Method == http.MethodConnect {
		return &openai.Error{Status: http.StatusNotImplemented, Code: "upgrade_not_supported", Message: "Connections cannot be upgraded here."}
	}
	model, path, wrong := split(x.r.URL.EscapedPath(), func(model string) bool { return x.proxy.pool(model) != nil })
	if wrong != nil {
		return wrong
	}
	if pool := x.proxy.pool(model); pool != nil && !x.caller.Principal.May(access.Operate) {
		for _, h := range pool.All.Heads {
			if engine := strings.ToLower(h.Engine); inference[engine] {
				return &openai.Error{
					Status:  http.StatusForbidden,
					Message: "Heads of the engine " + engine + " are reached by /v1; their other paths need the permission operate.",
				}
			}
		}
	}
	x.fields.Model, x.target = model, path
	if q := x.r.URL.RawQuery; q != "" || x.r.URL.ForceQuery {
		x.target += "?" + q
	}
	if x.r.ContentLength < 0 || x.r.ContentLength > maxReplayed {
		x.upload = &upload{x: x}
		x.proxy.bodies.begin(x.rc)
	} else if err := x.proxy.bodies.read(x.rc, x.r, &x.body); err != nil {
		return err
	}
	return x.request()
}

func (p *Proxy) pool(model string) *fleet.Pool {
	return p.o.Fleet.Snapshot().Pools[p.o.Router.Policy().Model(model)]
}

var errDots = errors.New("the path has . or .. in it")

// maxModelParts is how many parts of a path a model type may be, which has slashes
// that are not encoded.
const maxModelParts = 4

// split takes the model type from the front of a path as it came, and leaves the
// rest as it is. A part of it that is . or .., encoded or not, is refused: what
// stands between here and the head may resolve it.
func split(escaped string, known func(model string) bool) (model, path string, wrong *openai.Error) {
	parts := strings.Split(strings.TrimPrefix(escaped, passThroughPath), "/")
	for i, part := range parts {
		decoded, err := url.PathUnescape(part)
		for piece := range strings.FieldsFuncSeq(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
			if piece == "." || piece == ".." {
				err = errDots
			}
		}
		if err != nil {
			return "", "", &openai.Error{Status: http.StatusBadRequest, Code: "invalid_path", Message: "The path cannot be decoded, or has . or .. in it, which others resolve."}
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

// mayTryAgain reports whether a request to PassThrough that a head answered so may
// be sent to another head: what changes nothing when it is done twice, and what the
// head refused to do.
func (x *exchange) mayTryAgain(status int) bool {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return status >= 500 || status == http.StatusTooManyRequests
	}
	return status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
}

// forwards reports whether an answer to PassThrough is for the caller as it is.
func (x *exchange) forwards(status int) bool {
	return !isRedirect(status) && status >= 200 && status != http.StatusUnauthorized && status != http.StatusProxyAuthRequired && !x.mayTryAgain(status)
}

// forward passes on an answer from which nothing is read.
func (x *exchange) forward(res *upstream.Response) *failure {
	x.first = x.proxy.o.Now()
	x.proxy.o.Router.Begun(x.decision)
	length := res.ContentLength
	if res.Status == http.StatusNoContent || res.Status == http.StatusNotModified {
		length = -1
	}
	x.header(res.Status, res.Header, length)
	c, _ := chunks.Get().(*chunk)
	defer chunks.Put(c)
	return x.rest(res, &openai.Answer{Endpoint: x.caller.Endpoint}, false, c.b[:])
}
