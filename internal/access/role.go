// Package access authenticates callers and checks their permissions: by API
// keys, tokens of an OpenID Connect issuer, certificates of clients, and the
// local credential of the service's own user.
package access

import (
	"crypto/x509"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"headway/internal/strict"
)

// Permission is a kind of access. A route requires exactly one.
type Permission string

// The permissions. Open routes require none: they are for probes and scrapers.
const (
	Open    Permission = "open"
	Read    Permission = "read"    // see everything but secrets
	Operate Permission = "operate" // manage heads
	Decide  Permission = "decide"  // ask for decisions and report outcomes
	BeHead  Permission = "head"    // register heads and report their status
	Admin   Permission = "admin"   // change policy, keys and configuration
)

// Permissions lists those that can be given.
func Permissions() []Permission { return []Permission{Read, Operate, Decide, BeHead, Admin} }

// Role is a named set of permissions.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
	RoleHead     Role = "head"
	RoleClient   Role = "client"
)

// Roles lists the roles.
func Roles() []Role { return []Role{RoleViewer, RoleOperator, RoleAdmin, RoleHead, RoleClient} }

// allows is what each role may do.
var allows = map[Role][]Permission{
	RoleViewer:   {Read},
	RoleOperator: {Read, Operate, Decide, BeHead},
	RoleAdmin:    {Read, Operate, Decide, BeHead, Admin},
	RoleHead:     {BeHead},
	RoleClient:   {Decide},
}

// Allows reports whether the role has the permission.
func (r Role) Allows(p Permission) bool { return slices.Contains(allows[r], p) }

// Principal is an authenticated caller. The zero value has no permission. It is
// immutable.
type Principal struct {
	Type    string // key, jwt, certificate, local or anonymous
	ID      string // of the key, the subject, the certificate
	Name    string // for people
	Role    Role
	Scopes  []Permission // of what the role may do; empty: all of it
	Heads   []string     // patterns of the ids that a head may have; of other roles empty
	Regions []string     // patterns of the regions that a head may be in; empty: any
	Expires time.Time    // zero: never
	Limits  Limits       // of a key's requests to the data plane
	rate    *bucket
	shown   []*x509.Certificate // by a client that has no other credential: its own and those between
}

// May reports whether the principal has the permission.
func (p *Principal) May(want Permission) bool {
	return p != nil && p.Role.Allows(want) && (len(p.Scopes) == 0 || slices.Contains(p.Scopes, want))
}

// Identity is the type and the id of the principal, which no other has; of none both are
// empty.
func (p *Principal) Identity() (kind, id string) {
	if p == nil {
		return "", ""
	}
	return p.Type, p.ID
}

// Mark is another for each principal within this process, as far as 32 bits go.
func (p *Principal) Mark() uint32 {
	if p == nil {
		return 0
	}
	return uint32(maphash.String(marks, p.Type)*3 + maphash.String(marks, p.ID))
}

var marks = maphash.MakeSeed()

// Require checks a permission. The errors of this and the next two are
// *DeniedError or, without a principal, ErrNoCredential.
func (p *Principal) Require(needs Permission) error {
	if p.May(needs) { // each decision asks: no text is made for it
		return nil
	}
	may := ""
	for _, role := range Roles() {
		if role.Allows(needs) {
			may += ", " + string(role)
		}
	}
	if p != nil && p.Role.Allows(needs) {
		return p.unless(false, "does not have the permission "+string(needs)+": its scopes leave it out")
	}
	return p.unless(false, "does not have the permission "+string(needs)+", which these roles have: "+may[2:])
}

// RequireHead checks that the principal may act for the head.
func (p *Principal) RequireHead(id string) error {
	return p.unless(p.May(BeHead) && (p.Role != RoleHead || matchesAny(p.Heads, id)), "may not act for this head")
}

// RequireRegion checks that the principal may register heads in the region.
func (p *Principal) RequireRegion(region string) error {
	allowed := p.May(BeHead) && (p.Role != RoleHead || len(p.Regions) == 0 || matchesAny(p.Regions, region))
	return p.unless(allowed, "may not register heads in this region")
}

func (p *Principal) unless(allowed bool, reason string) error {
	switch {
	case allowed:
		return nil
	case p == nil:
		return ErrNoCredential
	}
	return &DeniedError{"the " + p.Type + " " + reason}
}

// DeniedError is that a known principal lacks a permission.
type DeniedError struct{ Reason string }

func (e *DeniedError) Error() string { return e.Reason }

func matchesAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return strict.Match(p, s, nil) })
}

// covers reports whether every text that narrow matches is matched by wide, as
// far as the patterns show it: it errs on the side of no.
func covers(wide, narrow []string) bool {
	return !slices.ContainsFunc(narrow, func(n string) bool {
		return !slices.ContainsFunc(wide, func(w string) bool { return strict.Match(w, n, nil) })
	})
}

// Errors of authentication and of keys. None repeats a secret.
var (
	ErrNoCredential = errors.New("this needs a key: send it as Authorization: Bearer KEY")
	ErrMalformed    = errors.New("the Authorization header is not of the form Bearer KEY")
	ErrSeveral      = errors.New("there is more than one credential; send exactly one Authorization header")
	ErrInURL        = errors.New("a key stands in the URL, where logs and histories keep it; revoke it, and send keys as Authorization: Bearer KEY")
	ErrElsewhere    = errors.New("a key stands in another header than Authorization; send it as Authorization: Bearer KEY")
	ErrUnknown      = errors.New("the credential is not known here")
	ErrExpired      = errors.New("the credential has expired")
	ErrRevoked      = errors.New("the key was revoked")
	ErrUntrusted    = errors.New("the token or certificate is not trusted")
	ErrIssuerAway   = errors.New("the issuer of tokens cannot be reached, so that this one cannot be checked; it may be good")
	ErrKeyUnknown   = errors.New("the key of this token is not known so far; the token may be good")
	ErrKeyNotFound  = errors.New("there is no key with this id")
	ErrLastAdmin    = errors.New("this is the last key that may administer; make another first")
)

// LimitedError is a rate limit that was reached. Its text, without figures, may
// be sent to callers.
type LimitedError struct {
	Limit      string // key, address, failures or unknown_keys
	RetryAfter time.Duration
}

func (e *LimitedError) Error() string {
	switch e.Limit {
	case limitKey:
		return "this credential sends too many requests"
	case limitAddress:
		return "this address sends too many requests"
	case limitUnknown:
		return "this address sends too many tokens whose key is not known so far"
	default:
		return "too many credentials from this address were not good"
	}
}

// UncheckedError is an ErrIssuerAway or, where the issuer has answered,
// ErrKeyUnknown, and says when the issuer may be asked again.
type UncheckedError struct {
	Why        error         // ErrIssuerAway or ErrKeyUnknown
	RetryAfter time.Duration // 0 or less: at once
	checked    bool          // a signature was checked and is of none of the keys
	err        error         // of the fetch, nil if it did not fail
}

func (e *UncheckedError) Error() string {
	if e.err == nil {
		return e.Why.Error()
	}
	return e.Why.Error() + ": " + e.err.Error()
}

// Unwrap returns what the error is, and why the fetch failed.
func (e *UncheckedError) Unwrap() []error {
	if e.err == nil {
		return []error{e.Why}
	}
	return []error{e.Why, e.err}
}
