package calls

import (
	"time"

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
	var seconds *int64
	faults, err := readForm(body, func(f *form, name string) bool {
		switch name {
		case "name":
			f.text(&in.Name)
		case "role":
			f.text(&in.Role)
		case "scopes":
			f.texts(maxListed, &in.Scopes)
		case "heads":
			f.texts(maxListed, &in.Heads)
		case "regions":
			f.texts(maxListed, &in.Regions)
		case "expires_in_seconds":
			f.whole(&seconds, 60, maxKeySeconds)
		default:
			return false
		}
		return true
	})
	if err != nil {
		return in, err
	}
	if seconds != nil {
		in.ExpiresIn = time.Duration(*seconds) * time.Second
	}
	return in, strict.Invalid(faults)
}
