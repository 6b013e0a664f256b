package config

import (
	"net/url"
	"regexp"
	"strings"
)

const masked = "********"

// unsaid replaces a value that may hold a secret in a fault.
const unsaid = "the value that is given, which is not repeated since it may hold a secret"

var (
	authority  = regexp.MustCompile(`//\S*@`)
	credential = regexp.MustCompile(`[^\s/:@]*:[^\s/@][^\s@]*@`)
)

// Scrub removes the user information of URLs, and text that resembles it.
func Scrub(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	return credential.ReplaceAllString(authority.ReplaceAllString(text, "//"+masked+"@"), masked+"@")
}

// keyOf is the part of a name that may be a key whose colon lacks its space.
func keyOf(name string) string {
	key := strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
	if key == "" {
		return name
	}
	return name[:len(name)-len(key)] + "…"
}

// withoutUser shows URLs, separated by commas, without user information and
// query: a user name may be a token.
func withoutUser(text string) string {
	list := strings.Split(text, ",")
	for i, u := range list {
		list[i] = shown(strings.TrimSpace(u), false)
	}
	return strings.Join(list, ",")
}

// withoutPath shows a URL without its path too, which may authorise a webhook.
func withoutPath(text string) string { return shown(text, true) }

func shown(text string, hidePath bool) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return masked
	}
	out := u.Scheme + "://"
	if u.User != nil {
		out += masked + "@"
	}
	out += u.Host
	if path := u.EscapedPath(); hidePath && strings.Trim(path, "/") != "" {
		out += "/" + masked
	} else {
		out += path
	}
	if u.RawQuery != "" {
		out += "?" + masked
	}
	if u.Fragment != "" {
		out += "#" + masked
	}
	return out
}
