package httpapi

import (
	"net/http"
	"net/url"
	"strings"
)

// external is the URL that a proxy in front gives the service.
type external struct {
	origin string // scheme://host, as browsers write it
	host   string // without the port
	prefix string // of paths, without a slash at its end
}

func newExternal(u *url.URL) external {
	if u == nil {
		return external{}
	}
	return external{
		origin: strings.ToLower(u.Scheme + "://" + u.Host), host: u.Hostname(), prefix: strings.TrimSuffix(u.Path, "/"),
	}
}

// handler makes of a request that came by the external URL the one that came to
// our own: without the prefix, if the proxy has left it, and without the Origin
// of our own pages, whose host the proxy may have replaced in the Host header.
func (e external) handler(next http.Handler) http.Handler {
	if e.origin == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, is := strings.CutPrefix(r.URL.Path, e.prefix); is && e.prefix != "" && (rest == "" || rest[0] == '/') {
			r.URL.Path, r.URL.RawPath = rest, strings.TrimPrefix(r.URL.RawPath, e.prefix)
			if rest == "" { // links of the page are relative to its end
				w.Header().Set("Location", e.prefix+"/")
				w.WriteHeader(http.StatusPermanentRedirect)
				return
			}
		}
		if origin := r.Header["Origin"]; len(origin) == 1 && strings.EqualFold(origin[0], e.origin) {
			delete(r.Header, "Origin")
		}
		next.ServeHTTP(w, r)
	})
}
