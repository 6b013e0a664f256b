package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/disk"
)

// Options are what a Guard is made of.
type Options struct {
	Keys           *Keys                 // required
	Metrics        prometheus.Registerer // required
	Now            func() time.Time      // required
	OIDC           *OIDC                 // nil: no issuer is trusted
	Certificates   []Holder              // of clients' certificates
	Authorities    func() *x509.CertPool // that sign them now, another pool after each change; nil: always those of the handshake
	LocalToken     string                // file to write the local credential to; "": there is none
	PerAddress     float64               // requests a second of one address; 0: no limit
	Failures       float64               // failed authentications a second of one address, of tokens and of all others; 0: no limit
	BehindProxy    bool                  // X-Forwarded-For from TrustedProxies names the caller
	TrustedProxies []netip.Prefix
}

// Guard authenticates callers. All methods are safe for concurrent use.
type Guard struct {
	o        Options
	requests *addresses
	failures failures          // over HTTP
	openings failures          // of connections that are no HTTP requests
	local    [sha256.Size]byte // hash of the local credential
	hasLocal bool
	first    *x509.CertPool        // the authorities at the start
	trust    atomic.Pointer[trust] // in certificates, once there are other authorities
	tokens   *cache[[sha256.Size]byte, checkedToken]
	unnamed  *Principal

	refused   *prometheus.CounterVec // by reason
	limited   *prometheus.CounterVec // by limit
	forgotten *prometheus.CounterVec // by cache
}

// checkedToken is the principal of an issuer's token that was checked.
type checkedToken struct {
	principal *Principal
	until     time.Time
}

// rememberedFor is how long a token is not checked again: a role that was taken
// away lasts no longer.
const rememberedFor = time.Minute

// reasons name the errors in headway_auth_failures_total.
var reasons = []struct {
	name string
	err  error
}{
	{"none", ErrNoCredential},
	{"malformed", ErrMalformed},
	{"several", ErrSeveral},
	{"in_url", ErrInURL},
	{"elsewhere", ErrElsewhere},
	{"unknown", ErrUnknown},
	{"expired", ErrExpired},
	{"revoked", ErrRevoked},
	{"unbelieved", ErrUntrusted},
	{"issuer_away", ErrIssuerAway},
	{"key_unknown", ErrKeyUnknown},
}

// The limits of headway_rate_limited_total.
const (
	limitKey      = "key"
	limitAddress  = "address"
	limitFailures = "failures"
	limitUnknown  = "unknown_keys"
)

