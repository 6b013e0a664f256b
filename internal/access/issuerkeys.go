package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/time/rate"
)

// Bounds of asking the issuer.
const (
	issuerTimeout = 5 * time.Second
	issuerRetry   = 5 * time.Second  // after an attempt that failed
	fetchEvery    = 10 * time.Second // on average, however many tokens name unknown keys
	fetchBurst    = 5
	keysFresh     = 15 * time.Minute // then a key that the issuer took away is not accepted any more
	maxDocument   = 1 << 20          // bytes of an answer of the issuer
	maxKeys       = 200              // of an issuer: a token that names none is tried with each
)

// issuerKeys are the public keys of an issuer. They are fetched when a token
// names one that is not known, at a bounded rate, since any caller can send such
// a token. While the issuer is away the last ones stay good.
type issuerKeys struct {
	o       *OIDCOptions
	algs    []jose.SignatureAlgorithm
	limiter *rate.Limiter
	turn    chan struct{} // held by the one that fetches, which alone replaces the state
	state   atomic.Pointer[fetched]
}

// fetched is the end of a fetch. It is immutable.
type fetched struct {
	n       int               // how many fetches there were
	url     string            // of the keys; "" until the issuer has named it
	set     []jose.JSONWebKey // of the last fetch that did not fail
	at      time.Time         // of that fetch
	err     error             // of the last fetch
	retryAt time.Time         // after a fetch that failed
}

func newIssuerKeys(o *OIDCOptions) *issuerKeys {
	k := &issuerKeys{o: o, limiter: rate.NewLimiter(rate.Every(fetchEvery), fetchBurst), turn: make(chan struct{}, 1)}
	k.state.Store(&fetched{})
	for _, a := range o.Algorithms {
		k.algs = append(k.algs, jose.SignatureAlgorithm(a))
	}
	return k
}

// signature checks the signature of one token and keeps why it could not.
type signature struct {
	keys *issuerKeys
	err  error
}

// VerifySignature implements oidc.KeySet.
func (s *signature) VerifySignature(ctx context.Context, token string) (payload []byte, err error) {
	payload, s.err = s.keys.verify(ctx, token)
	return payload, s.err
}

// verify returns what a token says. The errors wrap ErrUntrusted, ErrIssuerAway,
// ErrKeyUnknown or context.Canceled.
//
// Only a token that may be of a key that is not known yet has the keys fetched:
// one that names a key of the set is of that key or of none, while the set is
// young.
func (k *issuerKeys) verify(ctx context.Context, token string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(token, k.algs)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, fmt.Errorf("%w: it is no signed token", ErrUntrusted)
	}
	now, seen, busy := k.o.Now(), k.state.Load(), len(k.turn) > 0
	old := now.Sub(seen.at) > keysFresh
	named := jws.Signatures[0].Header.KeyID != ""
	payload, is := open(jws, seen.set)
	switch {
	case is == signed && (!old || busy): // a good token does not wait for the fetch of another
		return payload, nil
	case is == forged && named && !old:
		return nil, errNotSigned
	}
	set, own, err := k.refresh(ctx, now, seen)
	if err != nil {
		switch unchecked, _ := errors.AsType[*UncheckedError](err); {
		case unchecked == nil:
			return nil, err
		case is == signed:
			return payload, nil // the issuer is away, and this was good when it was there
		default:
			unchecked.checked = is == forged
			return nil, err
		}
	}
	payload, is = open(jws, set)
	switch {
	case is == signed:
		return payload, nil
	case !own && (is == unknownKey || !named): // that fetch may be of before the issuer made the key
		return nil, &UncheckedError{Why: ErrKeyUnknown, RetryAfter: k.next(now), checked: is == forged}
	}
	return nil, errNotSigned
}

var errNotSigned = fmt.Errorf("%w: no key of the issuer has signed it", ErrUntrusted)

// verdict is what a set of keys knows of a token.
type verdict int

const (
	unknownKey verdict = iota // it names none of the keys
	forged                    // none of the keys that it may be of has signed it
	signed
)

// open returns what is signed, if one of the keys has signed it. A token that
// names no key may be of any; one that names none of the set costs no check of a
// signature.
func open(jws *jose.JSONWebSignature, set []jose.JSONWebKey) (payload []byte, is verdict) {
	header := jws.Signatures[0].Header
	for i := range set {
		key := &set[i]
		if header.KeyID != "" && key.KeyID != header.KeyID {
			continue
		}
		is = forged
		if key.Algorithm == "" || key.Algorithm == header.Algorithm {
			if payload, err := jws.Verify(key); err == nil {
				return payload, signed
			}
		}
	}
	return nil, is
}

