package httpapi

import (
	"net/http"
	"net/url"
	"strings"
)

// external is the URL that a proxy in front gives the service.
type external struct {
	url    string // the whole, without a slash at its end; "" if there is none
	origin string // scheme://host, as browsers write it
	host   string // without the port
	prefix string // of paths, without a slash at its end
}

func newExternal(u *url.URL) external {
	if u == nil {
		return external{}
	}
	prefix := strings.TrimSuffix(u.Path, "/")
	return external{
		url:    u.Scheme + "://" + u.Host + prefix,
		origin: strings.ToLower(u.Scheme + "://" + u.Host), host: u.Hostname(), prefix: prefix,
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
