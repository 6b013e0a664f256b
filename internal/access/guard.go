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
	"strings"
	"sync/atomic"
	"time"

	"headway/internal/disk"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are what a Guard is made of.
type Options struct {
	Keys           *Keys                 // required
	Metrics        prometheus.Registerer // required
	Now            func() time.Time      // required
	OIDC           *OIDC                 // nil: no tokens are believed
	Certificates   []Holder              // who clients' certificates are
	Authorities    func() *x509.CertPool // who signs them now, another pool after each change; nil: never another than at the handshake
	LocalToken     string                // file to write the local credential to; "": there is none
	PerAddress     float64               // requests a second of one address; 0: no limit
	Failures       float64               // failed authentications a second of one address, of tokens and of all others; 0: no limit
	BehindProxy    bool                  // X-Forwarded-For names the caller, if TrustedProxies say so
	TrustedProxies []netip.Prefix
}

// Guard finds out who asks. All methods are safe for concurrent use.
type Guard struct {
	o        Options
	requests *addresses
	failures failures          // over HTTP
	openings failures          // of connections that are no HTTP requests
	local    [sha256.Size]byte // of the local credential; zero: none
	hasLocal bool
	first    *x509.CertPool        // the authorities at the start
	trust    atomic.Pointer[trust] // in certificates, once there are other authorities
	unnamed  *Principal
	counted  map[string]prometheus.Counter // failures by reason
	limited  map[string]prometheus.Counter
}

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
	{"unbelieved", ErrUnbelieved},
	{"issuer_away", ErrIssuerAway},
	{"key_unknown", ErrKeyUnknown},
}

// The limits that headway_rate_limited_total tells apart.
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
	g := &Guard{
		o: o, requests: newAddresses(o.PerAddress), failures: newFailures(o.Failures), openings: newFailures(o.Failures),
		unnamed: &Principal{Type: "system", ID: "unnamed", Role: RoleOperator, rate: newBucket(o.Keys.rate)},
		counted: map[string]prometheus.Counter{}, limited: map[string]prometheus.Counter{},
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_auth_failures_total", Help: "Requests whose credential was missing or not good, by reason.",
	}, []string{"reason"})
	for _, r := range reasons {
		g.counted[r.name] = failures.WithLabelValues(r.name)
	}
	limited := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_rate_limited_total", Help: "Requests refused because one key or address asked too often, by limit.",
	}, []string{"limit"})
	for _, l := range []string{limitKey, limitAddress, limitFailures, limitUnknown} {
		g.limited[l] = limited.WithLabelValues(l)
	}
	if o.Authorities != nil {
		g.first = o.Authorities()
	}
	if o.LocalToken != "" {
		if err := g.writeLocal(); err != nil {
			return nil, err
		}
	}
	return g, errors.Join(o.Metrics.Register(failures), o.Metrics.Register(limited), o.Metrics.Register(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "headway_keys", Help: "API keys that can be used."}, func() float64 {
			n := 0
			for _, k := range o.Keys.List() {
				if k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || o.Now().Before(k.ExpiresAt)) {
					n++
				}
			}
			return float64(n)
		})))
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
// issuer and no certificate, whoever reaches the service by loopback may do
// all.
func (g *Guard) Closed() bool {
	return g.o.Keys.Any() || g.o.OIDC != nil || len(g.o.Certificates) > 0
}

// anonymous is who reaches an open service.
var anonymous = &Principal{Type: "anonymous", Role: RoleAdmin}

// localUser is the user of the service, who could also read its files.
var localUser = &Principal{Type: "local", ID: "local", Role: RoleAdmin}

// Authenticate finds out who asks. What stands in the URL is no credential, and
// CheckURL's to refuse. The errors are those of this package; none of them
// repeats what was sent.
//
// A failure costs the caller's address, and only a credential that was looked at
// and is not good is one. An address that has none left gets *LimitedError for
// further failures; good credentials from there are let in, since keys have too
// many random bits to be guessed at any rate.
func (g *Guard) Authenticate(r *http.Request) (*Principal, error) {
	address := g.Address(r)
	now := g.o.Now()
	if wait, ok := g.requests.of(address, now).take(now); !ok {
		return nil, g.limit(limitAddress, wait)
	}
	p, err := g.identify(r, address)
	if err != nil {
		return nil, err
	}
	if wait, ok := p.rate.take(now); !ok {
		return nil, g.limit(limitKey, wait)
	}
	return p, nil
}

