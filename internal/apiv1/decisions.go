package apiv1

import (
	"strconv"
	"time"

	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/prefix"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// Bounds of a decision request.
const (
	maxSessionKey   = 256 // bytes
	maxPrefixHashes = prefix.MaxHashes
	maxExclude      = 256
	maxInputTokens  = 1_000_000_000
	maxTTLSeconds   = 86_400
	maxTurn         = 1_000_000_000
	bytesPerToken   = 4 // of a prompt whose tokens were not counted: English in the usual vocabularies
)

// decode reads a request of any shape.
func (d *work) decode(body []byte) ([]strict.Fault, error) {
	d.reset()
	faults, err := strict.ReadObject(body, MaxFaults, d.field)
	d.complete()
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
	case "session_id":
		r.Text(&req.SessionID)
	case "turn":
		r.Whole(&req.Turn, 0, maxTurn)
	case "expected_return_ms":
		r.Number(&d.returns, 0, maxDurationMs)
	case "prompt":
		if raw, ok := r.Quoted(); ok {
			openai.WritePlain(raw[1:len(raw)-1], &d.chain)
		}
	case "input_tokens":
		r.Whole(&req.InputTokens, 0, maxInputTokens)
	case "ttl_seconds":
		var seconds int64
		r.Whole(&seconds, 1, maxTTLSeconds)
		req.TTL = time.Duration(seconds) * time.Second
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
		var n int64
		r.Whole(&n, 0, strict.MaxExact)
		hash = uint64(n)
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
	text("/session_id", req.SessionID, maxSessionKey)
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
	id    string
	named bool // the body names the decision
	routing.Outcome
}

// newOutcome is an outcome of which nothing is known yet. Without an id the
// body names the decision.
func newOutcome(id string) outcome {
	return outcome{id, id == "", routing.Outcome{
		StatusCode: fleet.Unknown, TTFT: float64(fleet.Unknown), Duration: float64(fleet.Unknown),
		InputTokens: fleet.Unknown, OutputTokens: fleet.Unknown, CachedTokens: fleet.Unknown,
	}}
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
			in.Result, ok = routing.ParseResult(text)
			return ok
		})
	case "status_code":
		r.Whole(&in.StatusCode, 100, 599)
	case "ttft_ms":
		r.Number(&in.TTFT, 0, maxDurationMs)
	case "duration_ms":
		r.Number(&in.Duration, 0, maxDurationMs)
	case "input_tokens":
		r.Whole(&in.InputTokens, 0, maxTokens)
	case "output_tokens":
		r.Whole(&in.OutputTokens, 0, maxTokens)
	case "cached_tokens":
		r.Whole(&in.CachedTokens, 0, maxTokens)
	default:
		return false
	}
	return true
}

// contradictions are what cannot be true of one request: such figures would
// move what is learnt of the head.
func (in *outcome) contradictions() (faults strict.Faults) {
	if in.Duration >= 0 && in.TTFT > in.Duration {
		faults.Add("/ttft_ms", "is over duration_ms: the first token cannot come after the end")
	}
	if in.InputTokens >= 0 && in.CachedTokens > in.InputTokens {
		faults.Add("/cached_tokens", "is over input_tokens, of which it is a part")
	}
	// An error may have a status of success: that of an answer that broke off.
	if in.StatusCode >= 0 && in.Result == routing.ResultOK && (in.StatusCode < 200 || in.StatusCode >= 400) {
		faults.Add("/status_code", "must be 200 to 399 beside the result ok")
	}
	return faults
}
