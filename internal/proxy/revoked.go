package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"

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

// underway are the requests whose callers may lose their rights.
type underway struct {
	mu   sync.Mutex
	ends map[*exchange]context.CancelCauseFunc
}

// stand has the request end when its caller's credential is revoked.
func (p *Proxy) stand(x *exchange) {
	if p.o.Guard == nil || x.caller.Principal == nil {
		return
	}
	ctx, end := context.WithCancelCause(x.r.Context()) // which ends with the request
	x.r = x.r.WithContext(ctx)
	u := &p.underway
	u.mu.Lock()
	u.ends[x] = end
	u.mu.Unlock()
	if p.revoked(x) { // before it was there to be found
		end(access.ErrRevoked)
	}
}

func (u *underway) leave(x *exchange) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.ends, x)
}

func (p *Proxy) revoked(x *exchange) bool {
	return errors.Is(p.o.Guard.Ended(x.caller.Principal), access.ErrRevoked)
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
	u := &p.underway
	u.mu.Lock()
	defer u.mu.Unlock()
	for x, end := range u.ends {
		if p.revoked(x) {
			n++
			end(access.ErrRevoked)
			p.bodies.interrupt(x.rc)
		}
	}
	return n
}

func keyRevoked() *openai.Error {
	return &openai.Error{
		Status: http.StatusUnauthorized, Code: "key_revoked",
		Message: "The credential of the request was revoked before the answer was complete.",
	}
}