// New makes a guard and writes the local credential, a new one at each start.
func New(o Options) (*Guard, error) {
	if o.Keys == nil || o.Metrics == nil || o.Now == nil {
		return nil, errors.New("access: Keys, Metrics and Now are required")
	}
	metrics := promauto.With(o.Metrics)
	counter := func(name, help, label string) *prometheus.CounterVec {
		return metrics.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	g := &Guard{
		o:         o,
		unnamed:   &Principal{Type: "system", ID: "unnamed", Role: RoleOperator, rate: newBucket(o.Keys.o.Rate)},
		refused:   counter("headway_auth_failures_total", "Requests whose credential was missing or not good, by reason.", "reason"),
		limited:   counter("headway_rate_limited_total", "Requests refused because one key or address asked too often, by limit.", "limit"),
		forgotten: counter("headway_auth_forgotten_total", "Entries that a full cache of the access checks dropped for newer ones, by cache.", "cache"),
	}
	for _, r := range reasons {
		g.refused.WithLabelValues(r.name)
	}
	for _, l := range []string{limitKey, limitAddress, limitFailures, limitUnknown} {
		g.limited.WithLabelValues(l)
	}
	g.forgotten.WithLabelValues("certificates")
	addresses := g.forgotten.WithLabelValues("addresses")
	g.requests, g.failures, g.openings = newAddresses(o.PerAddress, addresses), newFailures(o.Failures, addresses), newFailures(o.Failures, addresses)
	g.tokens = newCache[[sha256.Size]byte, checkedToken](g.forgotten.WithLabelValues("tokens"))
	metrics.NewGaugeFunc(prometheus.GaugeOpts{Name: "headway_keys", Help: "API keys that can be used."}, func() float64 {
		return float64(o.Keys.count(func(k *Key) bool { return k.usable(o.Now()) }))
	})
	if o.Authorities != nil {
		g.first = o.Authorities()
	}
	if o.LocalToken != "" {
		return g, g.writeLocal()
	}
	return g, nil
}

// localPrefix begins the local credential.
const localPrefix = "hwlocal_"

func (g *Guard) writeLocal() error {
	token := localPrefix + rand.Text()
	if err := disk.Replace(g.o.LocalToken, []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the local credential: %w", err)
	}
	g.local, g.hasLocal = sha256.Sum256([]byte(token)), true
	return nil
}

// Closed reports whether a credential is needed. While there is no key, no
// issuer and no certificate, any caller from loopback may do all.
func (g *Guard) Closed() bool {
	return g.o.Keys.Any() || g.o.OIDC != nil || len(g.o.Certificates) > 0
}

// anonymous is the caller of an open service.
var anonymous = &Principal{Type: "anonymous", Role: RoleAdmin}

// localUser is the user that the service runs as, who can also read its files.
var localUser = &Principal{Type: "local", ID: "local", Role: RoleAdmin}

// Authenticate returns the principal of a request. What stands in the URL is no
// credential; CheckURL refuses it. The errors are those of this package; none
// repeats what was sent.
//
// Only a credential that was checked and is not good is a failure, and counts
// against the caller's address. Where the allowance of failures is used up, the
// error is *LimitedError. Good credentials from there are still accepted, since
// keys have too many random bits to be guessed at any rate.
func (g *Guard) Authenticate(r *http.Request) (*Principal, error) {
	address := g.Address(r)
	now := g.o.Now()
	if wait, ok := g.requests.of(address, now).take(now); !ok {
		return nil, g.limit(limitAddress, wait)
	}
	p, err := g.identify(r, address, bearer)
	if err != nil {
		return nil, err
	}
	if err := g.Spend(p); err != nil {
		return nil, err
	}
	return p, nil
}

// AuthenticateClient is Authenticate for clients of the OpenAI and Anthropic APIs.
// The latter send their key as X-Api-Key. All send one in any case: while the
// service is open it is not looked at. Good requests take from no rate: those of the
// data plane are limited by their callers' Limits.
func (g *Guard) AuthenticateClient(r *http.Request) (*Principal, error) {
	address := g.Address(r)
	p, err := g.identify(r, address, g.clientKey)
	if err != nil {
		now := g.o.Now()
		if wait, ok := g.requests.of(address, now).take(now); !ok {
			return nil, g.limit(limitAddress, wait)
		}
	}
	return p, err
}

// AuthenticateToken returns the principal of a credential that did not come in
// a header. Failures count as those of Authenticate.
func (g *Guard) AuthenticateToken(ctx context.Context, token string, address netip.Addr) (*Principal, error) {
	return g.token(ctx, token, address, &g.failures)
}

// failed counts an error, and takes a failure from the address's allowance in
// the table; nil: the error is no failure of the caller. It returns the error to
// answer with.
func (g *Guard) failed(err error, table *addresses, address netip.Addr) error {
	now := g.o.Now()
	if table != nil {
		if wait, ok := table.of(address, now).take(now); !ok {
			return g.limit(limitFailures, wait)
		}
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			g.refused.WithLabelValues(r.name).Inc()
			break
		}
	}
	return err
}

func (g *Guard) limit(which string, wait time.Duration) error {
	g.limited.WithLabelValues(which).Inc()
	return &LimitedError{which, wait}
}

// elsewhere are the headers that other products take keys from.
var elsewhere = []string{"X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token", "Proxy-Authorization"}

