package access

import (
	"context"
	"crypto/tls"
	"net/netip"
)

// failures are those of addresses: of keys, the local credential and
// certificates, and apart from them of an issuer's tokens, whose check costs more.
// Tokens that name an unknown key are no failures. They have an allowance of
// their own, so that one address cannot make any number of answers of 503.
type failures struct{ keys, tokens, unknown *addresses }

func newFailures(perSecond float64) failures {
	return failures{newAddresses(perSecond), newAddresses(perSecond), newAddresses(perSecond / unknownShare)}
}

// unknownShare is how many failures are allowed for each token of an unknown key.
const unknownShare = 10

// AuthenticateConnection finds out who opens a connection that is no HTTP
// request: the holder of its token or, without one, of the certificate that it
// showed; state is nil without TLS. Failures count as those of Authenticate, in an
// allowance of their own, so that wrong keys here cost nothing over HTTP.
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
