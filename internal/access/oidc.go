package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// OIDCOptions say whose tokens are believed.
type OIDCOptions struct {
	Issuer       string          // required
	Audience     string          // required
	Algorithms   []string        // empty: RS256, ES256 and EdDSA
	RolesClaim   string          // required; a text or a list
	Roles        map[string]Role // what its values mean; empty: they are the names of roles
	HeadsClaim   string          // with the ids of a head
	RegionsClaim string          // with its regions
	Client       *http.Client    // nil: one with a time limit
	Now          func() time.Time
}

// OIDC believes the tokens of one issuer. All methods are safe for concurrent
// use.
type OIDC struct {
	o OIDCOptions

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer was reached
	retryAt  time.Time
	known    map[[sha256.Size]byte]remembered // tokens that were checked
}

type remembered struct {
	principal *Principal
	until     time.Time
}

// Bounds of tokens and of asking the issuer.
const (
	issuerTimeout = 5 * time.Second
	issuerRetry   = 5 * time.Second // between attempts to reach it
	maxRemembered = 10_000
	rememberedFor = time.Minute // so that a role that was taken away does not last
)

// NewOIDC does not ask the issuer yet: it may come up after us.
func NewOIDC(o OIDCOptions) (*OIDC, error) {
	if o.Issuer == "" || o.Audience == "" || o.RolesClaim == "" || o.Now == nil {
		return nil, errors.New("access: Issuer, Audience, RolesClaim and Now are required")
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []string{oidc.RS256, oidc.ES256, oidc.EdDSA}
	}
	for value, role := range o.Roles {
		if !slices.Contains(Roles(), role) {
			return nil, fmt.Errorf("oidc.roles %s=%s: want one of the roles viewer, operator, admin, head, client", value, role)
		}
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: issuerTimeout}
	}
	return &OIDC{o: o, known: map[[sha256.Size]byte]remembered{}}, nil
}

// principal is the bearer of a token. The errors wrap ErrUnbelieved,
// ErrExpired or ErrIssuerAway.
func (i *OIDC) principal(ctx context.Context, token string) (*Principal, error) {
	sum, now := sha256.Sum256([]byte(token)), i.o.Now()
	i.mu.Lock()
	seen, ok := i.known[sum]
	i.mu.Unlock()
	if ok && now.Before(seen.until) {
		return seen.principal, nil
	}
	verifier, err := i.reach(now) //nolint:contextcheck // what it learns outlasts the request
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, i.o.Client), issuerTimeout)
	defer cancel()
	checked, err := verifier.Verify(ctx, token)
	if _, expired := errors.AsType[*oidc.TokenExpiredError](err); expired {
		return nil, ErrExpired
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ErrIssuerAway
		}
		return nil, fmt.Errorf("%w: %w", ErrUnbelieved, err)
	}
	p, err := i.bearer(checked)
	if err != nil {
		return nil, err
	}
	i.remember(sum, p, now)
	return p, nil
}

// reach learns the issuer's keys, once.
func (i *OIDC) reach(now time.Time) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	if now.Before(i.retryAt) {
		return nil, ErrIssuerAway
	}
	i.retryAt = now.Add(issuerRetry)
	// The provider keeps the context to fetch keys later, so it must not end.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.Background(), i.o.Client), i.o.Issuer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIssuerAway, err)
	}
	i.verifier = provider.Verifier(&oidc.Config{
		ClientID: i.o.Audience, SupportedSigningAlgs: i.o.Algorithms, Now: i.o.Now,
	})
	return i.verifier, nil
}

func (i *OIDC) bearer(token *oidc.IDToken) (*Principal, error) {
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnbelieved, err)
	}
	p := &Principal{Type: "jwt", ID: token.Subject, Name: token.Subject, Expires: token.Expiry}
	// Several roles: the first of ours in the order of their width.
	for _, role := range []Role{RoleAdmin, RoleOperator, RoleViewer, RoleClient, RoleHead} {
		if slices.ContainsFunc(texts(claims[i.o.RolesClaim]), func(v string) bool { return i.role(v) == role }) {
			p.Role = role
			break
		}
	}
	if p.Role == "" {
		return nil, fmt.Errorf("%w: its claim %s names no role of ours", ErrUnbelieved, i.o.RolesClaim)
	}
	if p.Role == RoleHead {
		p.Heads, p.Regions = texts(claims[i.o.HeadsClaim]), texts(claims[i.o.RegionsClaim])
		if len(p.Heads) == 0 {
			return nil, fmt.Errorf("%w: a head's token must name its ids in the claim %s", ErrUnbelieved, i.o.HeadsClaim)
		}
	}
	return p, nil
}

func (i *OIDC) role(value string) Role {
	if len(i.o.Roles) > 0 {
		return i.o.Roles[value]
	}
	return Role(value)
}

// texts reads a claim that is a text or a list of them.
func texts(claim any) []string {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case []any:
		var list []string
		for _, v := range c {
			if s, ok := v.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// remember spares the signature the next time, for a while.
func (i *OIDC) remember(sum [sha256.Size]byte, p *Principal, now time.Time) {
	until := now.Add(rememberedFor)
	if p.Expires.Before(until) {
		until = p.Expires
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= maxRemembered {
		clear(i.known)
	}
	i.known[sum] = remembered{p, until}
}
