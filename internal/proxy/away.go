package proxy

import (
	"bytes"
	"time"

	"headway/internal/openai"
)

// leastPause is how long it takes until the first of the heads takes requests again
// that the request may go to and that asked for a pause, or the last one that it was
// at; 0: none asked.
func (x *exchange) leastPause() time.Duration {
	now, least := x.proxy.o.Now(), x.proxy.o.Router.PausedUntil(&x.req)
	if own := x.placed.Head.Live.AwayUntil(now); least.IsZero() || !own.IsZero() && own.Before(least) {
		least = own
	}
	if least.IsZero() {
		return 0
	}
	return least.Sub(now)
}

// renamed is an error's text without the key that its head asks for, and with the
// name that the caller used of the model in the place of the head's.
func (a *attempt) renamed(text []byte) []byte {
	if a.headKey != "" && bytes.Contains(text, []byte(a.headKey)) {
		text = bytes.ReplaceAll(text, []byte(a.headKey), []byte("***"))
	}
	if a.model == "" {
		return text
	}
	return openai.Rename(text, a.real, a.model)
}
