package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/policy"
	"headway/internal/terminal"
)

func newPolicy() *cobra.Command {
	r := new(remote)
	return r.addFlags(group("policy", "Show, check and change the policy", `Show, check and change the policy: which strategy serves which traffic. Files are
YAML, or JSON when the name ends in .json; - is standard input.`,
		newPolicyGet(r), newPolicyCheck(r), newPolicyDiff(r), newPolicyValidate(r), newPolicyApply(r), newPolicyHistory(r), newPolicyRestore(r)))
}

func newPolicyGet(r *remote) *cobra.Command {
	var revision int64
	cmd := addOutput(command("get", "Print the policy, as a file that apply takes", "", r.ask(func(c *call) error {
		document, err := documentOf(c, revision)
		if err != nil {
			return err
		}
		if c.format == "json" {
			return c.show(document, nil)
		}
		return terminal.WriteYAML(c.w, document)
	})))
	cmd.Flags().Int64Var(&revision, "revision", -1, "of the history; without one that in force")
	return cmd
}

// documentOf is the document of a revision, or with -1 of the one in force.
func documentOf(c *call, revision int64) (json.RawMessage, error) {
	if revision < 0 {
		p, err := c.Policy(c.Context())
		return p.Document, err
	}
	p, err := c.PolicyRevision(c.Context(), uint64(revision))
	return p.Document, err
}

func newPolicyCheck(r *remote) *cobra.Command {
	return command("check FILE", "Say everything that is wrong with a policy file, without a service",
		`Say everything that is wrong with a policy file, each fault with its place,
without a service. With --server it also warns of what does not fit the heads of
that service, such as an alias over a model type that they serve, as 'policy
validate' does. Exit code 0: it would be taken; 4: not.`, func(c *call) error {
			read, err := readPolicy(c.args[0], c.InOrStdin(), c.w)
			if err != nil {
				return err
			}
			for _, w := range read.Warnings {
				_ = c.warn(w.Pointer, w.Reason)
			}
			if r.Server != "" {
				if err := r.warnOfFleet(c, read); err != nil {
					return err
				}
			}
			doc := &read.Document
			return c.say("%s is valid: default %s, rules: %d, regions: %d\n", c.args[0], doc.DefaultStrategy, len(doc.Rules), len(doc.Regions))
		})
}

func (c *call) warn(pointer, reason string) error { return c.say("warning: %s: %s\n", pointer, reason) }

// warnOfFleet has the service compare a policy with its heads, and leaves out
// the policy's own warnings.
func (r *remote) warnOfFleet(c *call, read *policy.Policy) error {
	return r.connected(c, func(c *call) error {
		check, err := c.ValidatePolicy(c.Context(), read.Canonical)
		if err != nil {
			return err
		}
		for _, w := range check.Warnings[min(len(read.Warnings), len(check.Warnings)):] {
			_ = c.warn(w.Pointer, w.Reason)
		}
		return nil
	})
}

// readPolicy reads a file as the service reads that of --policy, so that every
// command takes and refuses the same files. Faults are written to w.
func readPolicy(name string, stdin io.Reader, w io.Writer) (*policy.Policy, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, missing(err)
	}
	read, faults := policy.ParseFile(name, data)
	if len(faults) == 0 {
		return read, nil
	}
	for _, f := range faults {
		_ = terminal.Printf(w, "%s: %s\n", cmp.Or(f.Pointer, "the document"), f.Text())
	}
	return nil, noPolicy(name, len(faults))
}

func noPolicy(file string, faults int) error {
	return &codedError{exitRefused, fmt.Errorf("%s is no valid policy; faults: %d", file, faults)}
}

// withPolicy gives f the document of the file that is the first argument, as the
// service takes it, and a client of the service.
func (r *remote) withPolicy(f func(c *call, document json.RawMessage) error) func(*call) error {
	return func(c *call) error {
		read, err := readPolicy(c.args[0], c.InOrStdin(), c.ErrOrStderr())
		if err != nil {
			return err
		}
		return r.connected(c, func(c *call) error { return f(c, read.Canonical) })
	}
}

// checked is withPolicy where the service takes the document. Else it says what
// is wrong.
func (r *remote) checked(f func(*call, *api.PolicyCheck) error) func(*call) error {
	return r.withPolicy(func(c *call, document json.RawMessage) error {
		check, err := c.ValidatePolicy(c.Context(), document)
		if err != nil {
			return err
		}
		if !check.Valid {
			for _, f := range check.Errors {
				c.note("%s: %s\n", cmp.Or(f.Pointer, "the document"), f.Reason)
			}
			return noPolicy(c.args[0], len(check.Errors))
		}
		return f(c, &check)
	})
}

func newPolicyDiff(r *remote) *cobra.Command {
	return addOutput(command("diff FILE", "Say where a file differs from the policy in force",
		`Say where a file differs from the policy in force. Exit code 0: nowhere; 7: there
are differences; 4: the file is no valid policy.`, r.checked(func(c *call, check *api.PolicyCheck) error {
			err := c.showOr(check.Differences, func() error { return c.differences(check.Differences) })
			if n := len(check.Differences); err == nil && n > 0 {
				err = &codedError{exitDifferent, fmt.Errorf("%s differs from revision %d in %s", c.args[0], check.CurrentRevision, terminal.Count(n, "place"))}
			}
			return err
		})))
}

func (c *call) differences(list []api.Difference) (err error) {
	for _, d := range list {
		if d.Before != nil {
			err = c.say("- %s: %s\n", d.Pointer, string(d.Before))
		}
		if d.After != nil {
			err = c.say("+ %s: %s\n", d.Pointer, string(d.After))
		}
	}
	return err
}

