package proxy

import (
	"runtime"
	"sync"

	"headway/internal/openai"
	"headway/internal/prefix"
)

// longPrompt is the length of a body, in bytes, from which only some are worked on at a
// time: many of them at once must not keep the processors from short ones.
const longPrompt = 256 << 10

// turns are taken by the long prompts that are worked on.
var turns = make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1))

// turn waits until a body of so many bytes may be read through or hashed. The caller calls
// over behind that.
func turn(bytes int) (over func()) {
	if bytes < longPrompt {
		return func() {}
	}
	turns <- struct{}{}
	return func() { <-turns }
}

// scan reads through the body.
func (x *exchange) scan() *openai.Error {
	defer turn(len(x.body.b))()
	if x.caller.Endpoint.Form == openai.Multipart {
		return openai.ScanMultipart(x.body.b, x.r.Header.Get("Content-Type"), &x.fields)
	}
	return openai.Scan(x.body.b, &x.fields)
}

var chains = sync.Pool{New: func() any { return new(prefix.Chain) }}

// hash has the router's request know the prompt by the hashes of its blocks, where a head
// has a cache for it: where it generates. Nothing of its text is kept.
func (x *exchange) hash() {
	kind, id := x.caller.Principal.Identity()
	x.req.Scope = prefix.Scope(kind, id, x.fields.Adapter, x.fields.CacheSalt)
	for _, s := range x.fields.Prompt {
		x.prompt += int64(s.End - s.Start)
	}
	if !x.caller.Endpoint.Generates {
		return
	}
	defer turn(len(x.body.b))()
	c, _ := chains.Get().(*prefix.Chain)
	c.Reset(x.hashes[:0])
	x.prompt -= int64(x.fields.WriteText(x.body.b, c))
	x.hashes = c.Hashes
	x.req.PrefixHashes, x.req.PromptBytes = c.Hashes, c.Bytes()
	c.Reset(nil)
	chains.Put(c)
}
