package httpapi

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// requests are decision requests that were answered and can be used again.
var requests = sync.Pool{New: func() any { return new(routing.Request) }}

func (s *Server) makeDecision(w http.ResponseWriter, r *http.Request) error {
	buf, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer buf.free()
	req, _ := requests.Get().(*routing.Request)
	defer requests.Put(req)
	if !scanDecision(buf.b, req) {
		if err := decodeDecision(buf.b, req); err != nil {
			return err
		}
	}
	if err := checkDecision(req); err != nil {
		return err
	}
	d, err := s.router.Decide(req)
	if err != nil {
		return err
	}
	b := appendDecision(buf.b[:0], d)
	buf.b = b
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
	return nil
}

// Bounds of a decision request.
const (
	maxSessionKey   = 256
	maxPrefixHashes = 4096
	maxExclude      = 256
	maxInputTokens  = 1_000_000_000
	bytesPerToken   = 4 // of a prompt whose tokens were not counted
)

// decodeDecision reads a request of any shape; the fast scanner reads the
// usual one.
func decodeDecision(body []byte, req *routing.Request) error {
	*req = routing.Request{}
	var in struct {
		api.DecisionRequest
		PrefixHashes []jsontext.Value `json:"prefix_hashes"`
	}
	if err := decode(body, &in); err != nil {
		return err
	}
	*req = routing.Request{
		ModelType: in.ModelType, Region: in.Region, Strategy: in.Strategy, SessionKey: in.SessionKey,
		Exclude: in.Exclude, Labels: in.Labels, Explain: in.Explain,
		InputTokens: int64(len(in.Prompt)+bytesPerToken-1) / bytesPerToken,
	}
	var faults []fleet.Fault
	add := func(pointer, reason string) { faults = append(faults, fleet.Fault{Pointer: pointer, Reason: reason}) }
	if in.InputTokens != nil {
		if req.InputTokens = *in.InputTokens; req.InputTokens < 0 || req.InputTokens > maxInputTokens {
			add("/input_tokens", "must be 0 to 1,000,000,000")
		}
	}
	if in.RegionMode != "" {
		var ok bool
		if req.RegionMode, ok = routing.ParseRegionMode(in.RegionMode); !ok {
			add("/region_mode", "want prefer or require")
		}
	}
	if len(in.PrefixHashes) > maxPrefixHashes {
		add("/prefix_hashes", "has more than "+strconv.Itoa(maxPrefixHashes)+" hashes")
	}
	for i, raw := range in.PrefixHashes[:min(len(in.PrefixHashes), maxPrefixHashes)] {
		hash, ok := prefixHash(raw)
		if !ok {
			add("/prefix_hashes/"+strconv.Itoa(i), "want 1 to 16 hexadecimal digits, or a whole number below 2^53")
			break
		}
		req.PrefixHashes = append(req.PrefixHashes, hash)
	}
	if len(faults) > 0 {
		return &fleet.InvalidError{Faults: faults}
	}
	return nil
}

func prefixHash(raw jsontext.Value) (uint64, bool) {
	text := string(raw)
	base, bits := 10, 53
	if strings.HasPrefix(text, `"`) {
		if json.Unmarshal(raw, &text) != nil {
			return 0, false
		}
		base, bits = 16, 64
	}
	if text == "" || text[0] == '+' {
		return 0, false
	}
	hash, err := strconv.ParseUint(text, base, bits)
	return hash, err == nil
}

// checkDecision checks what both readers leave to be checked.
func checkDecision(req *routing.Request) error {
	if len(req.ModelType) >= 1 && len(req.ModelType) <= fleet.MaxModelTypeLength && len(req.Region) <= fleet.MaxNameLength &&
		len(req.SessionKey) <= maxSessionKey && len(req.Strategy) <= fleet.MaxNameLength && len(req.Exclude) == 0 && len(req.Labels) == 0 &&
		(req.RegionMode != routing.RegionRequire || req.Region != "") {
		return nil
	}
	var faults []fleet.Fault
	add := func(pointer, reason string) { faults = append(faults, fleet.Fault{Pointer: pointer, Reason: reason}) }
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
	if req.RegionMode == routing.RegionRequire && req.Region == "" {
		add("/region", "is required with region_mode require")
	}
	if len(req.Exclude) > maxExclude {
		add("/exclude", "has more than "+strconv.Itoa(maxExclude)+" ids")
	}
	for i, id := range req.Exclude[:min(len(req.Exclude), maxExclude)] {
		if id == "" || len(id) > fleet.MaxIDLength {
			add("/exclude/"+strconv.Itoa(i), "is no id of a head")
		}
	}
	faults = append(faults, fleet.CheckLabels("/labels", req.Labels)...)
	if len(faults) > 0 {
		return &fleet.InvalidError{Faults: faults}
	}
	return nil
}

