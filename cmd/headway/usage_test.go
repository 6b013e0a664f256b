package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Several heads or keys are each tried; each failure is named, and the exit code
// is theirs.
func TestOneFailureDoesNotEndTheRest(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"), "--lease-base-interval", "60s")
	for _, id := range []string{"a", "b", "c"} {
		p.must(201, "POST", "/api/v1/heads", headBody(id))
	}
	for _, command := range []string{"drain", "maintenance", "undrain", "remove"} {
		out, errs := s.cli(exitNotFound, "heads", command, "a", "nobody", "b", "nothing")
		has(t, out, "a is ", "b is ")
		has(t, errs, "head nobody: ", "head nothing: ", command+": 2 of 4 failed\n", "head_not_found")
		if n := strings.Count(errs, "head_not_found"); n != 2 {
			t.Errorf("%d descriptions of two failures:\n%s", n, errs)
		}
	}
	out, _ := s.cli(exitOK, "heads", "list")
	has(t, out, "\nc ")
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me", "--out", "admin.key")
	s.cli(exitOK, "keys", "create", "--role", "viewer", "--name", "you", "--out", "viewer.key")
	out, errs := s.cli(exitNotFound, "keys", "revoke", "000000000000", s.named("you"), "--token-file", "admin.key")
	has(t, out, "is revoked")
	has(t, errs, "key 000000000000: ", "1 of 2 failed")
	p.stop()
	_, errs = s.cli(exitUnavailable, "heads", "drain", "a", "b", "--server", p.url, "--timeout", "1s")
	has(t, errs, "head b: not tried", "1 of 2 failed, 1 not tried")
}

// An unknown model type is answered with the known one that it resembles.
func TestAnUnknownModelTypeNamesTheNearest(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"), "--lease-base-interval", "60s")
	p.must(201, "POST", "/api/v1/heads", strings.Replace(headBody("a"), `["m"]`, `["llama-3.1-8b"]`, 1))
	_, errs := s.cli(exitNotFound, "decide", "--model-type", "llama-3.1-8")
	has(t, errs, "Did you mean llama-3.1-8b?")
	answer := string(p.must(404, "POST", "/api/v1/decisions", `{"model_type":"lama-3.1-8b"}`))
	has(t, answer, `"is not known; did you mean llama-3.1-8b?"`)
	_, errs = s.cli(exitNotFound, "decide", "--model-type", "gpt-5")
	if strings.Contains(errs, "id you mean") {
		t.Errorf("said %s", errs)
	}
}

// A slip in a required region is answered at once with the region that was meant.
func TestARegionThatNoHeadIsInIsNamed(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"), "--lease-base-interval", "60s")
	p.must(201, "POST", "/api/v1/heads", strings.Replace(headBody("a"), `"region":"us"`, `"region":"us-west"`, 1))
	_, errs := s.cli(exitUnavailable, "decide", "--model-type", "m", "--region", "us-wst", "--region-mode", "require")
	has(t, errs, "No head is in the region us-wst; did you mean us-west?")
	if strings.Contains(errs, "tried ") {
		t.Errorf("it was asked again: %s", errs)
	}
}

// So is one in a label, in its name or its value.
func TestALabelThatNoHeadHasIsNamed(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"), "--lease-base-interval", "60s")
	p.must(201, "POST", "/api/v1/heads", strings.Replace(headBody("a"), `"region"`, `"labels":{"gpu":"h100-80gb","tier":"gold"},"region"`, 1))
	for label, want := range map[string]string{
		"gqu=h100-80gb":            "No head has a label gqu; did you mean gpu?",
		"gpu=h100-80g":             "No head has the label gpu=h100-80g; did you mean gpu=h100-80gb?",
		"colour=red":               "No head has a label colour.",
		"tier=silver":              "No head has the label tier=silver.",
		"gpu=h100,tier=gold,x=y":   "No head has the label gpu=h100; did you mean gpu=h100-80gb? No head has a label x.",
		"gpu=h100-80g,tier=golden": "did you mean gpu=h100-80gb? No head has the label tier=golden; did you mean tier=gold?",
	} {
		_, errs := s.cli(exitUnavailable, "decide", "--model-type", "m", "--label", label)
		if !strings.Contains(errs, want+"\n") {
			t.Errorf("%s: said %q; want %q", label, errs, want)
		}
	}
	if out, _ := s.cli(exitOK, "decide", "--model-type", "m", "--label", "gpu=h100-80gb,tier=gold"); !strings.Contains(out, "a  ") {
		t.Errorf("printed %q", out)
	}
}

func TestASecondCertificateOfAnAuthority(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	s.cli(exitOK, "tls", "init")
	_, errs := s.cli(exitError, "tls", "init", "--host", "gateway.internal")
	has(t, errs, "move data/tls/server.pem and data/tls/server-key.pem away and run this again")
	for _, name := range []string{"server.pem", "server-key.pem"} {
		if err := os.Rename(filepath.Join(s.dir, "data/tls", name), filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.cli(exitOK, "tls", "init", "--host", "gateway.internal")
}
