package mockhead

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// The statuses that an agent reports.
const (
	statusActive   = "active"
	statusDraining = "draining"
)

// Registration is the body of POST /api/v1/heads.
type Registration struct {
	ID         string            `json:"id"`
	Endpoint   string            `json:"endpoint"`
	ModelTypes []string          `json:"model_types"`
	Region     string            `json:"region"`
	Zone       string            `json:"zone,omitempty"`
	Version    string            `json:"version,omitempty"`
	Engine     string            `json:"engine,omitempty"`
	Capacity   *Capacity         `json:"capacity,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Status     string            `json:"status,omitempty"` // set by the agent
}

// Capacity is what a head can hold.
type Capacity struct {
	MaxInFlight int `json:"max_in_flight"`
}

type report struct {
	Epoch    uint64       `json:"epoch"`
	Status   string       `json:"status"`
	Load     reportedLoad `json:"load"`
	Sequence uint64       `json:"sequence"`
}

type reportedLoad struct {
	InFlight            int     `json:"in_flight"`
	Queued              int     `json:"queued"`
	PendingPromptTokens int     `json:"pending_prompt_tokens"`
	KVCacheUsage        float64 `json:"kv_cache_usage"`
	KVCapacityTokens    int     `json:"kv_capacity_tokens"`
	Utilization         float64 `json:"utilization"`
	TokensPerSecond     float64 `json:"tokens_per_second"`
}

type lease struct {
	Epoch             uint64  `json:"epoch"`
	HeartbeatInterval float64 `json:"heartbeat_interval_seconds"`
}

// problemOf makes an error of an RFC 9457 problem, or of a status alone.
func problemOf(status int, text []byte) error {
	var p struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(text, &p) != nil || p.Code == "" {
		return fmt.Errorf("status %d", status)
	}
	return fmt.Errorf("status %d, %s: %s", status, p.Code, clip(p.Detail))
}
