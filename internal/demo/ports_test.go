package demo

import (
	"net/url"
	"strconv"
	"testing"

	"headway/internal/freeport"
)

func TestPortsAreARange(t *testing.T) {
	for text, want := range map[string]Ports{"": {}, "9001-9008": {9001, 9008}, "1-65535": {1, 65535}, "80-80": {80, 80}} {
		if got, err := ParsePorts(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"9001", "9008-9001", "0-9", "1-65536", "a-b", "1-2-3", "-", "1-"} {
		if got, err := ParsePorts(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
	o := Options{Server: "http://127.0.0.1:1", Heads: 3, Models: []string{"m"}, Ports: Ports{9001, 9002}}
	if err := o.Complete(); err == nil {
		t.Error("three heads have two ports")
	}
	o.Ports.Last++
	if err := o.Complete(); err != nil {
		t.Error(err)
	}
}

// The heads listen on the ports that are given, and again there after a kill.
func TestHeadsStayWithinTheirPorts(t *testing.T) {
	_, address := newFakeRouter(t)
	first := freeport.Range(t, 2)
	o := Options{Server: address, Heads: 2, Models: []string{"m"}, Ports: Ports{first, first + 1}}
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	f := newHeads(&o, agents(t, &o))
	defer func() { _ = f.stopAll(t.Context()) }()
	within := func() {
		t.Helper()
		for i, u := range f.units {
			at, err := url.Parse(u.head.URL())
			if err != nil || at.Port() != strconv.Itoa(first+i) {
				t.Errorf("%s is at %s, error %v", u.id, at, err)
			}
		}
	}
	if err := f.startAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	within()
	id := f.kill()
	f.revive(t.Context(), id)
	within()
}
