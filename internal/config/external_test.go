package config_test

import (
	"os"
	"strings"
	"testing"
)

func TestTheExternalURLIsOneThatRequestsCanComeBy(t *testing.T) {
	for url, good := range map[string]bool{
		"": true, "https://gateway.example": true, "http://gateway.example:8443/": true, "https://g.example/headway": true, "https://g.example/a/b/": true,
		"gateway.example": false, "ftp://g.example": false, "https://u:p@g.example": false, "https://u@g.example": false, "https://g.example/?a": false,
		"https://g.example/#a": false, "https://g.example/api": false, "https://g.example/console/x": false, "https://g.example/v1": false,
		"https://g.example/a//b": false, "https://g.example/a/../b": false, "https://:80/": false, "https://g.example/a%2fb": false,
	} {
		if _, err := load(t, "", nil, "--external-url="+url); (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// A URL below one of our own paths is refused with all of them named, and the manual
// names the same.
func TestOurPathsAreNamed(t *testing.T) {
	_, err := load(t, "", nil, "--external-url=https://g.example/heads")
	if err == nil {
		t.Fatal("a URL below heads is taken")
	}
	_, list, found := strings.Cut(err.Error(), "whose path does not begin with ")
	list, _, ended := strings.Cut(list, ";")
	if !found || !ended {
		t.Fatalf("the fault is %v", err)
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "must not be one of the service's own: `" + strings.ReplaceAll(list, ", ", "`, `") + "`."; !strings.Contains(string(page), want) {
		t.Errorf("docs/operating.md does not say: %s", want)
	}
}
