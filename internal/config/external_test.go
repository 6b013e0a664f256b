package config_test

import "testing"

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
