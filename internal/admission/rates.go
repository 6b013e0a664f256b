package admission

import (
	"sync"
	"time"
)

// window is the time that limits count for. A caller's begins with its first
// request after the one before has ended.
const window = time.Minute

// maxAccounts bounds the callers whose use is remembered.
const maxAccounts = 100_000

// accounts are what callers used in their current window.
type accounts struct {
	mu   sync.Mutex
	byID map[string]*account
}

type account struct {
	began    time.Time
	requests int64
	tokens   int64
}

// Quota is one limit of a caller and what is left of it; the zero value is no limit.
type Quota struct {
	Limit     int64
	Remaining int64
	Reset     time.Duration // until all of it is there again
}

// Standing is where a caller stands with its limits.
type Standing struct{ Requests, Tokens Quota }

// LimitError says that a caller has used up one of its limits.
type LimitError struct {
	Tokens     bool // that limit; else that of requests
	Limit      int64
	RetryAfter time.Duration
}

func (e *LimitError) Error() string {
	if e.Tokens {
		return "the caller's tokens of this minute are used up"
	}
	return "the caller's requests of this minute are used up"
}

// Enter counts a request of a caller, unless one of its limits is reached: then
// the error is a *LimitError. The standing is that after the request.
func (a *Admission) Enter(c *Caller) (s Standing, err error) {
	requests, tokens := limit(c.Requests, a.o.Requests), limit(c.Tokens, a.o.Tokens)
	if requests == 0 && tokens == 0 {
		return s, nil
	}
	a.accounts.mu.Lock()
	defer a.accounts.mu.Unlock()
	now := a.o.Now()
	u := a.account(c.ID, now)
	left := u.left(now)
	switch {
	case tokens > 0 && u.tokens >= tokens:
		a.metrics.tokens.Inc()
		err = &LimitError{Tokens: true, Limit: tokens, RetryAfter: left}
	case requests > 0 && u.requests >= requests:
		a.metrics.requests.Inc()
		err = &LimitError{Limit: requests, RetryAfter: left}
	default:
		u.requests++
	}
	return u.standing(requests, tokens, now), err
}

// Charge counts the tokens of a request that has ended. They may be more than were
// left: the next request waits for the next window. The standing is that after them,
// the zero value if none are counted.
func (a *Admission) Charge(c *Caller, tokens int64) (s Standing) {
	most := limit(c.Tokens, a.o.Tokens)
	if tokens <= 0 || most == 0 {
		return s
	}
	a.accounts.mu.Lock()
	defer a.accounts.mu.Unlock()
	now := a.o.Now()
	u := a.account(c.ID, now)
	u.tokens += tokens
	return u.standing(limit(c.Requests, a.o.Requests), most, now)
}

// left is the rest of the window.
func (u *account) left(now time.Time) time.Duration { return u.began.Add(window).Sub(now) }

// standing is where the caller stands with its limits.
func (u *account) standing(requests, tokens int64, now time.Time) Standing {
	return Standing{quota(requests, u.requests, u.left(now)), quota(tokens, u.tokens, u.left(now))}
}

// limit is a caller's own limit or the one that all have; 0: none.
func limit(own, all int64) int64 {
	if own == 0 {
		own = all
	}
	return max(own, 0)
}

func quota(limit, used int64, left time.Duration) (q Quota) {
	if limit > 0 {
		q = Quota{Limit: limit, Remaining: max(limit-used, 0)}
		if used > 0 {
			q.Reset = left
		}
	}
	return q
}

// account is what a caller used in its window now. accounts.mu must be held.
func (a *Admission) account(id string, now time.Time) *account {
	u := a.accounts.byID[id]
	if u == nil {
		if len(a.accounts.byID) >= maxAccounts {
			a.forget(now)
		}
		u = &account{began: now}
		a.accounts.byID[id] = u
	} else if now.Sub(u.began) >= window {
		*u = account{began: now}
	}
	return u
}

// forget makes room: it drops all accounts whose window has ended, or any if there
// are none.
func (a *Admission) forget(now time.Time) {
	last := ""
	for id, u := range a.accounts.byID {
		last = id
		if now.Sub(u.began) >= window {
			delete(a.accounts.byID, id)
		}
	}
	if len(a.accounts.byID) >= maxAccounts {
		delete(a.accounts.byID, last)
		a.metrics.dropped.Inc()
	}
}
