package sim

// Report is what a study found.
type Report struct {
	Trace     string   `json:"trace"`
	ModelType string   `json:"model_type"` // of all requests
	Profile   string   `json:"profile"`
	Heads     int      `json:"heads"`
	Seed      uint64   `json:"seed"`
	Rounds    int      `json:"rounds"`
	Scenarios []string `json:"scenarios,omitempty"`
	// SaturationRate is load 1 in requests a second: the highest rate at which
	// round_robin has answered 95 % of what an unlimited fleet would have by the time
	// the last request comes,
	// without the scenarios; nil: it was not searched for.
	SaturationRate *float64  `json:"saturation_rate"`
	Results        []Result  `json:"results"`
	Carried        []Carried `json:"carried,omitempty"`
	Notes          []string  `json:"notes,omitempty"` // what of the trace was left out or changed, and which rules match no request
	Interrupted    bool      `json:"interrupted,omitempty"`
}

// Result is a strategy at a load.
type Result struct {
	Strategy  string    `json:"strategy"`
	Load      *float64  `json:"load"` // nil: a rate was given
	Rate      float64   `json:"rate"` // requests a second
	Requests  int       `json:"requests"`
	Failed    int       `json:"failed"`
	TTFT      Quantiles `json:"ttft_ms"` // of the requests that were answered
	Goodput   float64   `json:"goodput"`
	HitRate   float64   `json:"hit_rate"`
	Imbalance float64   `json:"imbalance"`
	Session   Sessions  `json:"session_seconds"`
}

// Quantiles are those of a distribution, with its mean.
type Quantiles struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
}

// Sessions is how long sessions took from their first request to the end of their
// last; 0 where there are none.
type Sessions struct {
	Mean float64 `json:"mean"`
	P90  float64 `json:"p90"`
}

// Carried is the highest rate at which a strategy keeps 95 % goodput; 0: none.
type Carried struct {
	Strategy string  `json:"strategy"`
	Rate     float64 `json:"rate"`
}

// result is the mean of the rounds.
func (c *cell) result() Result {
	r := Result{Strategy: c.contender.Name, Load: c.load, Rate: c.rate}
	n := float64(len(c.rounds))
	for _, m := range c.rounds {
		r.Requests += m.Requests
		r.Failed += m.Failed
		r.TTFT.Mean += mean(m.TTFT) / n
		r.TTFT.P50 += quantile(m.TTFT, 0.5) / n
		r.TTFT.P90 += quantile(m.TTFT, 0.9) / n
		r.TTFT.P99 += quantile(m.TTFT, 0.99) / n
		r.Goodput += m.Goodput() / n
		r.HitRate += m.HitRate() / n
		r.Imbalance += m.Imbalance() / n
		r.Session.Mean += mean(m.Sessions) / n
		r.Session.P90 += quantile(m.Sessions, 0.9) / n
	}
	return r
}