func (g *Guard) identify(r *http.Request, address netip.Addr, credential func(*http.Request) (string, error)) (*Principal, error) {
	token, err := credential(r)
	switch {
	case err != nil:
		return nil, g.failed(err, nil, address)
	case token != "":
		return g.token(r.Context(), token, address, &g.failures)
	}
	if p, err := g.certificate(r.TLS); err != nil {
		return nil, g.failed(err, g.failures.keys, address)
	} else if p != nil {
		return p, nil
	}
	if g.openTo(r, address) {
		return anonymous, nil
	}
	// Asking without a key is how a client learns that one is needed.
	return nil, g.failed(ErrNoCredential, nil, address)
}

// openTo reports whether a caller needs no credential.
func (g *Guard) openTo(r *http.Request, address netip.Addr) bool {
	return !g.Closed() && address.IsLoopback() && peer(r).IsLoopback()
}

// clientKey is the credential of a client of another API, "" without one.
func (g *Guard) clientKey(r *http.Request) (string, error) {
	if g.openTo(r, g.Address(r)) {
		return "", nil
	}
	keys := r.Header["X-Api-Key"]
	if len(keys) == 0 {
		return bearer(r)
	}
	for _, name := range append([]string{"Authorization"}, elsewhere[1:]...) {
		if len(r.Header[name]) > 0 {
			return "", ErrSeveral
		}
	}
	if len(keys) > 1 {
		return "", ErrSeveral
	}
	return checked(keys[0])
}

// bearer is the credential in the headers of a request, "" without one.
func bearer(r *http.Request) (string, error) {
	headers := r.Header["Authorization"]
	for _, name := range elsewhere {
		if len(r.Header[name]) > 0 {
			if len(headers) > 0 {
				return "", ErrSeveral
			}
			return "", ErrElsewhere
		}
	}
	switch len(headers) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", ErrSeveral
	}
	scheme, token, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", ErrMalformed
	}
	return checked(token)
}

// checked returns the token if it can be one.
func checked(token string) (string, error) {
	if token == "" || len(token) > maxToken {
		return "", ErrMalformed
	}
	for i := range len(token) {
		if !ofToken[token[i]] {
			return "", ErrMalformed
		}
	}
	return token, nil
}

// maxToken is the longest credential, in bytes; the headers are bounded too.
const maxToken = 12 << 10

// ofToken are the characters of RFC 6750's b64token.
var ofToken = func() (of [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~+/=") {
		of[c] = true
	}
	return of
}()

func (g *Guard) token(ctx context.Context, token string, address netip.Addr, f *failures) (p *Principal, err error) {
	switch {
	case strings.HasPrefix(token, keyPrefix):
		p, err = g.o.Keys.Look(token)
	case strings.HasPrefix(token, localPrefix):
		sum := sha256.Sum256([]byte(token))
		if g.hasLocal && address.IsLoopback() && subtle.ConstantTimeCompare(sum[:], g.local[:]) == 1 {
			return localUser, nil
		}
		err = ErrUnknown
	case g.o.OIDC != nil && strings.Count(token, ".") == 2:
		return g.issued(ctx, token, address, f)
	default:
		err = ErrUnknown
	}
	if err != nil {
		return nil, g.failed(err, f.keys, address)
	}
	return p, nil
}

// issued is the principal of an issuer's token. A token that was good lately is
// not checked again. A signature costs more than a lookup, so that none is
// checked for an address that has no failures of tokens left. A token of an
// unknown key may be good, as after a rotation: the issuer is asked, and the
// token is no failure, but takes from an allowance of its own.
func (g *Guard) issued(ctx context.Context, token string, address netip.Addr, f *failures) (*Principal, error) {
	sum, now := sha256.Sum256([]byte(token)), g.o.Now()
	if t, ok := g.tokens.get(sum, now); ok && now.Before(t.until) {
		return t.principal, nil
	}
	if b, known := f.tokens.known(address, now); known {
		if wait := b.wait(now); wait > 0 {
			return nil, g.limit(limitFailures, wait)
		}
	}
	p, err := g.o.OIDC.principal(ctx, token)
	unchecked, _ := errors.AsType[*UncheckedError](err)
	switch {
	case err == nil:
		g.remember(sum, p, now)
		return p, nil
	case errors.Is(err, ErrUntrusted), errors.Is(err, ErrExpired), unchecked != nil && unchecked.checked:
		return nil, g.failed(err, f.tokens, address)
	case errors.Is(err, ErrKeyUnknown):
		now := g.o.Now()
		if wait, ok := f.unknown.of(address, now).take(now); !ok {
			return nil, g.limit(limitUnknown, max(wait, unchecked.RetryAfter))
		}
	}
	return nil, g.failed(err, nil, address) // the issuer is away, or the caller left
}

