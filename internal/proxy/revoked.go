package proxy

import (
	"context"
	"errors"
	"net/http"

	"headway/internal/access"
	"headway/internal/openai"
)

// Guard says which callers lose their rights while their requests are under way.
// Both methods are safe for concurrent use.
type Guard interface {
	// Ended is access.ErrRevoked for a principal whose credential is not accepted
	// any more. Other errors are of credentials that were good when the request came.
	Ended(p *access.Principal) error
	// Changed returns a channel that is closed when the answers of Ended may have
	// changed.
	Changed() <-chan struct{}
}

// loses reports whether the caller of a request under way has lost its rights.
func (p *Proxy) loses(s *standing) bool {
	return p.o.Guard != nil && s.principal != nil && errors.Is(p.o.Guard.Ended(s.principal), access.ErrRevoked)
}

// stand has the request be found while it is under way. A caller may have lost its
// rights before.
func (p *Proxy) stand(x *exchange) {
	s := &standing{Context: x.r.Context(), principal: x.caller.Principal, rc: &x.rc}
	x.standing, x.ctx = s, s
	p.underway.enter(s)
	if p.loses(s) {
		s.end(access.ErrRevoked)
	}
}

// WatchKeys ends the requests of callers whose credential is revoked, until ctx ends.
func (p *Proxy) WatchKeys(ctx context.Context) error {
	if p.o.Guard == nil {
		return nil
	}
	for {
		changed := p.o.Guard.Changed()
		if n := p.endRevoked(); n > 0 {
			p.o.Log.Info("requests were ended: their credentials were revoked", "requests", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// endRevoked returns how many requests it ended.
func (p *Proxy) endRevoked() (n int) {
	p.underway.each(func(s *standing) {
		if s.Err() == nil && p.loses(s) {
			n++
			s.end(access.ErrRevoked)
			s.interrupt()
		}
	})
	return n
}

func keyRevoked() *openai.Error {
	return &openai.Error{
		Status: http.StatusUnauthorized, Code: "key_revoked",
		Message: "The credential of the request was revoked before the answer was complete.",
	}
}