// appendDecision writes the answer by hand: it is the hot one.
func appendDecision(b []byte, d *routing.Decision) []byte {
	b = append(b, `{"decision_id":"`...)
	b = d.AppendID(b)
	b = append(b, `","head":`...)
	b = appendHead(b, d.Head)
	b = append(b, `,"strategy":"`...)
	b = append(b, d.Strategy...)
	b = append(b, `","reason":"`...)
	b = d.AppendReason(b) // of names that are checked: nothing to escape
	b = append(b, `","alternatives":[`...)
	for i, p := range d.Alternatives() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHead(b, p.Head)
	}
	b = append(b, `],"expires_at":"`...)
	b = stamp(d.ExpiresAt).AppendFormat(b, "2006-01-02T15:04:05.999Z07:00")
	b = append(b, `","policy_revision":`...)
	b = strconv.AppendUint(b, d.PolicyRevision, 10)
	if d.Explanation != nil {
		if raw, err := json.Marshal(toExplanation(d.Explanation)); err == nil {
			b = append(b, `,"explanation":`...)
			b = append(b, raw...)
		}
	}
	return append(b, '}', '\n')
}

func appendHead(b []byte, h *fleet.Head) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, h.ID...)
	b = append(b, `","endpoint":"`...)
	b = append(b, h.Endpoint...)
	b = append(b, `","region":"`...)
	b = append(b, h.Region...)
	return append(b, '"', '}')
}

func toExplanation(e *routing.Explanation) *api.Explanation {
	out := &api.Explanation{
		PolicyRevision: e.PolicyRevision, SnapshotRevision: e.SnapshotRevision, Rule: "default_strategy",
		Strategy: e.Strategy, Delegate: e.Delegate, Formula: e.Formula, Region: e.Region, RegionMode: e.RegionMode.String(),
		CacheHit: e.CacheHit, Omitted: e.Omitted, Candidates: make([]api.Candidate, 0, len(e.Candidates)),
	}
	switch {
	case e.Rule >= 0:
		out.Rule = "/rules/" + strconv.Itoa(e.Rule)
	case e.Rule == routing.RuleByCaller:
		out.Rule = "request"
	}
	for _, c := range e.Candidates {
		candidate := api.Candidate{
			Head: c.HeadID, Region: c.Region, DistanceMs: number(c.Distance), Filter: c.Filter,
			Cost: number(c.Cost), Chosen: c.Chosen, Signals: make([]api.Signal, 0, len(c.Signals)),
		}
		for _, s := range c.Signals {
			candidate.Signals = append(candidate.Signals, api.Signal{Name: s.Name, Value: s.Value, AgeMs: millis(s.Age)})
		}
		out.Candidates = append(out.Candidates, candidate)
	}
	return out
}

