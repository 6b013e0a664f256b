package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
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
// names one that is not known, at a bounded rate, since anybody can send such a
// token. While the issuer is away the last ones stay good.
type issuerKeys struct {
	o     *OIDCOptions
	algs  []jose.SignatureAlgorithm
	fetch *rate.Limiter

	mu       sync.Mutex
	url      string            // of the keys; "" until the issuer has named it
	set      []jose.JSONWebKey // replaced, never changed
	at       time.Time         // when the set was fetched
	err      error             // of the last fetch
	retryAt  time.Time         // after a fetch that failed
	fetching chan struct{}     // closed at the end of the fetch under way; nil: there is none
}

func newIssuerKeys(o *OIDCOptions) *issuerKeys {
	k := &issuerKeys{o: o, fetch: rate.NewLimiter(rate.Every(fetchEvery), fetchBurst)}
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

// verify returns what a token says. The errors wrap ErrUnbelieved, ErrIssuerAway,
// ErrKeyUnknown or context.Canceled.
//
// Only a token that may be of a key that is not known yet has the keys fetched:
// one that names a key of the set is of that key or of none, while the set is
// young.
func (k *issuerKeys) verify(ctx context.Context, token string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(token, k.algs)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, fmt.Errorf("%w: it is no signed token", ErrUnbelieved)
	}
	now := k.o.Now()
	k.mu.Lock()
	set, old := k.set, now.Sub(k.at) > keysFresh
	busy := k.fetching != nil
	k.mu.Unlock()
	named := jws.Signatures[0].Header.KeyID != ""
	payload, is := open(jws, set)
	switch {
	case is == signed && (!old || busy): // a good token does not wait for the fetch of another
		return payload, nil
	case is == forged && named && !old:
		return nil, errNotSigned
	}
	set, own, err := k.refresh(ctx, now)
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

var errNotSigned = fmt.Errorf("%w: no key of the issuer has signed it", ErrUnbelieved)

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

// refresh fetches the keys, or waits for the fetch under way, and returns the
// new set and whether the fetch is the caller's own. The error is *UncheckedError
// where the fetch fails or the rate allows none, or that of a caller that left.
func (k *issuerKeys) refresh(ctx context.Context, now time.Time) (set []jose.JSONWebKey, own bool, err error) {
	k.mu.Lock()
	done := k.fetching
	if done != nil {
		k.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, false, ctx.Err()
			}
			return nil, false, &UncheckedError{Why: ErrIssuerAway}
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.set, false, k.away(now)
	}
	if now.Before(k.retryAt) || !k.fetch.AllowN(now, 1) {
		defer k.mu.Unlock()
		if k.err == nil { // the issuer has answered, and is not asked again yet
			return nil, false, &UncheckedError{Why: ErrKeyUnknown, RetryAfter: k.next(now)}
		}
		return nil, false, &UncheckedError{Why: ErrIssuerAway, RetryAfter: max(k.next(now), k.retryAt.Sub(now)), err: k.err}
	}
	done = make(chan struct{})
	k.fetching = done
	url := k.url
	k.mu.Unlock()

	url, set, err = k.ask(ctx, url)

	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(done)
	k.fetching, k.err = nil, err
	if err != nil {
		// The issuer may have moved its keys.
		k.url, k.retryAt = "", now.Add(issuerRetry)
		return nil, true, k.away(now)
	}
	k.url, k.set, k.at = url, set, now
	return set, true, nil
}

// away is the error of a fetch that failed, nil after one that did not. mu is
// held.
func (k *issuerKeys) away(now time.Time) error {
	if k.err == nil {
		return nil
	}
	return &UncheckedError{Why: ErrIssuerAway, RetryAfter: k.retryAt.Sub(now), err: k.err}
}

// next is when the rate allows a fetch; 0 or less: at once.
func (k *issuerKeys) next(now time.Time) time.Duration {
	return time.Duration((1 - k.fetch.TokensAt(now)) * float64(fetchEvery))
}

// ask fetches the keys, from the URL if it is known. Others wait for them, so
// that it goes on when the caller has left.
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
