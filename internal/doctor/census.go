package doctor

import (
	"fmt"
	"strings"

	"headway/api"
	"headway/internal/terminal"
)

// Census counts heads by whether they take requests, and why not. Of the numbers
// below Routable each head is in one at most: the failing take requests, and all others
// are those that Taking leaves out.
type Census struct {
	Heads    int `json:"heads"`
	Routable int `json:"routable"`
	Held     int `json:"held"`    // of the routable: silent, and kept by the mass-expiry guard
	Drained  int `json:"drained"` // by an operator, for maintenance too
	Silent   int `json:"silent"`  // whose lease has ended, of the others
	Ejected  int `json:"ejected"` // of the others
	Paused   int `json:"paused"`  // of the routable: they asked for no requests for a while
	Failing  int `json:"failing"` // of the routable: requests there fail, and too few others are left to eject it

	// By what they reported themselves, of the heads that are in none of these.
	Draining int `json:"draining"`
	Offline  int `json:"offline"`
	Pending  int `json:"pending"` // no healthy report so far
}

// Add counts a head.
func (n *Census) Add(h *api.Head) {
	n.Heads++
	if h.Routable {
		n.Routable++
	}
	switch {
	case h.Routable && h.Health.State == "held":
		n.Held++
	case h.Routable && h.Health.State == "paused":
		n.Paused++
	case h.Routable && h.Health.State == "failing":
		n.Failing++
	case h.Routable:
	case h.AdminState != "" && h.AdminState != "enabled":
		n.Drained++
	case h.Health.State == "stale":
		n.Silent++
	case h.Health.State == "ejected":
		n.Ejected++
	case h.Status == "draining":
		n.Draining++
	case h.Status == "offline":
		n.Offline++
	default:
		n.Pending++
	}
}

// Taking is how many heads take requests, without those that are only held, and
// those in a pause.
func (n *Census) Taking() int { return n.Routable - n.Held - n.Paused }

// TakingText says how many heads take requests.
func (n *Census) TakingText() string {
	return terminal.Agree(n.Taking(), "takes requests", "take requests")
}

type named struct {
	n    int
	name string
}

// OutOfRotation counts the heads that others than themselves took out; "" if
// there are none.
func (n *Census) OutOfRotation() string {
	return counted(named{n.Ejected, "ejected"}, named{n.Silent, "silent"}, named{n.Drained, "drained"})
}

// NotReady counts the heads that take no requests by what they reported
// themselves; "" if there are none.
func (n *Census) NotReady() string {
	return counted(named{n.Draining, "draining"}, named{n.Offline, "offline"}, named{n.Pending, "pending"})
}

// counted lists the numbers that are not 0.
func counted(all ...named) string {
	var parts []string
	for _, p := range all {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.name))
		}
	}
	return strings.Join(parts, ", ")
}

// HeldText says what the heads are that are only held.
func (n *Census) HeldText() string {
	return terminal.Agree(n.Held, "is silent and gets", "are silent and get") + " requests only because of the mass-expiry guard"
}

// PausedText says what the heads are that asked for a pause.
func (n *Census) PausedText() string {
	return terminal.Agree(n.Paused, "asked for a pause and gets", "asked for a pause and get") + " nothing of the data plane until it is over"
}

// FailingText says what the heads are whose requests fail.
func (n *Census) FailingText() string {
	return terminal.Agree(n.Failing, "of them fails its requests and is", "of them fail their requests and are") + " not ejected, since too few others are left"
}