func (s *Server) reportProgress(w http.ResponseWriter, r *http.Request) error {
	var body api.Progress
	if err := s.read(w, r, &body); err != nil {
		return err
	}
	if body.Event != "first_token" {
		return &fleet.InvalidError{Faults: []fleet.Fault{{Pointer: "/event", Reason: "want first_token"}}}
	}
	if err := s.router.FirstToken(r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Bounds of an outcome.
const (
	maxDurationMs = 1e9
	maxTokenCount = 1_000_000_000
)

func (s *Server) reportOutcome(w http.ResponseWriter, r *http.Request) error {
	var body api.Outcome
	if err := s.read(w, r, &body); err != nil {
		return err
	}
	outcome, err := toOutcome(&body)
	if err != nil {
		return err
	}
	if err := s.router.Finish(r.PathValue("id"), outcome); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func toOutcome(body *api.Outcome) (routing.Outcome, error) {
	var faults []fleet.Fault
	add := func(pointer, reason string) { faults = append(faults, fleet.Fault{Pointer: pointer, Reason: reason}) }
	result, ok := routing.ParseResult(body.Result)
	if !ok {
		add("/result", "want ok, error or cancelled")
	}
	count := func(pointer string, v *int64, least, most int64) int64 {
		if v == nil {
			return fleet.Unknown
		}
		if *v < least || *v > most {
			add(pointer, "must be "+strconv.FormatInt(least, 10)+" to "+strconv.FormatInt(most, 10))
		}
		return *v
	}
	duration := func(pointer string, v *float64) float64 {
		if v == nil {
			return float64(fleet.Unknown)
		}
		if !(*v >= 0 && *v <= maxDurationMs) {
			add(pointer, "must be 0 to 1e9")
		}
		return *v
	}
	o := routing.Outcome{
		Result: result, StatusCode: count("/status_code", body.StatusCode, 100, 599),
		TTFT: duration("/ttft_ms", body.TTFTMs), Duration: duration("/duration_ms", body.DurationMs),
		InputTokens:  count("/input_tokens", body.InputTokens, 0, maxTokenCount),
		OutputTokens: count("/output_tokens", body.OutputTokens, 0, maxTokenCount),
		CachedTokens: count("/cached_tokens", body.CachedTokens, 0, maxTokenCount),
	}
	if len(faults) > 0 {
		return o, &fleet.InvalidError{Faults: faults}
	}
	return o, nil
}

func (s *Server) getDecision(w http.ResponseWriter, r *http.Request) error {
	d, err := s.router.Decision(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, toRecent(d))
}

func (s *Server) listDecisions(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "model_type", "head", "limit", "cursor")
	if err != nil {
		return err
	}
	limit, err := q.limit()
	if err != nil {
		return err
	}
	before := uint64(0)
	if text := q["cursor"]; text != "" {
		if before, err = strconv.ParseUint(text, 36, 64); err != nil || before == 0 {
			return q.invalid("cursor", "is not one that a list gave")
		}
	}
	found := s.router.Recent(routing.RecentQuery{Limit: limit, ModelType: q["model_type"], Head: q["head"], Before: before})
	page := api.List[api.RecentDecision]{Data: make([]api.RecentDecision, 0, len(found))}
	for _, d := range found {
		page.Data = append(page.Data, toRecent(d))
	}
	if len(found) == limit {
		page.NextCursor = strconv.FormatUint(found[limit-1].Sequence(), 36)
	}
	return writeJSON(w, http.StatusOK, page)
}

func toRecent(d *routing.Decision) api.RecentDecision {
	recent := api.RecentDecision{
		Decision: api.Decision{
			DecisionID: d.ID(), Head: toDecisionHead(d.Head), Strategy: d.Strategy, Reason: string(d.AppendReason(nil)),
			Alternatives: []api.DecisionHead{}, ExpiresAt: stamp(d.ExpiresAt), PolicyRevision: d.PolicyRevision,
		},
		ModelType: d.ModelType, Region: d.Region, At: stamp(d.At), FirstTokenAt: stampPointer(d.FirstTokenAt()),
	}
	for _, p := range d.Alternatives() {
		recent.Alternatives = append(recent.Alternatives, toDecisionHead(p.Head))
	}
	if d.Explanation != nil {
		recent.Explanation = toExplanation(d.Explanation)
	}
	if o, ended := d.Outcome(); ended {
		recent.Outcome = &api.RecordedOutcome{At: stampPointer(o.At), Outcome: api.Outcome{Result: o.Result.String()}}
		if o.Result <= routing.ResultCancelled {
			recent.Outcome.StatusCode = known(o.StatusCode)
			recent.Outcome.TTFTMs, recent.Outcome.DurationMs = reported(o.TTFT), reported(o.Duration)
			recent.Outcome.InputTokens, recent.Outcome.OutputTokens = known(o.InputTokens), known(o.OutputTokens)
			recent.Outcome.CachedTokens = known(o.CachedTokens)
		}
	}
	return recent
}

func reported(ms float64) *float64 {
	if ms < 0 {
		return nil
	}
	return &ms
}

func toDecisionHead(h *fleet.Head) api.DecisionHead {
	return api.DecisionHead{ID: h.ID, Endpoint: h.Endpoint, Region: h.Region}
}

// scanDecision reads the usual request in one pass and without decoding:
// an object of known fields, each at most once, with plain strings of ASCII
// without escapes, whole numbers and booleans. It returns false for everything
// else, right or wrong, which decodeDecision then reads; what it accepts means
// the same there.
func scanDecision(body []byte, req *routing.Request) bool {
	*req = routing.Request{}
	c := scanner{b: body}
	if !c.take('{') {
		return false
	}
	var seen fields
	promptTokens := int64(0)
	for first := true; ; first = false {
		if c.take('}') {
			break
		}
		if !first && !c.take(',') {
			return false
		}
		name, ok := c.text()
		if !ok || !c.take(':') {
			return false
		}
		field := fieldNamed(name)
		if field == 0 || seen&field != 0 {
			return false
		}
		seen |= field
		switch field {
		case fieldModelType:
			req.ModelType, ok = c.string()
		case fieldRegion:
			req.Region, ok = c.string()
		case fieldStrategy:
			req.Strategy, ok = c.string()
		case fieldSessionKey:
			req.SessionKey, ok = c.string()
		case fieldRegionMode:
			var mode []byte
			if mode, ok = c.text(); ok {
				req.RegionMode, ok = routing.ParseRegionMode(string(mode))
			}
		case fieldPrompt:
			var prompt []byte
			prompt, ok = c.text()
			promptTokens = int64(len(prompt)+bytesPerToken-1) / bytesPerToken
		case fieldInputTokens:
			req.InputTokens, ok = c.number()
		case fieldExplain:
			req.Explain, ok = c.boolean()
		}
		if !ok {
			return false
		}
	}
	if seen&fieldInputTokens == 0 {
		req.InputTokens = promptTokens
	}
	c.space()
	return c.at == len(c.b)
}

// fields is a set of fields of a decision request.
type fields uint8

const (
	fieldModelType fields = 1 << iota
	fieldRegion
	fieldStrategy
	fieldSessionKey
	fieldRegionMode
	fieldPrompt
	fieldInputTokens
	fieldExplain
)

func fieldNamed(name []byte) fields {
	switch string(name) {
	case "model_type":
		return fieldModelType
	case "region":
		return fieldRegion
	case "strategy":
		return fieldStrategy
	case "session_key":
		return fieldSessionKey
	case "region_mode":
		return fieldRegionMode
	case "prompt":
		return fieldPrompt
	case "input_tokens":
		return fieldInputTokens
	case "explain":
		return fieldExplain
	}
	return 0
}

// scanner reads JSON from b.
type scanner struct {
	b  []byte
	at int
}

func (c *scanner) space() {
	for c.at < len(c.b) && (c.b[c.at] == ' ' || c.b[c.at] == '\n' || c.b[c.at] == '\t' || c.b[c.at] == '\r') {
		c.at++
	}
}

// take reads a character, white space before it aside.
func (c *scanner) take(want byte) bool {
	c.space()
	if c.at < len(c.b) && c.b[c.at] == want {
		c.at++
		return true
	}
	return false
}

// text reads a string of printable ASCII without escapes.
func (c *scanner) text() ([]byte, bool) {
	if !c.take('"') {
		return nil, false
	}
	rest := c.b[c.at:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, false
	}
	for _, ch := range rest[:end] {
		if ch < ' ' || ch >= 0x7f || ch == '\\' {
			return nil, false
		}
	}
	c.at += end + 1
	return rest[:end], true
}

func (c *scanner) string() (string, bool) {
	text, ok := c.text()
	return string(text), ok
}

// number reads a whole number of at most 9 digits.
func (c *scanner) number() (n int64, ok bool) {
	c.space()
	from := c.at
	for c.at < len(c.b) && c.b[c.at] >= '0' && c.b[c.at] <= '9' {
		n = n*10 + int64(c.b[c.at]-'0')
		c.at++
	}
	digits := c.at - from
	if digits == 0 || digits > 9 || digits > 1 && c.b[from] == '0' {
		return 0, false
	}
	return n, c.at == len(c.b) || c.b[c.at] != '.' && c.b[c.at] != 'e' && c.b[c.at] != 'E'
}

func (c *scanner) boolean() (value, ok bool) {
	c.space()
	for word, v := range map[string]bool{"true": true, "false": false} {
		if bytes.HasPrefix(c.b[c.at:], []byte(word)) {
			c.at += len(word)
			return v, true
		}
	}
	return false, false
}
