package config

// Tracing says where the spans of requests to /v1 are sent.
type Tracing struct {
	Endpoint       string // of an OTLP collector; "": nothing is traced
	HeadersFile    string
	SampleShare    float64
	AllowLinkLocal bool
}

// collectorURL shows no path, which may be a credential.
var collectorURL = form{show: withoutPath, allowed: optionalURL.allowed, valid: optionalURL.valid}

func (t *table) tracing(c *Tracing) {
	t.text("tracing.otlp_endpoint", &c.Endpoint, "", collectorURL,
		"OpenTelemetry collector that the spans of requests to /v1 are posted to by OTLP over HTTP, such as http://localhost:4318; without a path /v1/traces is added")
	t.text("tracing.otlp_headers_file", &c.HeadersFile, "", optionalPath,
		"file with header lines for the collector, such as Authorization: Bearer …; it is read again for each call")
	fraction.add(t, "tracing.sample_share", &c.SampleShare, 1, 0, 1,
		"share of the requests that are traced, of those that come without a trace; others follow the flag of theirs")
	t.boolean("tracing.allow_link_local", &c.AllowLinkLocal, false,
		"post to a collector whose address is a link-local or a cloud metadata one")
}
