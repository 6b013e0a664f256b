// Package doctor finds what is wrong with an installation: its machine, its
// service and heads, and its monitoring.
package doctor

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"headway/api"
	"headway/client"
	"headway/internal/local"
	"headway/internal/policy"
	"headway/internal/terminal"
)

// Finding is what the doctor found: fine, or what is wrong and what helps.
type Finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, warning, fault or not asked
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// The states of a finding.
const (
	fine     = "ok"
	warning  = "warning"
	Fault    = "fault"
	notAsked = "not asked"
)

// findings are the results of an examination, in its order.
type findings []Finding

func (f *findings) fine(check, detail string) { *f = append(*f, Finding{check, fine, detail, ""}) }

func (f *findings) warn(check, detail, fix string) {
	*f = append(*f, Finding{check, warning, detail, fix})
}

func (f *findings) fault(check, detail, fix string) {
	*f = append(*f, Finding{check, Fault, detail, fix})
}

// Examine looks for what is wrong with a service and, without a URL, with the
// machine that it runs on. It changes nothing.
func Examine(ctx context.Context, target local.Target) []Finding {
	var f findings
	f.clock()
	if target.Server == "" {
		said, running, err := local.Running(target.DataDir)
		if err != nil {
			f.fault("service", err.Error(), "run this as the user of the service, or name it with --server")
			return f
		}
		dir := local.Dirs(target.DataDir)[0]
		if running {
			dir = filepath.Dir(said.TokenFile)
			f.fileLimit(said.PID)
		} else {
			f.state(dir)
		}
		f.disk("disk of the state", dir)
		if running {
			f.disk("disk of the audit trail", filepath.Dir(said.AuditFile))
		}
	}
	if err := f.service(ctx, target); err != nil {
		const skipped = "the service does not answer"
		f.fault("service", err.Error(), cmp.Or(local.Help(err), "start it with 'headway serve', or name it with --server"))
		return append(f, Finding{"alert rules", notAsked, skipped, ""}, Finding{"dashboards", notAsked, skipped, ""})
	}
	f.rules(ctx, target)
	f.dashboards(ctx, target)
	return f
}

// service judges what the service answers; it fails if there is no answer.
func (f *findings) service(ctx context.Context, target local.Target) error {
	c, err := target.Connect()
	if err != nil {
		return err
	}
	defer c.Close()
	ready, err := c.Ready(ctx)
	if err != nil {
		return err
	}
	for _, check := range ready.Checks {
		if check.OK {
			f.fine("ready: "+check.Name, check.Detail)
		} else {
			f.fault("ready: "+check.Name, check.Detail, "the log of the service says more about "+check.Name)
		}
	}
	heads, err := client.Collect(c.Heads(ctx, client.HeadQuery{PageSize: 1000}), 0)
	if err != nil {
		f.fault("credential", err.Error(), "name a key with --token-file, or run this as the user of the service on its machine")
	} else {
		f.heads(heads)
		f.twins(heads)
		if p, err := c.Policy(ctx); err == nil {
			f.aliases(heads, p.Document)
		}
	}
	if values, err := Scrape(ctx, c); err != nil {
		f.fault("scrape", err.Error(), "let Prometheus, and this command, reach /metrics")
	} else {
		f.scrape(values)
		f.metrics(values, time.Now())
	}
	return nil
}

// heads does not count heads that are only held, as the service's own readiness
// does not, and those in a pause.
func (f *findings) heads(heads []api.Head) {
	var n Census
	for i := range heads {
		n.Add(&heads[i])
	}
	detail := terminal.Count(n.Heads, "head") + ", " + n.TakingText()
	if reasons := n.OutOfRotation(); reasons != "" {
		detail += "; out of rotation: " + reasons
	}
	if reasons := n.NotReady(); reasons != "" {
		detail += "; not ready: " + reasons
	}
	if n.Paused > 0 {
		detail += "; " + n.PausedText()
	}
	if n.Failing > 0 {
		detail += "; " + n.FailingText()
	}
	switch {
	case n.Held > 0:
		f.warn("heads", detail+"; "+n.HeldText(), "look for what they have in common, most likely the network between them and the service; 'headway heads list -o wide' shows them")
	case n.Failing > 0:
		f.warn("heads", detail, "'headway heads list' shows which, 'headway heads get ID' why; where all heads of a model type fail, look for what they have in common")
	case n.Routable > 0 && n.Ejected+n.Silent > 0:
		f.warn("heads", detail, "'headway heads list' shows which, 'headway heads get ID' why and until when; 'headway heads reinstate ID' ends an ejection")
	case n.Taking() == 0:
		f.warn("heads", detail, "register heads, or see 'headway heads list -o wide' for why they take none; 'headway demo' starts a small fleet")
	default:
		f.fine("heads", detail)
	}
}

// twins warns of heads that are one server, such as one that is in the service's
// configuration and has an agent of its own: each of them takes its whole limit of
// requests. It names two of them.
func (f *findings) twins(heads []api.Head) {
	type serving struct{ endpoint, model string }
	first := map[serving]string{}
	endpoints := map[string]bool{} // of twins
	detail := ""
	for i := range heads {
		h := &heads[i]
		if !h.Routable {
			continue
		}
		for _, m := range h.ModelTypes {
			at := serving{h.Endpoint, m}
			switch other := first[at]; {
			case other == "":
				first[at] = h.ID
			case other != h.ID:
				endpoints[h.Endpoint] = true
				detail = cmp.Or(detail, other+" and "+h.ID+" serve "+m+" at "+h.Endpoint+", so that it gets the requests of both")
			}
		}
	}
	if more := len(endpoints) - 1; more > 0 {
		detail += "; the same is so at " + terminal.Count(more, "endpoint") + " more"
	}
	if detail != "" {
		f.warn("heads at one endpoint", detail, "register each server once: by 'headway agent', in the service's heads:, or by itself")
	}
}

// aliases warns of aliases over model types that heads serve.
func (f *findings) aliases(heads []api.Head, document []byte) {
	inForce, faults := policy.Parse(document, "json")
	if len(faults) > 0 {
		return // the service took it
	}
	served := map[string]bool{}
	for i := range heads {
		for _, m := range heads[i].ModelTypes {
			served[m] = true
		}
	}
	for _, hidden := range inForce.Hidden(slices.Sorted(maps.Keys(served))) {
		f.warn("policy "+hidden.Pointer, hidden.Reason, "'headway policy apply' a file without it")
	}
}
