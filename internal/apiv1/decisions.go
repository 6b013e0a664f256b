package apiv1

import (
	"strconv"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// Bounds of a decision request.
const (
	maxSessionKey   = 256 // bytes
	maxPrefixHashes = 4096
	maxExclude      = 256
	maxInputTokens  = 1_000_000_000
	maxTTLSeconds   = 86_400
	bytesPerToken   = 4 // of a prompt whose tokens were not counted: English in the usual vocabularies
)

// decode reads a request of any shape.
func (d *work) decode(body []byte) ([]strict.Fault, error) {
	d.reset()
	faults, err := strict.ReadObject(body, MaxFaults, d.field)
	if d.req.InputTokens = tokensOf(d.prompt); d.tokens != nil {
		d.req.InputTokens = *d.tokens
	}
	if d.ttl != nil {
		d.req.TTL = time.Duration(*d.ttl) * time.Second
	}
	d.req.PrefixHashes, d.req.Exclude = d.hashes, d.ids
	return faults, err
}

func (d *work) field(r *strict.Reader, name string) bool {
	req := &d.req
	switch name {
	case "model_type":
		r.Text(&req.ModelType)
	case "region":
		r.Text(&req.Region)
	case "strategy":
		r.Text(&req.Strategy)
	case "session_key":
		r.Text(&req.SessionKey)
	case "region_mode":
		r.Choice("prefer or require", func(text string) (ok bool) {
			req.RegionMode, ok = strategy.ParseRegionMode(text)
			return ok
		})
	case "prompt":
		d.prompt = r.Size()
	case "input_tokens":
		r.Whole(&d.tokens, 0, maxInputTokens)
	case "ttl_seconds":
		r.Whole(&d.ttl, 1, maxTTLSeconds)
	case "explain":
		r.Bool(&req.Explain)
	case "prefix_hashes":
		r.Array(maxPrefixHashes, func(int) { d.hashes = append(d.hashes, hashOf(r)) })
	case "exclude":
		r.Texts(maxExclude, &d.ids)
	case "labels":
		r.Labels(fleet.MaxLabels+1, &req.Labels)
	default:
		return false
	}
	return true
}

// hashOf reads a prefix hash.
func hashOf(r *strict.Reader) (hash uint64) {
	const want = "1 to 16 hexadecimal digits in a string, or a whole number of at most 2^53"
	switch r.Kind() {
	case strict.Number:
		var n *int64
		if r.Whole(&n, 0, strict.MaxExact); n != nil {
			hash = uint64(*n)
		}
	case strict.String:
		r.Choice(want, func(text string) (ok bool) {
			hash, ok = hex([]byte(text))
			return ok
		})
	default:
		if r.Skip() {
			r.Fault("want %s", want)
		}
	}
	return hash
}

// checkDecision finds what is wrong with a request that was read.
func checkDecision(req *strategy.Request) []strict.Fault {
	var faults strict.Faults
	text := func(pointer, value string, longest int) {
		if len(value) > longest {
			faults.Add(pointer, "has %d bytes; at most %d are allowed", len(value), longest)
		}
	}
	if req.ModelType == "" {
		faults.Add("/model_type", "is required")
	}
	text("/model_type", req.ModelType, fleet.MaxModelTypeLength)
	text("/region", req.Region, fleet.MaxNameLength)
	text("/strategy", req.Strategy, fleet.MaxNameLength)
	text("/session_key", req.SessionKey, maxSessionKey)
	if req.RegionMode == strategy.RegionRequire && req.Region == "" {
		faults.Add("/region", "is required beside region_mode require")
	}
	for i, id := range req.Exclude {
		if !fleet.ValidID(id) {
			faults.Add("/exclude/"+strconv.Itoa(i), "is no id of a head")
		}
	}
	return append(faults, fleet.CheckLabels("/labels", req.Labels)...)
}

// Bounds of an outcome.
const (
	maxDurationMs = 1_000_000_000
	maxTokens     = 1_000_000_000
)

// outcome is an api.Outcome as it is read.
type outcome struct {
	id                                string
	named                             bool // the body names the decision
	result                            routing.Result
	statusCode, input, output, cached *int64
	ttft, duration                    *float64
}

func (in *outcome) field(r *strict.Reader, name string) bool {
	switch name {
	case "decision_id":
		if !in.named {
			return false
		}
		r.Text(&in.id)
	case "result":
		r.Choice("ok, error or cancelled", func(text string) (ok bool) {
			in.result, ok = routing.ParseResult(text)
			return ok
		})
	case "status_code":
		r.Whole(&in.statusCode, 100, 599)
	case "ttft_ms":
		r.Number(&in.ttft, 0, maxDurationMs)
	case "duration_ms":
		r.Number(&in.duration, 0, maxDurationMs)
	case "input_tokens":
		r.Whole(&in.input, 0, maxTokens)
	case "output_tokens":
		r.Whole(&in.output, 0, maxTokens)
	case "cached_tokens":
		r.Whole(&in.cached, 0, maxTokens)
	default:
		return false
	}
	return true
}

// contradictions are what cannot be true of one request: such figures would
// move what is learnt of the head.
func (in *outcome) contradictions() (faults strict.Faults) {
	if in.ttft != nil && in.duration != nil && *in.ttft > *in.duration {
		faults.Add("/ttft_ms", "is over duration_ms: the first token cannot come after the end")
	}
	if in.cached != nil && in.input != nil && *in.cached > *in.input {
		faults.Add("/cached_tokens", "is over input_tokens, of which it is a part")
	}
	// An error may have a status of success: that of an answer that broke off.
	if in.statusCode != nil && in.result == routing.ResultOK && (*in.statusCode < 200 || *in.statusCode >= 400) {
		faults.Add("/status_code", "must be 200 to 399 beside the result ok")
	}
	return faults
}

func (in *outcome) toOutcome() routing.Outcome {
	o := routing.Outcome{
		Result: in.result, StatusCode: fleet.Unknown, TTFT: float64(fleet.Unknown), Duration: float64(fleet.Unknown),
		InputTokens: fleet.Unknown, OutputTokens: fleet.Unknown, CachedTokens: fleet.Unknown,
	}
	give(&o.StatusCode, in.statusCode)
	give(&o.TTFT, in.ttft)
	give(&o.Duration, in.duration)
	give(&o.InputTokens, in.input)
	give(&o.OutputTokens, in.output)
	give(&o.CachedTokens, in.cached)
	return o
}
