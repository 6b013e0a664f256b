package config

// StaticHead is an engine that the service itself keeps registered.
type StaticHead struct {
	Endpoint    string            `json:"endpoint"`
	Engine      string            `json:"engine"`
	ID          string            `json:"id,omitempty"`
	Region      string            `json:"region,omitempty"`
	Zone        string            `json:"zone,omitempty"`
	ModelTypes  []string          `json:"model_types,omitempty"`
	Weight      float64           `json:"weight,omitempty"`
	MaxInFlight int64             `json:"max_in_flight,omitempty"`
	MetricsURL  string            `json:"metrics_url,omitempty"`
	KeyFile     string            `json:"key_file,omitempty"` // with the engine's own API key
	Labels      map[string]string `json:"labels,omitempty"`
}

// Bounds of the list of static heads.
const (
	maxStaticHeads = 1000
	maxOfHead      = 64 // model types or labels
)

// staticHeads reads the list under heads, or under heads.static beside the
// settings of that section. What the values mean is checked where they are used.
func (f *fileReader) staticHeads() {
	f.Array(maxStaticHeads, func(int) {
		var h StaticHead
		f.Fields(map[string]func(){
			"endpoint":      func() { f.Text(&h.Endpoint) },
			"engine":        func() { f.Text(&h.Engine) },
			"id":            func() { f.Text(&h.ID) },
			"region":        func() { f.Text(&h.Region) },
			"zone":          func() { f.Text(&h.Zone) },
			"model_types":   func() { f.Texts(maxOfHead, &h.ModelTypes) },
			"weight":        func() { f.Number(&h.Weight, 0.001, 1000) },
			"max_in_flight": func() { f.Whole(&h.MaxInFlight, 1, 1_000_000) },
			"metrics_url":   func() { f.Text(&h.MetricsURL) },
			"key_file":      func() { f.Text(&h.KeyFile) },
			"labels":        func() { f.Labels(maxOfHead, &h.Labels) },
		})
		*f.heads = append(*f.heads, h)
	})
}

// StaticHeads reads the static heads of the configuration file again. The error
// is an *Error with every fault of the file.
func (c *Config) StaticHeads(readFile func(name string) ([]byte, error)) ([]StaticHead, error) {
	var again Config
	l := &loader{table: newTable(&again), sources: map[string]source{}, heads: &again.Heads.Static}
	l.file(c.file, readFile)
	if len(l.faults) > 0 {
		return nil, &Error{l.faults}
	}
	return again.Heads.Static, nil
}