func newPolicyValidate(r *remote) *cobra.Command {
	return addOutput(command("validate FILE", "Try a file: its differences, and which recent decisions would go elsewhere",
		`Try a file: where it differs from the policy in force, and which recent decisions
would go elsewhere. Exit code 0: it is valid; 4: not.`, r.checked(func(c *call, check *api.PolicyCheck) error {
			return c.showOr(check, func() error { return c.printCheck(check) })
		})))
}

func (c *call) printCheck(check *api.PolicyCheck) error {
	_ = c.say("%s is valid; it differs from revision %d in %s\n", c.args[0], check.CurrentRevision, terminal.Count(len(check.Differences), "place"))
	for _, f := range check.Warnings {
		_ = c.warn(f.Pointer, f.Reason)
	}
	err := c.differences(check.Differences)
	p := check.Replay
	if p == nil {
		return err
	}
	err = c.say("of the last %s %d would go elsewhere, and %d would find no head\n", terminal.Count(p.Decisions, "decision"), p.Moved, p.Failed)
	if p.Unjudged > 0 {
		err = c.say("%d of them would be placed by the strategy slo, which may refuse some: their prompts are not kept, so that this cannot tell; headway decisions what-if --policy %s can\n", p.Unjudged, c.args[0])
	}
	if len(p.Examples) > 0 {
		err = c.show(nil, exampleTable(p.Examples))
		if more := p.Moved + p.Failed - len(p.Examples); more > 0 {
			err = c.say("the newest %d are shown, %d more are not\n", len(p.Examples), more)
		}
	}
	return err
}

// exampleTable has a row for each way that decisions would change, the most
// frequent first.
func exampleTable(examples []api.ReplayedDecision) *terminal.Table {
	count := map[[6]string]int{}
	for _, e := range examples {
		count[[...]string{e.ModelType, terminal.OrDash(e.Region), e.StrategyBefore, e.HeadBefore, terminal.OrDash(e.StrategyAfter), terminal.OrDash(e.HeadAfter)}]++
	}
	rows := slices.SortedFunc(maps.Keys(count), func(a, b [6]string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), slices.Compare(a[:], b[:]))
	})
	t := &terminal.Table{Columns: []string{"MODEL", "REGION", "BY", "HEAD", "BY", "HEAD THEN", "EXAMPLES"}}
	for _, row := range rows {
		t.Rows = append(t.Rows, append(row[:], strconv.Itoa(count[row])))
	}
	return t
}

func newPolicyApply(r *remote) *cobra.Command {
	var note, revision string
	cmd := command("apply FILE", "Bring a file into force",
		`Bring a file into force. It replaces the policy that is in force when the command
begins; if another user changes it meanwhile, nothing happens and the exit code
is 5. A file that is no valid policy changes nothing, and the exit code is 4.
--if-revision names the revision that the change was made for.`, r.withPolicy(func(c *call, document json.RawMessage) error {
			before, etag, err := c.inForce(revision)
			if err != nil {
				return err
			}
			p, err := c.PutPolicy(c.Context(), document, client.PolicyChange{IfMatch: etag, Note: note})
			if err != nil {
				return err
			}
			if p.Revision == before {
				return c.say("revision %d is in force already; nothing changed\n", p.Revision)
			}
			return c.say("revision %d is in force\n", p.Revision)
		}))
	cmd.Flags().StringVar(&note, "note", "", "why, for the history")
	cmd.Flags().StringVar(&revision, "if-revision", "", "only if this revision is in force")
	return cmd
}

// inForce returns the revision in force, and the ETag of that to replace: the
// named one or, without one, that in force.
func (c *call) inForce(named string) (revision uint64, etag string, err error) {
	p, err := c.Policy(c.Context())
	if named != "" {
		p.ETag = strconv.Quote(named)
	}
	return p.Revision, p.ETag, err
}

func newPolicyHistory(r *remote) *cobra.Command {
	return addOutput(command("history", "List the revisions of the policy", "", r.ask(func(c *call) error {
		return list(c, c.PolicyRevisions(c.Context()), 0, revisionTable)
	})))
}

func revisionTable(revisions []api.PolicyRevision) *terminal.Table {
	t := &terminal.Table{Columns: []string{"REVISION", "IN FORCE", "FROM", "BY", "SAVED", "NOTE"}}
	for _, p := range revisions {
		t.Add(p.Revision, p.Current, p.Source, terminal.OrDash(p.Author), terminal.Ago(&p.SavedAt, time.Now()), p.Note)
	}
	return t
}

func newPolicyRestore(r *remote) *cobra.Command {
	var replaced string
	cmd := command("restore REVISION", "Bring an old revision into force, as a new one",
		`Bring an old revision into force, as a new one. It replaces the policy that is in
force when the command begins; if another user changes it meanwhile, nothing
happens and the exit code is 5. --if-revision names the revision to replace.`, func(c *call) error {
			revision, err := strconv.ParseUint(c.args[0], 10, 64)
			if err != nil {
				return cmdline.Errorf("%q: want the number of a revision, as 'headway policy history' lists them", c.args[0])
			}
			return r.connected(c, func(c *call) error {
				_, etag, err := c.inForce(replaced)
				if err != nil {
					return err
				}
				p, err := c.RestorePolicy(c.Context(), revision, client.PolicyChange{IfMatch: etag})
				if err != nil {
					return err
				}
				return c.say("revision %d is in force, with the document of revision %d\n", p.Revision, revision)
			})
		})
	cmd.Flags().StringVar(&replaced, "if-revision", "", "only if this revision is in force")
	return cmd
}
