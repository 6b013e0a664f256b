package apiv1

import (
	"cmp"
	"math"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/strict"
)

// Bounds of a key's request; access says the rest.
const (
	maxListed     = 100
	maxKeySeconds = 315_360_000
)

// ReadKey reads an api.KeyRequest.
func ReadKey(body []byte) (in access.Request, err error) {
	var seconds int64
	faults, err := strict.ReadObject(body, MaxFaults, func(r *strict.Reader, name string) bool {
		switch name {
		case "name":
			r.Text(&in.Name)
		case "role":
			r.Text(&in.Role)
		case "scopes":
			r.Texts(maxListed, &in.Scopes)
		case "heads":
			r.Texts(maxListed, &in.Heads)
		case "regions":
			r.Texts(maxListed, &in.Regions)
		case "expires_in_seconds":
			r.Whole(&seconds, 60, maxKeySeconds)
		default:
			return readLimit(r, name, &in.Limits)
		}
		return true
	})
	in.ExpiresIn = time.Duration(seconds) * time.Second
	return in, cmp.Or(err, strict.Invalid(faults))
}

// readLimit reads a field of api.KeyLimits.
func readLimit(r *strict.Reader, name string, to *access.Limits) bool {
	switch name {
	case "requests_per_minute":
		r.Whole(&to.RequestsPerMinute, -1, access.MaxPerMinute)
	case "tokens_per_minute":
		r.Whole(&to.TokensPerMinute, -1, access.MaxPerMinute)
	case "weight":
		r.Whole(&to.Weight, 1, access.MaxWeight)
	default:
		return false
	}
	return true
}

// ReadKeyPatch reads an api.KeyPatch. It returns what changes the limits of a key.
func ReadKeyPatch(body []byte) (set func(*access.Limits), err error) {
	const absent = math.MinInt64
	in := access.Limits{RequestsPerMinute: absent, TokensPerMinute: absent, Weight: absent}
	faults, err := strict.ReadObject(body, MaxFaults, func(r *strict.Reader, name string) bool { return readLimit(r, name, &in) })
	return func(l *access.Limits) {
		for _, f := range []struct{ to, v *int64 }{
			{&l.RequestsPerMinute, &in.RequestsPerMinute}, {&l.TokensPerMinute, &in.TokensPerMinute}, {&l.Weight, &in.Weight},
		} {
			if *f.v != absent {
				*f.to = *f.v
			}
		}
	}, cmp.Or(err, strict.Invalid(faults))
}

// Key is a key as the API shows it, without its secret.
func Key(k access.Listed) api.Key {
	out := api.Key{
		ID: k.ID, Name: k.Name, Role: string(k.Role), Heads: k.Heads, Regions: k.Regions, KeyLimits: api.KeyLimits(k.Limits),
		CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy,
		ExpiresAt: moment(k.ExpiresAt), RevokedAt: moment(k.RevokedAt), LastUsedAt: moment(k.LastUsed),
	}
	for _, p := range k.Scopes {
		out.Scopes = append(out.Scopes, string(p))
	}
	return out
}
