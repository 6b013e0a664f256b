package httpapi_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"headway/internal/admission"
	"headway/internal/proxy"
)

// However a proxy or a client calls a credential, an identity or an address of the
// caller, or another request that a head is to take this one for, it is not passed on.
func TestPitfallP16FieldsOfTheseKindsReachNoHead(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	below := p.newWire("", "m2")
	names := strings.Fields(`
		X-Amzn-Oidc-Accesstoken X-Amzn-Oidc-Data X-Amzn-Oidc-Identity X-Ms-Client-Principal X-Ms-Client-Principal-Name X-Ms-Token-Aad-Access-Token X-Webauth-User
		X-Goog-Authenticated-User-Email X-Pomerium-Claim-Email Tailscale-User-Login Helicone-Auth X-Auth X-Authtoken X-Accesstoken Accesstoken X-Sessiontoken X-Session-Id
		X-Functions-Key X-Master-Key X-Portkey-Virtual-Key X-Portkey-Api-Key Ocp-Apim-Subscription-Key X-Passwd X-Pwd X-Pass X-Otp Dpop Signature Signature-Input X-Hub-Signature-256
		X-Vault-Token X-Amz-Credential X-Api-Keys Remote-User Remote-Groups Remote-Name X-Remote-User X-Remote-Host X-Remote-Addr Impersonate-User X-Authentik-Username X-Vouch-Idp-Claims-Sub
		X-Grafana-User X-Cas-Ticket X-Ssl-Client-Dn Ssl-Client-Subject X-Arr-Clientcert Client-Cert X-Csrftoken X-Xsrf X-Account-Id Chatgpt-Account-Id From X-Userid X-Login
		X-Forwarded X-Forwarded-For Forwarded-For X-Forward-For X-Azure-Socketip X-Userip X-Ipaddress X-Cluster-Client-Ip Fastly-Client-Ip X-Appengine-User-Ip Cf-Connecting-Ipv6
		Cf-Ipcountry Cloudfront-Viewer-Address X-Appengine-City X-Originating-Ip Wl-Proxy-Client-Ip X-Real-Ip Sec-Fetch-User Sec-Ch-Ua
		SCRIPT_NAME Script-Name PATH_INFO Path-Info X-Script-Name Proxy X-Proxy-Url X-Request-Uri X-Ms-Original-Url X-Waws-Unencoded-Url X-Envoy-Original-Path X-Original-Path X-Original-Host
		X-Original-Method X-Override-Url X-Http-Host-Override X-Http-Destinationurl X-Http-Path-Override X-Rewritten-Url X-Url-Scheme X-Scheme X-Host Front-End-Https Surrogate-Capability
		X-Accel-Redirect Access-Control-Request-Method x_anything X_Of_The_App X.Forwarded.For`)
	kept := strings.Fields(`User-Agent Idempotency-Key Openai-Beta Anthropic-Beta Anthropic-Version X-Stainless-Lang X-Stainless-Helper-Method X-Stainless-Poll-Helper X-Openai-Client-User-Agent
		X-Client-Request-Id X-Of-The-App X-Title X-Amzn-Trace-Id X-B3-Traceid Baggage X-Tokenizer X-Clip-Skip Inference-Header-Content-Length X-Tenant-Id X-Gzip X-Correlation-Id`)
	ofContent := strings.Fields("Range If-Match If-None-Match If-Modified-Since Content-Md5 Digest")
	var header []string
	for _, n := range append(append(names, kept...), ofContent...) {
		header = append(header, n, "v")
	}
	if a := p.answer(chatPath, chatBody, header...); a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	_, got := seen(t, head)
	for _, n := range append(names, ofContent...) {
		for name := range got {
			if strings.EqualFold(name, n) {
				t.Errorf("the head got %s", n)
			}
		}
	}
	for _, n := range kept {
		if got.Get(n) != "v" {
			t.Errorf("the head did not get %s", n)
		}
	}
	p.send(http.MethodPost, "/heads/m2/v2/models/m/infer", strings.NewReader("ab"), header...)
	text := strings.ToLower(strings.Join(below.take(), ""))
	for _, n := range names {
		if strings.Contains(text, "\n"+strings.ToLower(n)+":") {
			t.Errorf("below /heads the head got %s", n)
		}
	}
	for _, n := range append(kept, ofContent...) {
		if !strings.Contains(text, "\n"+strings.ToLower(n)+": v") {
			t.Errorf("below /heads the head did not get %s", n)
		}
	}
}

