package calls

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

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
	faults, err := readForm(body, d.field)
	if d.req.InputTokens = tokensOf(d.prompt); d.tokens != nil {
		d.req.InputTokens = *d.tokens
	}
	if d.ttl != nil {
		d.req.TTL = time.Duration(*d.ttl) * time.Second
	}
	d.req.PrefixHashes, d.req.Exclude = d.hashes, d.ids
	return faults, err
}

func (d *work) field(f *form, name string) bool {
	req := &d.req
	switch name {
	case "model_type":
		f.text(&req.ModelType)
	case "region":
		f.text(&req.Region)
	case "strategy":
		f.text(&req.Strategy)
	case "session_key":
		f.text(&req.SessionKey)
	case "region_mode":
		f.choice("prefer or require", func(text string) (ok bool) {
			req.RegionMode, ok = strategy.ParseRegionMode(text)
			return ok
		})
	case "prompt":
		d.prompt = f.size()
	case "input_tokens":
		f.whole(&d.tokens, 0, maxInputTokens)
	case "ttl_seconds":
		f.whole(&d.ttl, 1, maxTTLSeconds)
	case "explain":
		f.boolean(&req.Explain)
	case "prefix_hashes":
		f.array(maxPrefixHashes, func(int) { d.hashes = append(d.hashes, f.hash()) })
	case "exclude":
		f.texts(maxExclude, &d.ids)
	case "labels":
		f.labels(&req.Labels)
	default:
		return false
	}
	return true
}

// size reads past a string and returns the bytes of UTF-8 that it means: a
// prompt is measured and never copied.
func (f *form) size() int {
	if f.d.PeekKind() != '"' {
		if !f.null() {
			f.want("a string")
		}
		return 0
	}
	raw, err := f.d.ReadValue()
	if err != nil {
		f.fail(err)
		return 0
	}
	c := scanner{b: raw}
	_, size, _ := c.quoted()
	return size
}

// hash reads a prefix hash.
func (f *form) hash() uint64 {
	const want = "1 to 16 hexadecimal digits in a string, or a whole number of at most 2^53"
	if kind := f.d.PeekKind(); kind != '"' && kind != '0' {
		f.want(want)
		return 0
	}
	raw, err := f.d.ReadValue()
	if err != nil {
		f.fail(err)
		return 0
	}
	if raw[0] != '"' {
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil { // perhaps 1e3 or 12.0
			v, err := strconv.ParseFloat(string(raw), 64)
			if n = uint64(max(v, 0)); err != nil || float64(n) != v {
				n = math.MaxUint64
			}
		}
		if n > maxExact {
			f.fault("want %s", want)
		}
		return n
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		f.fault("want %s", want)
		return 0
	}
	v, ok := hex([]byte(text))
	if !ok {
		f.fault("want %s", want)
	}
	return v
}

// plausible reports, for the usual request, that checkDecision would find
// nothing. Of any other it says no, whether there is something to find or not.
func plausible(req *strategy.Request) bool {
	return req.ModelType != "" && len(req.ModelType) <= fleet.MaxModelTypeLength && len(req.Region) <= fleet.MaxNameLength &&
		len(req.SessionKey) <= maxSessionKey && len(req.Strategy) <= fleet.MaxNameLength && len(req.Exclude) == 0 &&
		len(req.Labels) == 0 && (req.RegionMode != strategy.RegionRequire || req.Region != "")
}

// checkDecision returns what is wrong with a request beyond the given faults.
func checkDecision(req *strategy.Request, already []strict.Fault) []strict.Fault {
	var faults []strict.Fault
	add := func(pointer, reason string) { faults = append(faults, strict.Fault{Pointer: pointer, Reason: reason}) }
	text := func(pointer, value string, longest int) {
		if len(value) > longest {
			add(pointer, "has "+strconv.Itoa(len(value))+" bytes; at most "+strconv.Itoa(longest)+" are allowed")
		}
	}
	if req.ModelType == "" {
		add("/model_type", "is required")
	}
	text("/model_type", req.ModelType, fleet.MaxModelTypeLength)
	text("/region", req.Region, fleet.MaxNameLength)
	text("/strategy", req.Strategy, fleet.MaxNameLength)
	text("/session_key", req.SessionKey, maxSessionKey)
	if req.RegionMode == strategy.RegionRequire && req.Region == "" {
		add("/region", "is required beside region_mode require")
	}
	for i, id := range req.Exclude {
		if id == "" || len(id) > fleet.MaxIDLength || strings.ContainsFunc(id, NotOfID) {
			add("/exclude/"+strconv.Itoa(i), "is no id of a head")
		}
	}
	faults = append(faults, fleet.CheckLabels("/labels", req.Labels)...)
	return merge(already, strict.Invalid(faults))[len(already):]
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

func (in *outcome) field(f *form, name string) bool {
	switch name {
	case "decision_id":
		if !in.named {
			return false
		}
		f.text(&in.id)
	case "result":
		f.choice("ok, error or cancelled", func(text string) (ok bool) {
			in.result, ok = routing.ParseResult(text)
			return ok
		})
	case "status_code":
		f.whole(&in.statusCode, 100, 599)
	case "ttft_ms":
		f.number(&in.ttft, 0, maxDurationMs)
	case "duration_ms":
		f.number(&in.duration, 0, maxDurationMs)
	case "input_tokens":
		f.whole(&in.input, 0, maxTokens)
	case "output_tokens":
		f.whole(&in.output, 0, maxTokens)
	case "cached_tokens":
		f.whole(&in.cached, 0, maxTokens)
	default:
		return false
	}
	return true
}

// contradictions are what cannot be true of one request: such figures would
// move what is learnt of the head.
func (in *outcome) contradictions() (faults []strict.Fault) {
	add := func(pointer, reason string) { faults = append(faults, strict.Fault{Pointer: pointer, Reason: reason}) }
	if in.ttft != nil && in.duration != nil && *in.ttft > *in.duration {
		add("/ttft_ms", "is over duration_ms: the first token cannot come after the end")
	}
	if in.cached != nil && in.input != nil && *in.cached > *in.input {
		add("/cached_tokens", "is over input_tokens, of which it is a part")
	}
	// An error may have a status of success: that of an answer that broke off.
	if in.statusCode != nil && in.result == routing.ResultOK && (*in.statusCode < 200 || *in.statusCode >= 400) {
		add("/status_code", "must be 200 to 399 beside the result ok")
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
