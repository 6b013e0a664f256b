package api

import "time"

// LoggedDecision is a line of the decision log: a decision, the heads that it had to
// choose from, and how its request ended. Nothing in it is text of a request.
type LoggedDecision struct {
	At             time.Time      `json:"at"`
	RegretMs       *float64       `json:"regret_ms,omitempty"` // predicted time to the first token at the head, less the least; left out: unknown
	DecisionID     string         `json:"decision_id"`
	ModelType      string         `json:"model_type"`
	Region         string         `json:"region,omitempty"` // that the request named
	Strategy       string         `json:"strategy"`
	PolicyRevision uint64         `json:"policy_revision"`
	Share          float64        `json:"share"`                  // of the decisions at that time that are in the log
	Session        string         `json:"session,omitempty"`      // hash of the session key, with a secret of the process
	InputTokens    int64          `json:"input_tokens"`           // as the request said, else as is usual
	PromptBytes    int64          `json:"prompt_bytes,omitempty"` // of the text that blocks are of
	BlockTokens    int32          `json:"block_tokens,omitempty"` // of each block; left out: blocks are of 256 bytes within the first 4 KiB, then of 2 KiB
	Blocks         []string       `json:"blocks,omitempty"`       // hashes of the prompt's blocks, with a secret of the process
	Head           string         `json:"head"`                   // that was chosen
	Propensity     *float64       `json:"propensity,omitempty"`   // how likely it was to be chosen; left out: unknown
	Candidates     int            `json:"candidates"`             // heads there were, of which up to 64 are in heads
	Heads          []LoggedHead   `json:"heads"`
	Outcome        *LoggedOutcome `json:"outcome,omitempty"` // left out while it is open
}

// LoggedHead is a head as a decision saw it.
type LoggedHead struct {
	ID             string   `json:"id"`
	Region         string   `json:"region"`
	Cost           *float64 `json:"cost,omitempty"`         // by the strategy, lower is better; left out: not compared, or not available
	PredictedMs    *float64 `json:"predicted_ms,omitempty"` // time to the first token; left out: too little is known
	AheadTokens    float64  `json:"ahead_tokens"`           // weight of the prompts before this one
	UncachedTokens float64  `json:"uncached_tokens"`        // of the prompt, not known to be in the head's cache
	Requests       float64  `json:"requests"`               // in flight there
	KVUse          float64  `json:"kv_use"`                 // part of its KV cache that is used with this prompt
	Slower         float64  `json:"slower"`                 // how many times as long as its pool it takes
	Weight         float64  `json:"weight,omitempty"`       // share of traffic relative to others; left out: 1
	Unavailable    bool     `json:"unavailable,omitempty"`
}

// LoggedOutcome is how a logged request ended. What is not known is left out.
type LoggedOutcome struct {
	Result       string   `json:"result"`
	StatusCode   *int64   `json:"status_code,omitempty"`
	TTFTMs       *float64 `json:"ttft_ms,omitempty"`
	DurationMs   *float64 `json:"duration_ms,omitempty"`
	InputTokens  *int64   `json:"input_tokens,omitempty"`
	OutputTokens *int64   `json:"output_tokens,omitempty"`
	CachedTokens *int64   `json:"cached_tokens,omitempty"`
	Late         bool     `json:"late,omitempty"` // it was reported after the reservation had ended
}

// DrainRehearsal is what it is predicted to lead to that a head is drained. Requests of
// the decision log are played on a simulated fleet, with the head and without it.
type DrainRehearsal struct {
	Head       string          `json:"head"`
	Since      time.Time       `json:"since"` // of decisions that were played
	ModelTypes []RehearsedPool `json:"model_types"`
}

// RehearsedPool is a model type of a head that is rehearsed to be drained.
type RehearsedPool struct {
	ModelType   string           `json:"model_type"`
	HeadsLeft   int              `json:"heads_left"` // that take its requests without the head
	Before      RehearsedFigures `json:"before"`
	After       RehearsedFigures `json:"after"`
	CarriesLoad bool             `json:"carries_load"` // they answer as many requests in time, but for 5 %
	Assumed     []string         `json:"assumed"`      // what the model of the heads does not have from the log
}

// RehearsedFigures are what callers would have seen.
type RehearsedFigures struct {
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	Goodput  float64 `json:"goodput"` // share within the objectives of headway simulate

	// Of those that were answered; left out where none was.
	P50TTFTMs *float64 `json:"p50_ttft_ms,omitempty"`
	P95TTFTMs *float64 `json:"p95_ttft_ms,omitempty"`
	HitRate   *float64 `json:"hit_rate,omitempty"` // share of prompt tokens that were cached
}