func TestFieldsThatTheOperatorNames(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) {
		o.DropHeaders, o.PassHeaders = []string{"x-corp-*", "User-Agent"}, []string{"X-Session-Id", "x-user-*", "Authorization", "x_*"}
	})
	head := p.start("a")
	p.answer(chatPath, chatBody, "X-Corp-Team", "v", "User-Agent", "v", "X-Session-Id", "v", "X-User-Id", "v", "Authorization", "Bearer sk-1", "X-Other", "v", "X_User", "v")
	_, got := seen(t, head)
	for name, want := range map[string]string{"X-Corp-Team": "", "User-Agent": "", "X-Session-Id": "v", "X-User-Id": "v", "Authorization": "", "X-Other": "v", "X_User": ""} {
		if got.Get(name) != want {
			t.Errorf("%s: the head got %q", name, got.Get(name))
		}
	}
}

// A head's answer acts neither on the origin that it comes from nor on proxies before.
func TestFieldsOfAHeadThatActOnOthers(t *testing.T) {
	p := newPlane(t)
	names := strings.Fields(`Nel Report-To Reporting-Endpoints Service-Worker-Allowed Link X-Associated-Content Speculation-Rules Accept-Ch Use-As-Dictionary Set-Login Sec-Session-Registration
		Secure-Session-Registration Public-Key-Pins Public-Key-Pins-Report-Only Attribution-Reporting-Register-Source X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Expires X-Accel-Charset
		Surrogate-Control Surrogate-Key Cdn-Cache-Control Cloudflare-Cdn-Cache-Control Edge-Control X-Sendfile X-Sendfile2 X-Sendfile-Type X-Lighttpd-Send-Tempfile X-Litespeed-Location X-Reproxy-Url
		X-Reproxy-File X-Envoy-Immediate-Health-Check-Fail Proxy-Authentication-Info Proxy-Status Authentication-Info Access-Control-Allow-Origin Access_Control_Allow_Origin X-Headway-Other`)
	kept := []string{"X-Ratelimit-Remaining-Requests", "Ratelimit-Remaining", "Etag", "X-Of-The-Engine", "Content-Language"}
	p.script("a", func(w http.ResponseWriter, _ *http.Request) {
		for _, n := range append(names, kept...) {
			w.Header()[n] = []string{"of-the-head"}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model":"m","choices":[]}`)
	})
	for _, path := range []string{"/heads/m/x", chatPath} {
		a := p.answer(path, chatBody)
		for _, n := range names {
			if a.Header[n] != nil {
				t.Errorf("%s: the caller got %s", path, n)
			}
		}
		for _, n := range kept {
			if a.Header.Get(n) != "of-the-head" {
				t.Errorf("%s: the caller did not get %s", path, n)
			}
		}
	}
}

// Where Headway says what is left of a caller's limits, a head does not.
func TestLimitsOfAHeadAreNotMixedWithOurs(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) {
		o.Admission, _ = admission.New(admission.Options{Metrics: o.Metrics, Requests: 100})
	})
	p.script("a", func(w http.ResponseWriter, _ *http.Request) {
		for _, n := range []string{"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens", "Ratelimit-Policy", "Anthropic-Ratelimit-Tokens-Remaining"} {
			w.Header().Set(n, "of-the-head")
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model":"m","choices":[]}`)
	})
	a := p.answer(chatPath, chatBody)
	if a.Header.Get("X-Ratelimit-Limit-Requests") != "100" {
		t.Errorf("%v", a.Header)
	}
	for name, values := range a.Header {
		if strings.Contains(strings.Join(values, " "), "of-the-head") {
			t.Errorf("the caller got %s of the head", name)
		}
	}
}

// A credential that stands in the URL too is refused, however it is encoded, and no
// head gets it.
func TestACredentialInTheURLReachesNoHead(t *testing.T) {
	const secret = "a-key/that+no-head-may-see-0123456789"
	p := newPlane(t)
	head := p.start("a")
	for _, url := range []string{
		chatPath + "?foo=" + secret, chatPath + "?a=%zz&foo=a-key%2fthat%2Bno-head-may-see-0123456789", chatPath + "?a-key%252fthat%252Bno-head-may-see-012345678%2539",
		"/heads/m/x?foo=" + secret, "/heads/m/" + secret + "/x", "/heads/m/x/a-key%2Fthat+no-head-may-see-0123456789",
	} {
		for _, field := range []string{"Authorization", "X-Api-Key"} {
			value := secret
			if field == "Authorization" {
				value = "Bearer " + secret
			}
			a := p.answer(url, chatBody, field, value)
			if a.StatusCode != http.StatusBadRequest || !strings.Contains(string(a.body), `"key_in_url"`) || strings.Contains(string(a.body), secret) {
				t.Errorf("%s: %d %s", url, a.StatusCode, a.body)
			}
		}
	}
	if head.Count() != 0 {
		t.Error("the head got a request")
	}
	if a := p.answer(chatPath+"?api-version=1&q=%zz", chatBody, "Authorization", "Bearer "+secret); a.StatusCode != http.StatusOK {
		t.Errorf("another query: %d %s", a.StatusCode, a.body)
	}
}