// refresh fetches the keys, unless another caller has done so since the seen
// state, and returns the set and whether the fetch is this caller's own. The error
// is *UncheckedError where the fetch fails or the rate allows none, or that of a
// caller that left.
func (k *issuerKeys) refresh(ctx context.Context, now time.Time, seen *fetched) (set []jose.JSONWebKey, own bool, err error) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, false, ctx.Err()
		}
		return nil, false, &UncheckedError{Why: ErrIssuerAway}
	}
	last := k.state.Load()
	if last.n != seen.n {
		return last.set, false, last.away(now)
	}
	if now.Before(last.retryAt) || !k.limiter.AllowN(now, 1) {
		if last.err == nil { // the issuer has answered, and is not asked again yet
			return nil, false, &UncheckedError{Why: ErrKeyUnknown, RetryAfter: k.next(now)}
		}
		return nil, false, &UncheckedError{Why: ErrIssuerAway, RetryAfter: max(k.next(now), last.retryAt.Sub(now)), err: last.err}
	}
	next := &fetched{n: last.n + 1, at: now}
	if next.url, next.set, next.err = k.ask(ctx, last.url); next.err != nil {
		next.set, next.at, next.retryAt = last.set, last.at, now.Add(issuerRetry) // without the URL: the keys may have moved
	}
	k.state.Store(next)
	return next.set, true, next.away(now)
}

// away is the error of a fetch that failed, nil after one that did not.
func (f *fetched) away(now time.Time) error {
	if f.err == nil {
		return nil
	}
	return &UncheckedError{Why: ErrIssuerAway, RetryAfter: f.retryAt.Sub(now), err: f.err}
}

// next is when the rate allows a fetch; 0 or less: at once.
func (k *issuerKeys) next(now time.Time) time.Duration {
	return time.Duration((1 - k.limiter.TokensAt(now)) * float64(fetchEvery))
}

// ask fetches the keys, from the URL if it is known. It goes on after its caller
// has left, since others wait for the keys.
func (k *issuerKeys) ask(ctx context.Context, url string) (string, []jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issuerTimeout)
	defer cancel()
	if url == "" {
		var about struct {
			Issuer string `json:"issuer"`
			Keys   string `json:"jwks_uri"`
		}
		if err := k.get(ctx, strings.TrimSuffix(k.o.Issuer, "/")+"/.well-known/openid-configuration", &about); err != nil {
			return "", nil, err
		}
		scheme, _, _ := strings.Cut(k.o.Issuer, "://")
		switch {
		case about.Issuer != k.o.Issuer:
			return "", nil, fmt.Errorf("it calls itself %q", about.Issuer)
		case !strings.HasPrefix(about.Keys, "https://") && !strings.HasPrefix(about.Keys, scheme+"://"):
			return "", nil, fmt.Errorf("its keys are at %q, which is no URL of its scheme", about.Keys)
		}
		url = about.Keys
	}
	var answer struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := k.get(ctx, url, &answer); err != nil {
		return "", nil, err
	}
	if len(answer.Keys) > maxKeys {
		return "", nil, fmt.Errorf("it has %d keys; at most %d are read", len(answer.Keys), maxKeys)
	}
	var set []jose.JSONWebKey
	for _, raw := range answer.Keys {
		var key jose.JSONWebKey
		// Keys of kinds that are not known here are for others.
		if json.Unmarshal(raw, &key) == nil && key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			set = append(set, key)
		}
	}
	if len(set) == 0 {
		return "", nil, errors.New("it has no key that signs")
	}
	return url, set, nil
}

// get reads a document of the issuer.
func (k *issuerKeys) get(ctx context.Context, url string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask the issuer: %w", err)
	}
	answer, err := k.o.Client.Do(r)
	if err != nil {
		return fmt.Errorf("ask the issuer: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the issuer answers with status %d", answer.StatusCode)
	}
	if err := json.UnmarshalRead(io.LimitReader(answer.Body, maxDocument), into); err != nil {
		return fmt.Errorf("read the answer of the issuer: %w", err)
	}
	return nil
}
