package engines

import (
	"net/http"
	"slices"
	"strings"
)

// Serves reports whether a request is one that clients may send to a head of the
// engine. The path is as it is sent: what is encoded in it, or written in another
// way, is in no list, since engines read that differently. An engine that is not
// known has an empty list.
func (e *Engine) Serves(method, path string) bool {
	return slices.ContainsFunc(e.serves, func(line string) bool {
		m, pattern, _ := strings.Cut(line, " ")
		return (m == method || m == http.MethodGet && method == http.MethodHead) && matches(pattern, path)
	})
}

// Tells reports whether a request is one by which the service itself asks the engine
// how it is: it changes nothing. Others may, by GET too.
func (e *Engine) Tells(method, path string) bool {
	if method != http.MethodGet && method != http.MethodHead || path == "" {
		return false
	}
	return path == e.health || path == e.metrics || path == e.models.path && e.models.method == http.MethodGet || path == e.slots.path && e.slots.method == http.MethodGet
}

// OfText reports whether the engine serves language models, so that the bytes of
// bodies are an estimate of tokens.
func (e *Engine) OfText() bool { return e != &unknown && e != &triton }

func matches(pattern, path string) bool {
	for {
		want, patterns, more := strings.Cut(pattern, "/")
		part, parts, others := strings.Cut(path, "/")
		if more != others || part != want && (want != "{}" || !plain(part)) {
			return false
		}
		if !more {
			return true
		}
		pattern, path = patterns, parts
	}
}

// plain reports whether a part of a path means the same to every reader.
func plain(part string) bool {
	return part != "" && part != "." && part != ".." && !strings.ContainsFunc(part, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_.~", r)
	})
}
