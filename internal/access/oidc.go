package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"headway/internal/address"
	"headway/internal/strict"
)

// OIDCOptions say which issuer is trusted.
type OIDCOptions struct {
	Issuer       string           // required
	Audience     string           // required
	Algorithms   []string         // empty: RS256, ES256 and EdDSA
	RolesClaim   string           // required; a text or a list
	Roles        map[string]Role  // what its values mean; empty: they are the names of roles
	HeadsClaim   string           // with the ids of a head
	RegionsClaim string           // with its regions
	Client       *http.Client     // required; the time of a fetch is bounded here
	Now          func() time.Time // required
}

// OIDC checks the tokens of one issuer. All methods are safe for concurrent use.
type OIDC struct {
	o    OIDCOptions
	keys *issuerKeys
}

// maxSubject is the longest subject in bytes, as OpenID Connect has it.
const maxSubject = 255

// NewOIDC does not ask the issuer yet: it may start after us.
func NewOIDC(o OIDCOptions) (*OIDC, error) {
	if o.Issuer == "" || o.Audience == "" || o.RolesClaim == "" || o.Client == nil || o.Now == nil {
		return nil, errors.New("access: Issuer, Audience, RolesClaim, Client and Now are required")
	}
	issuer, err := url.Parse(o.Issuer)
	if err != nil {
		return nil, fmt.Errorf("access.oidc.issuer: %w", errors.Unwrap(err))
	}
	if wrong := address.CheckHost(issuer.Hostname(), false, ""); wrong != "" {
		return nil, fmt.Errorf("access.oidc.issuer %s", wrong)
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []string{oidc.RS256, oidc.ES256, oidc.EdDSA}
	}
	for value, role := range o.Roles {
		if !slices.Contains(Roles(), role) {
			return nil, fmt.Errorf("oidc.roles %s=%s: want one of the roles viewer, operator, admin, head, client", value, role)
		}
	}
	return &OIDC{o: o, keys: newIssuerKeys(&o)}, nil
}

// principal is the bearer of a token. The errors wrap ErrUntrusted, ErrExpired,
// ErrIssuerAway, ErrKeyUnknown or context.Canceled; only the first two are about
// the token.
func (i *OIDC) principal(ctx context.Context, token string) (*Principal, error) {
	check := &signature{keys: i.keys}
	checked, err := oidc.NewVerifier(i.o.Issuer, check, &oidc.Config{
		ClientID: i.o.Audience, SupportedSigningAlgs: i.o.Algorithms, Now: i.o.Now,
	}).Verify(ctx, token)
	if check.err != nil { // the library keeps only its text
		return nil, check.err
	}
	if _, expired := errors.AsType[*oidc.TokenExpiredError](err); expired || err == nil && !i.o.Now().Before(checked.Expiry) {
		return nil, ErrExpired
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return i.bearer(checked)
}

func (i *OIDC) bearer(token *oidc.IDToken) (*Principal, error) {
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if n := len(token.Subject); n == 0 || n > maxSubject || !strict.Printable(token.Subject) {
		return nil, fmt.Errorf("%w: its claim sub must name the bearer in 1 to %d bytes of text that can be printed", ErrUntrusted, maxSubject)
	}
	p := &Principal{Type: "jwt", ID: token.Subject, Name: token.Subject, Expires: token.Expiry}
	// Of several roles the widest counts.
	for _, role := range []Role{RoleAdmin, RoleOperator, RoleViewer, RoleClient, RoleHead} {
		if slices.ContainsFunc(texts(claims[i.o.RolesClaim]), func(v string) bool { return i.role(v) == role }) {
			p.Role = role
			break
		}
	}
	if p.Role == "" {
		return nil, fmt.Errorf("%w: its claim %s names no role of ours", ErrUntrusted, i.o.RolesClaim)
	}
	if p.Role == RoleHead {
		p.Heads, p.Regions = texts(claims[i.o.HeadsClaim]), texts(claims[i.o.RegionsClaim])
		if len(p.Heads) == 0 {
			return nil, fmt.Errorf("%w: a head's token must name its ids in the claim %s", ErrUntrusted, i.o.HeadsClaim)
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
