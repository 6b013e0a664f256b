// Package openai knows the forms of the OpenAI and Anthropic APIs as far as a
// router needs them: which endpoints there are, which fields of a request say
// where it goes, how a body is changed by pieces without being encoded again,
// what errors look like, and what streams and answers report. It does no I/O,
// starts no goroutine, and keeps no prompt or answer beyond the bounds stated.
package openai

import (
	"net/http"
	"strings"
)

// Unknown stands for a count that was not given.
const Unknown = -1

// Dialect is the family of forms that an endpoint has for errors and streams.
type Dialect uint8

// The dialects.
const (
	OpenAI Dialect = iota
	Anthropic
)

// Form is what the body of a request is.
type Form uint8

// The forms of a body.
const (
	JSON      Form = iota // an object
	Multipart             // multipart/form-data with the model in a part
	None                  // no body
)

// Endpoint is one line of the table of endpoints.
type Endpoint struct {
	// Name is from a closed list, fit for a label.
	Name   string
	Method string
	// Path is the path of requests; one that ends in {id} stands for all paths
	// with something in its place, slashes included.
	Path string
	// HeadPath is the path that engines have it at.
	HeadPath string
	Dialect  Dialect
	Form     Form
	// Streams says that an answer may be a stream of events.
	Streams bool
	// AsksUsage says that stream_options.include_usage exists here.
	AsksUsage bool
	// Generates says that answers are text that the model writes.
	Generates bool
}

var endpoints = []Endpoint{
	{Name: "chat.completions", Path: "/v1/chat/completions", Streams: true, AsksUsage: true, Generates: true},
	{Name: "completions", Path: "/v1/completions", Streams: true, AsksUsage: true, Generates: true},
	{Name: "responses", Path: "/v1/responses", Streams: true, Generates: true},
	{Name: "embeddings", Path: "/v1/embeddings"},
	{Name: "rerank", Path: "/v1/rerank"},
	{Name: "score", Path: "/v1/score"},
	{Name: "audio.transcriptions", Path: "/v1/audio/transcriptions", Form: Multipart, Streams: true},
	{Name: "audio.translations", Path: "/v1/audio/translations", Form: Multipart, Streams: true},
	{Name: "audio.speech", Path: "/v1/audio/speech", Streams: true},
	{Name: "images.generations", Path: "/v1/images/generations", Streams: true},
	{Name: "images.edits", Path: "/v1/images/edits", Form: Multipart, Streams: true},
	{Name: "images.variations", Path: "/v1/images/variations", Form: Multipart},
	{Name: "moderations", Path: "/v1/moderations"},
	{Name: "models", Method: http.MethodGet, Path: "/v1/models", Form: None},
	{Name: "model", Method: http.MethodGet, Path: "/v1/models/{id}", Form: None},
	{Name: "messages", Path: "/v1/messages", Dialect: Anthropic, Streams: true, Generates: true},
	{Name: "messages.count_tokens", Path: "/v1/messages/count_tokens", Dialect: Anthropic},
	{Name: "tokenize", Path: "/v1/tokenize", HeadPath: "/tokenize"},
	{Name: "detokenize", Path: "/v1/detokenize", HeadPath: "/detokenize"},
}

var byPath = make(map[string]*Endpoint, len(endpoints))

func init() {
	for i := range endpoints {
		e := &endpoints[i]
		if e.Method == "" {
			e.Method = http.MethodPost
		}
		if e.HeadPath == "" {
			e.HeadPath = e.Path
		}
		byPath[e.Path] = e
	}
}

// Endpoints returns the table. Callers only read it.
func Endpoints() []Endpoint { return endpoints }

// Lookup finds the endpoint of a request by its method and decoded path. The id
// is what stands for {id}, or empty. The error is 404 or 405, in the dialect of
// dialectOf(path).
func Lookup(method, path string) (e *Endpoint, id string, err *Error) {
	e = byPath[path]
	if e == nil {
		if rest, ok := strings.CutPrefix(path, "/v1/models/"); ok && rest != "" {
			e, id = byPath["/v1/models/{id}"], rest
		}
	}
	switch {
	case e == nil || strings.HasSuffix(path, "{id}") && id == "":
		return nil, "", &Error{Status: http.StatusNotFound, Code: "unknown_url", Message: "Invalid URL (" + clip(method) + " " + clip(path) + ")"}
	case method != e.Method:
		return nil, "", &Error{Status: http.StatusMethodNotAllowed, Message: "Not allowed to " + clip(method) + " on " + clip(path) + "; the method is " + e.Method}
	}
	return e, id, nil
}

// DialectOf says in which dialect errors of a path are, known endpoint or not.
func DialectOf(path string) Dialect {
	if path == "/v1/messages" || strings.HasPrefix(path, "/v1/messages/") {
		return Anthropic
	}
	return OpenAI
}

// clip bounds what is repeated from a request.
func clip(s string) string {
	const longest = 200
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return s
}