// remember saves the check of a token's signature for a while.
func (g *Guard) remember(sum [sha256.Size]byte, p *Principal, now time.Time) {
	until := now.Add(rememberedFor)
	if p.Expires.Before(until) {
		until = p.Expires
	}
	g.tokens.put(sum, checkedToken{p, until}, now)
}

// peer is the address that the connection comes from.
func peer(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// Address is the caller's: that of the connection or, behind trusted proxies,
// the last one in X-Forwarded-For that is not a proxy's.
func (g *Guard) Address(r *http.Request) netip.Addr {
	a := peer(r)
	if !g.o.BehindProxy || !g.trusted(a) {
		return a
	}
	chain := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(chain) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(chain[i])
		if host, _, err := net.SplitHostPort(hop); err == nil {
			hop = host
		}
		next, err := netip.ParseAddr(strings.Trim(hop, "[]"))
		if err != nil {
			return a
		}
		if a = next.Unmap(); !g.trusted(a) {
			return a
		}
	}
	return a
}

func (g *Guard) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(g.o.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Ended is why a principal would not be accepted any more, nil while it would
// be: ErrExpired, or ErrRevoked if its key was revoked, no authority signs its
// certificate any more, or the service was open and has keys now. Connections
// that live for long check it again and again.
func (g *Guard) Ended(p *Principal) error {
	switch {
	case p == nil:
		return ErrNoCredential
	case !p.Expires.IsZero() && !g.o.Now().Before(p.Expires):
		return ErrExpired
	case p == anonymous && g.Closed(), p.Type == "key" && !g.o.Keys.valid(p.ID), p.shown != nil && !g.trusts(p.shown):
		return ErrRevoked
	}
	return nil
}

// Changed returns a channel that is closed when a principal may have Ended: a key
// was made or revoked, or other authorities sign the certificates of clients. To
// miss no change, take the channel first, call Ended then, and wait last.
func (g *Guard) Changed() <-chan struct{} { return *g.o.Keys.changed.Load() }

// AuthoritiesChanged closes the channel of Changed: other authorities may sign
// the certificates of clients now.
func (g *Guard) AuthoritiesChanged() { g.o.Keys.notify() }

// Spend takes one request from the rate of a principal. It is for requests on a
// connection that was authenticated before.
func (g *Guard) Spend(p *Principal) error {
	if p == nil {
		return nil
	}
	if wait, ok := p.rate.take(g.o.Now()); !ok {
		return g.limit(limitKey, wait)
	}
	return nil
}

// Anonymous is the principal without a credential over loopback, nil while one
// is needed.
func (g *Guard) Anonymous() *Principal {
	if g.Closed() {
		return nil
	}
	return anonymous
}

// Unnamed is the principal of all messages on subjects that senders share, where
// no sender is known: together they may send as often as one
// key. It is nil while no credential is needed. Who may use such a subject is for
// the caller to decide.
func (g *Guard) Unnamed() *Principal {
	if !g.Closed() {
		return nil
	}
	return g.unnamed
}

// Known is the holder of the key with the id, or the local user; nil without one
// that has not Ended. It is for messages whose sender was checked elsewhere.
func (g *Guard) Known(id string) *Principal {
	if id == localUser.ID && g.hasLocal {
		return localUser
	}
	if e := g.o.Keys.all()[id]; e != nil && g.Ended(e.principal) == nil {
		return e.principal
	}
	return nil
}
