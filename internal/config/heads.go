package config

import (
	"encoding/json"
	"fmt"
	"time"

	"headway/internal/strict"
)

// EngineHead is what a configuration says of engines that the service itself keeps
// registered.
type EngineHead struct {
	Engine      string            `json:"engine"`
	Region      string            `json:"region,omitempty"`
	Zone        string            `json:"zone,omitempty"`
	ModelTypes  []string          `json:"model_types,omitempty"`
	Weight      float64           `json:"weight,omitempty"`
	MaxInFlight int64             `json:"max_in_flight,omitempty"`
	KeyFile     string            `json:"key_file,omitempty"` // with the engine's own API key
	Labels      map[string]string `json:"labels,omitempty"`
}

// StaticHead is one engine.
type StaticHead struct {
	Endpoint string `json:"endpoint"`
	ID       string `json:"id,omitempty"`
	EngineHead
	MetricsURL string `json:"metrics_url,omitempty"`
}

// DiscoveredHeads are the engines that a DNS name has.
type DiscoveredHeads struct {
	Name   string `json:"name,omitempty"` // whose addresses they are, each with Port
	Port   int64  `json:"port,omitempty"`
	Family string `json:"family,omitempty"` // of addresses: ipv4 or ipv6; "": both
	SRV    string `json:"srv,omitempty"`    // in place of Name and Port
	EngineHead
	Scheme      string   `json:"scheme,omitempty"`   // http or https; "": http
	Server      string   `json:"server,omitempty"`   // host:port of the DNS server; "": those of the system
	Interval    Interval `json:"interval,omitempty"` // between lookups; 0: the default
	MaxHeads    int64    `json:"max_heads,omitempty"`
	MetricsPort int64    `json:"metrics_port,omitempty"`
}

// Interval is a duration whose text is that of a setting.
type Interval time.Duration

// MarshalText implements encoding.TextMarshaler.
func (i Interval) MarshalText() ([]byte, error) { return []byte(formatDuration(time.Duration(i))), nil }

// Bounds of the lists of engines.
const (
	maxStaticHeads = 1000
	maxDiscovered  = 100 // names
	maxOfHead      = 64  // model types or labels
	maxPort        = 1<<16 - 1
	leastInterval  = time.Second
	mostInterval   = time.Hour
)

// Keys of the lists among the sources.
const (
	staticKey    = "heads.static"
	discoveryKey = "discovery"
)

// Check returns what is wrong with the values of the lists of static heads and of
// discovery, whose meaning this package does not know. The pointers begin at the
// list: /0/engine. A place that could not be read is left out of what is listed.
type Check func(c *Config) (static, discovery []strict.Fault)

// staticHeads reads the list under heads, or under heads.static beside the
// settings of that section. pointer leads to it.
func (f *fileReader) staticHeads(pointer string) {
	f.static = pointer
	f.sources[staticKey] = source{f.name, f.Line()}
	f.Array(maxStaticHeads, func(int) {
		var h StaticHead
		f.engineHead(&h.EngineHead, map[string]func(){
			"endpoint":    func() { f.Text(&h.Endpoint) },
			"id":          func() { f.Text(&h.ID) },
			"metrics_url": func() { f.Text(&h.MetricsURL) },
		})
		f.lists.Heads.Static = append(f.lists.Heads.Static, h)
	})
}

// discoveredHeads reads the list under discovery.
func (f *fileReader) discoveredHeads() {
	f.sources[discoveryKey] = source{f.name, f.Line()}
	f.Array(maxDiscovered, func(int) {
		var d DiscoveredHeads
		f.engineHead(&d.EngineHead, map[string]func(){
			"name":         func() { f.Text(&d.Name) },
			"port":         func() { f.Whole(&d.Port, 1, maxPort) },
			"family":       func() { f.Choice("ipv4 or ipv6", oneOf(&d.Family, "ipv4", "ipv6")) },
			"srv":          func() { f.Text(&d.SRV) },
			"scheme":       func() { f.Choice("http or https", oneOf(&d.Scheme, "http", "https")) },
			"server":       func() { f.Text(&d.Server) },
			"interval":     func() { f.Choice("1s to 1h", d.Interval.set) },
			"max_heads":    func() { f.Whole(&d.MaxHeads, 1, maxStaticHeads) },
			"metrics_port": func() { f.Whole(&d.MetricsPort, 1, maxPort) },
		})
		f.lists.Discovery = append(f.lists.Discovery, d)
	})
}

// engineHead reads the fields of h and those of more.
func (f *fileReader) engineHead(h *EngineHead, more map[string]func()) {
	for name, read := range map[string]func(){
		"engine":        func() { f.Text(&h.Engine) },
		"region":        func() { f.Text(&h.Region) },
		"zone":          func() { f.Text(&h.Zone) },
		"model_types":   func() { f.Texts(maxOfHead, &h.ModelTypes) },
		"weight":        func() { f.Number(&h.Weight, 0.001, 1000) },
		"max_in_flight": func() { f.Whole(&h.MaxInFlight, 1, 1_000_000) },
		"key_file":      func() { f.Text(&h.KeyFile) },
		"labels":        func() { f.Labels(maxOfHead, &h.Labels) },
	} {
		more[name] = read
	}
	f.Fields(more)
}

func oneOf(to *string, allowed ...string) func(string) bool {
	return func(text string) bool {
		for _, a := range allowed {
			if text == a {
				*to = a
				return true
			}
		}
		return false
	}
}

func (i *Interval) set(text string) bool {
	d, err := time.ParseDuration(text)
	*i = Interval(d)
	return err == nil && d >= leastInterval && d <= mostInterval
}

// Reread is what the configuration file has by now.
type Reread struct {
	Static    []StaticHead
	Discovery []DiscoveredHeads
	Waiting   []string // keys of settings whose values in the file take effect with the next start
}

// Reread reads the configuration file again. The error is an *Error with every fault of
// the file.
func (c *Config) Reread(readFile func(name string) ([]byte, error), checks ...Check) (Reread, error) {
	var again Config
	l := &loader{table: newTable(&again), sources: map[string]source{}, lists: &again}
	f := l.file(c.file, readFile)
	checked := again
	checked.Heads.AllowLinkLocal = c.Heads.AllowLinkLocal // which holds until the next start
	f.done(&checked, checks)
	if len(l.faults) > 0 {
		return Reread{}, &Error{l.faults}
	}
	return Reread{again.Heads.Static, again.Discovery, c.waiting(l)}, nil
}

// waiting are the keys of the settings that the file, as l read it, gives other values
// than c has. Those that a flag or the environment gives stay as they are.
func (c *Config) waiting(l *loader) (keys []string) {
	if c.file == "" {
		return nil
	}
	for _, s := range c.table().settings {
		from := c.source(s.Key)
		if (from == byDefault || from.name == c.file) && l.find(s.Key).get() != s.get() {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// printList is a list as a file has it; JSON is YAML.
func printList[T any](key string, list []T) (string, error) {
	text, err := json.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", key, err)
	}
	return string(text), nil
}