// AuthenticateToken finds out whose a credential is that came otherwise than
// in a header. Failures count as those of Authenticate.
func (g *Guard) AuthenticateToken(ctx context.Context, token string, address netip.Addr) (*Principal, error) {
	return g.token(ctx, token, address, &g.failures)
}

// failed counts an error and takes a failure from the address's allowance in the
// table, nil if the error is no failure of the caller. It returns the error to
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
			g.counted[r.name].Inc()
			break
		}
	}
	return err
}

func (g *Guard) limit(which string, wait time.Duration) error {
	g.limited[which].Inc()
	return &LimitedError{which, wait}
}

// elsewhere are the headers that other products take keys from.
var elsewhere = []string{"X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token", "Proxy-Authorization"}

func (g *Guard) identify(r *http.Request, address netip.Addr) (*Principal, error) {
	token, err := bearer(r)
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
	if !g.Closed() && address.IsLoopback() && peer(r).IsLoopback() {
		return anonymous, nil
	}
	// Asking without a key is how a client learns that one is needed.
	return nil, g.failed(ErrNoCredential, nil, address)
}

// bearer is the one place that takes a credential from a request; "" if there
// is none.
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
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken || strings.ContainsFunc(token, notOfToken) {
		return "", ErrMalformed
	}
	return token, nil
}

// maxToken is the longest credential, in bytes; the headers are bounded too.
const maxToken = 12 << 10

// notOfToken reports whether a character is not of RFC 6750's b64token.
func notOfToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-._~+/=", r)
}

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

// issued is the bearer of an issuer's token. Its signature costs more than a
// look at a key does, so that an address with no failures of tokens left gets
// none checked; those that were good lately need no check. One of a key that is
// not known costs neither us a signature nor its address a failure, but takes
// from an allowance of its own. It may be good, as after a rotation, so that it
// has the issuer asked also where that allowance is empty.
func (g *Guard) issued(ctx context.Context, token string, address netip.Addr, f *failures) (*Principal, error) {
	if p := g.o.OIDC.recall(token); p != nil {
		return p, nil
	}
	if wait, none := f.tokens.known(address).empty(g.o.Now()); none {
		return nil, g.limit(limitFailures, wait)
	}
	p, err := g.o.OIDC.principal(ctx, token)
	unchecked, _ := errors.AsType[*UncheckedError](err)
	switch {
	case errors.Is(err, ErrUnbelieved), errors.Is(err, ErrExpired), unchecked != nil && unchecked.checked:
		return nil, g.failed(err, f.tokens, address)
	case errors.Is(err, ErrKeyUnknown):
		now := g.o.Now()
		if wait, ok := f.unknown.of(address, now).take(now); !ok {
			return nil, g.limit(limitUnknown, max(wait, unchecked.RetryAfter))
		}
		return nil, g.failed(err, nil, address)
	case err != nil: // the issuer is away, or the caller left
		return nil, g.failed(err, nil, address)
	}
	return p, nil
}

// peer is the address that the connection comes from.
func peer(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// Address is who asks: the connection's address or, behind proxies that are
// trusted, the last one in X-Forwarded-For that none of them has.
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
	for _, p := range g.o.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Ended is why a principal would not be let in any more, nil while it would be:
// ErrExpired, or ErrRevoked if its key was revoked, no authority signs its
// certificate any more, or the service was open and has keys now. Connections
// that live for long ask it again and again.
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

// Spend takes one request from what whoever asks may ask in a second. It is for
// requests that come on a connection whose owner is known.
func (g *Guard) Spend(p *Principal) error {
	if p == nil || p.rate == nil {
		return nil
	}
	if wait, ok := p.rate.take(g.o.Now()); !ok {
		return g.limit(limitKey, wait)
	}
	return nil
}

// Anonymous is who comes without a credential over loopback, nil when nobody
// may.
func (g *Guard) Anonymous() *Principal {
	if g.Closed() {
		return nil
	}
	return anonymous
}

// Unnamed is all who send messages on subjects that they share with others, so
// that nobody can say whose a message is: together they may send as often as one
// key. It is nil while no credential is needed. Whoever lets somebody use such a
// subject has to know what they may do.
func (g *Guard) Unnamed() *Principal {
	if !g.Closed() {
		return nil
	}
	return g.unnamed
}

// Known is the holder of the key with the id, or the local user, nil when there
// is none who may still do anything. It is for messages whose sender somebody
// else has checked.
func (g *Guard) Known(id string) *Principal {
	if id == localUser.ID && g.hasLocal {
		return localUser
	}
	if e := (*g.o.Keys.book.Load())[id]; e != nil && g.Ended(e.principal) == nil {
		return e.principal
	}
	return nil
}
