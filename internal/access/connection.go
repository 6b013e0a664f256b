package access

import (
	"context"
	"crypto/tls"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
)

// failures are the failed authentications by address. Those of an issuer's
// tokens count apart from those of keys, the local credential and certificates,
// since their check costs more. Tokens that name an unknown key are no failures;
// an allowance of their own bounds how many answers of 503 an address can cause.
type failures struct{ keys, tokens, unknown *addresses }

func newFailures(perSecond float64, forgotten prometheus.Counter) failures {
	return failures{newAddresses(perSecond, forgotten), newAddresses(perSecond, forgotten), newAddresses(perSecond/unknownShare, forgotten)}
}

// unknownShare is how many failures are allowed for each token of an unknown key.
const unknownShare = 10

// AuthenticateConnection returns the principal of a connection that is no HTTP
// request: the holder of its token or, without one, of its certificate; state is
// nil without TLS. Its failures have an allowance of their own, so that wrong
// keys here cost nothing over HTTP.
func (g *Guard) AuthenticateConnection(ctx context.Context, token string, state *tls.ConnectionState, address netip.Addr) (*Principal, error) {
	if token != "" {
		return g.token(ctx, token, address, &g.openings)
	}
	if p, err := g.certificate(state); err != nil {
		return nil, g.failed(err, g.openings.keys, address)
	} else if p != nil {
		return p, nil
	}
	if p := g.Anonymous(); p != nil && address.IsLoopback() {
		return p, nil
	}
	return nil, g.failed(ErrNoCredential, nil, address)
}
