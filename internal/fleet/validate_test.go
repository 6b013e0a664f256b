package fleet_test

import (
	"errors"
	"strings"
	"testing"

	"headway/internal/fleet"
	"headway/internal/strict"
)

func TestEndpointsThatAreRefused(t *testing.T) {
	for _, endpoint := range []string{
		"", "127.0.0.1:80", "ftp://h:1", "file:///etc/passwd", "http://", "http://:80", "http://h:", "http://h:0", "http://h:65536", "http://h:080",
		"http://user@h:1", "http://user:pass@h:1", "http://h:1/path", "http://h:1/..", "http://h:1?q", "http://h:1#f", "http://h:1#",
		"http://169.254.169.254", "http://169.254.1.1:80", "http://[fe80::1]:80", "http://[fe80::1%25eth0]:80", "http://[fd00:ec2::254]",
		"http://metadata.google.internal", "http://METADATA.google.internal.:80", "http://100.100.100.200", "http://192.0.0.192",
		"http://[::ffff:169.254.169.254]", "http://[64:ff9b::a9fe:a9fe]", "http://[2002:a9fe:a9fe::1]", "http://[::a9fe:a9fe]", "http://[::169.254.169.254]", "http://[64:ff9b:1::a9fe:a9fe]", "http://[2001:0:4136:e378:8000:63bf:5601:5601]",
		"http://0.0.0.0:80", "http://[::]:80", "http://224.0.0.1", "http://255.255.255.255", "http://[ff02::1]",
		"http://2130706433", "http://0x7f.1", "http://127.1", "http://0177.0.0.1", "http://0xa9fea9fe", "http://1.2.3.4.5", "http://h.1",
		"http://a b", "http://h\n:1", "http://-h", "http://h..i", "http://h_%41", "http://ho\u0435st:1", "http://" + strings.Repeat("a", 64),
		"http://" + strings.Repeat("a.", 300) + "b",
	} {
		s := spec("a")
		s.Endpoint = endpoint
		err := fleet.ValidateSpec(&s, false)
		invalid, ok := errors.AsType[*strict.InvalidError](err)
		if !ok || len(invalid.Faults) != 1 || invalid.Faults[0].Pointer != "/endpoint" {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

func TestEndpointsThatAreTaken(t *testing.T) {
	for endpoint, canonical := range map[string]string{
		"http://127.0.0.1:8000":     "http://127.0.0.1:8000",
		"http://10.1.2.3:8000/":     "http://10.1.2.3:8000",
		"https://GPU-1.example.com": "https://gpu-1.example.com",
		"http://[2001:db8::1]:8000": "http://[2001:db8::1]:8000",
		"http://[2001:db8::1]":      "http://[2001:db8::1]",
		"http://vllm_0.ns.svc:8000": "http://vllm_0.ns.svc:8000",
		"http://localhost:65535":    "http://localhost:65535",
	} {
		s := spec("a")
		s.Endpoint = endpoint
		if err := fleet.ValidateSpec(&s, false); err != nil || s.Endpoint != canonical {
			t.Errorf("%q becomes %q, %v; want %q", endpoint, s.Endpoint, err, canonical)
		}
	}
	s := spec("a")
	s.Endpoint = "http://169.254.10.1:80"
	if err := fleet.ValidateSpec(&s, true); err != nil {
		t.Errorf("link-local, allowed: %v", err)
	}
}

func TestEveryFaultOfARegistrationIsNamed(t *testing.T) {
	s := fleet.Spec{
		ID: "../a", Endpoint: "x", ModelTypes: []string{"ok", "ok", "a b", ""}, Region: "r/s",
		Zone: strings.Repeat("z", 65), Version: "v\n", Engine: strings.Repeat("e", 33),
		Labels: map[string]string{"a/b": "\x00", "": "v"},
	}
	invalid, ok := errors.AsType[*strict.InvalidError](fleet.ValidateSpec(&s, false))
	if !ok {
		t.Fatal("accepted")
	}
	got := map[string]bool{}
	for _, f := range invalid.Faults {
		got[f.Pointer] = true
	}
	for _, pointer := range []string{
		"/id", "/endpoint", "/model_types/1", "/model_types/2", "/model_types/3", "/region", "/zone", "/version", "/engine",
		"/labels/a~1b", "/labels/",
	} {
		if !got[pointer] {
			t.Errorf("no fault at %s; got %v", pointer, invalid.Faults)
		}
	}
}

func FuzzValidateSpec(f *testing.F) {
	for _, e := range []string{"http://127.0.0.1:1", "http://[::ffff:1.2.3.4]:9/", "http://0x7f.1", "https://a.b", "http://[64:ff9b::1]"} {
		f.Add("id", e, "m", "r")
	}
	f.Fuzz(func(t *testing.T, id, endpoint, model, region string) {
		s := fleet.Spec{ID: id, Endpoint: endpoint, ModelTypes: []string{model}, Region: region}
		if fleet.ValidateSpec(&s, false) != nil {
			return
		}
		again := s
		if err := fleet.ValidateSpec(&again, false); err != nil || again.Endpoint != s.Endpoint {
			t.Errorf("%q is taken as %q, which is then %q, %v", endpoint, s.Endpoint, again.Endpoint, err)
		}
		if strings.ContainsAny(s.ID, "/\\ \x00") || len(s.ID) > fleet.MaxIDLength {
			t.Errorf("id %q was taken", s.ID)
		}
	})
}

func spec(id string) fleet.Spec {
	return fleet.Spec{ID: id, Endpoint: "http://127.0.0.1:9000", ModelTypes: []string{"m"}, Region: "us"}
}
