package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/policy"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show, check and change the policy",
		Long: `Show, check and change the policy: which strategy serves which traffic. Files are
YAML, or JSON when the name ends in .json; - is standard input.`,
		Args: cobra.NoArgs,
	}
	r := new(remote)
	r.addFlags(cmd)
	cmd.AddCommand(newPolicyGet(r), newPolicyCheck(r), newPolicyDiff(r), newPolicyValidate(r), newPolicyApply(r), newPolicyHistory(r), newPolicyRestore(r))
	return cmd
}

func newPolicyGet(r *remote) *cobra.Command {
	out := output{}
	var revision int64
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print the policy, as a file that apply takes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.do(&out, func(c *client.Client) error {
				document, err := documentOf(cmd.Context(), c, revision)
				if err != nil {
					return err
				}
				if out.format == "json" {
					return out.write(cmd.OutOrStdout(), document, nil)
				}
				return writeYAML(cmd.OutOrStdout(), document)
			})
		},
	}
	out.addFlag(cmd)
	cmd.Flags().Int64Var(&revision, "revision", -1, "of the history; without one that in force")
	return cmd
}

// documentOf is the document of a revision, or with -1 of the one in force.
func documentOf(ctx context.Context, c *client.Client, revision int64) (json.RawMessage, error) {
	if revision < 0 {
		p, err := c.Policy(ctx)
		return p.Document, err
	}
	p, err := c.PolicyRevision(ctx, uint64(revision))
	return p.Document, err
}

func newPolicyCheck(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that is wrong with a policy file, without a service",
		Long: `Say everything that is wrong with a policy file, each fault with its place,
without a service. With --server it also warns of what does not fit the heads of
that service, such as an alias over a model type that they serve, as 'policy
validate' does. Exit code 0: it would be taken; 4: not.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := readPolicy(args[0], cmd.InOrStdin(), cmd.OutOrStdout())
			if err != nil {
				return err
			}
			policy, _ := policy.Compile(doc) // what was read without a fault compiles
			for _, w := range policy.Warnings {
				warn(cmd.OutOrStdout(), w.Pointer, w.Reason)
			}
			if r.server != "" {
				if err := r.warnOfFleet(cmd, doc, len(policy.Warnings)); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: default %s, rules: %d, regions: %d\n",
				args[0], doc.DefaultStrategy, len(doc.Rules), len(doc.Regions))
			return err
		},
	}
}

func warn(w io.Writer, pointer, reason string) {
	fmt.Fprintf(w, "warning: %s: %s\n", seen(pointer), seen(reason))
}

// warnOfFleet has the service compare a document with its heads, and leaves out
// the warnings that were said.
func (r *remote) warnOfFleet(cmd *cobra.Command, doc policy.Document, said int) error {
	document, err := doc.Encode()
	if err != nil {
		return err
	}
	return r.do(nil, func(c *client.Client) error {
		check, err := c.ValidatePolicy(cmd.Context(), document)
		if err != nil {
			return err
		}
		for _, w := range check.Warnings[min(said, len(check.Warnings)):] {
			warn(cmd.OutOrStdout(), w.Pointer, w.Reason)
		}
		return nil
	})
}

// readPolicy reads a file as the service reads that of --policy, so that every
// command takes and refuses the same files. Faults are written to w.
func readPolicy(name string, stdin io.Reader, w io.Writer) (policy.Document, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return policy.Document{}, err
	}
	format := "yaml"
	if filepath.Ext(name) == ".json" {
		format = "json"
	}
	doc, faults := policy.Parse(data, format)
	if len(faults) == 0 {
		return doc, nil
	}
	for _, f := range faults {
		fmt.Fprintf(w, "%s: %s\n", seen(cmp.Or(f.Pointer, "the document")), seen(f.Reason))
	}
	return policy.Document{}, noPolicy(name, len(faults))
}

func noPolicy(file string, faults int) error {
	return &codedError{exitRefused, fmt.Errorf("%s is no valid policy; faults: %d", file, faults)}
}

// encodedPolicy is the document of a file as the service takes it.
func encodedPolicy(cmd *cobra.Command, file string) (json.RawMessage, error) {
	doc, err := readPolicy(file, cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	return doc.Encode()
}

func newPolicyDiff(r *remote) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Say where a file differs from the policy in force",
		Long: `Say where a file differs from the policy in force. Exit code 0: nowhere; 7: there
are differences; 4: the file is no valid policy.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.checked(cmd, &out, args[0], func(check *api.PolicyCheck) error {
				if err := writeDifferences(cmd.OutOrStdout(), &out, check.Differences); err != nil {
					return err
				}
				if n := len(check.Differences); n > 0 {
					return &codedError{exitDifferent, fmt.Errorf("%s differs from revision %d in %s", args[0], check.CurrentRevision, counted(n, "place"))}
				}
				return nil
			})
		},
	}
	out.addFlag(cmd)
	return cmd
}

func writeDifferences(w io.Writer, out *output, list []api.Difference) error {
	if out.structured() {
		return out.write(w, list, nil)
	}
	for _, d := range list {
		if d.Before != nil {
			fmt.Fprintf(w, "- %s: %s\n", seen(d.Pointer), seen(string(d.Before)))
		}
		if d.After != nil {
			fmt.Fprintf(w, "+ %s: %s\n", seen(d.Pointer), seen(string(d.After)))
		}
	}
	return nil
}

// checked has a file checked by the service and says what is wrong with it.
func (r *remote) checked(cmd *cobra.Command, out *output, file string, do func(*api.PolicyCheck) error) error {
	document, err := encodedPolicy(cmd, file)
	if err != nil {
		return err
	}
	return r.do(out, func(c *client.Client) error {
		check, err := c.ValidatePolicy(cmd.Context(), document)
		if err != nil {
			return err
		}
		if !check.Valid {
			for _, f := range check.Errors {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", seen(cmp.Or(f.Pointer, "the document")), seen(f.Reason))
			}
			return noPolicy(file, len(check.Errors))
		}
		return do(&check)
	})
}

func newPolicyValidate(r *remote) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Try a file: its differences, and which recent decisions would go elsewhere",
		Long: `Try a file: where it differs from the policy in force, and which recent decisions
would go elsewhere. Exit code 0: it is valid; 4: not.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.checked(cmd, &out, args[0], func(check *api.PolicyCheck) error {
				if out.structured() {
					return out.write(cmd.OutOrStdout(), check, nil)
				}
				w := cmd.OutOrStdout()
				fmt.Fprintf(w, "%s is valid; it differs from revision %d in %s\n", args[0], check.CurrentRevision, counted(len(check.Differences), "place"))
				for _, f := range check.Warnings {
					warn(w, f.Pointer, f.Reason)
				}
				if err := writeDifferences(w, &out, check.Differences); err != nil {
					return err
				}
				p := check.Replay
				if p == nil {
					return nil
				}
				fmt.Fprintf(w, "of the last %s %d would go elsewhere, and %d would find no head\n", counted(p.Decisions, "decision"), p.Moved, p.Failed)
				if len(p.Examples) == 0 {
					return nil
				}
				if err := out.write(w, nil, exampleTable(p.Examples)); err != nil {
					return err
				}
				if more := p.Moved + p.Failed - len(p.Examples); more > 0 {
					fmt.Fprintf(w, "and %d more\n", more)
				}
				return nil
			})
		},
	}
	out.addFlag(cmd)
	return cmd
}

// exampleTable has a row for each way that decisions would change, the most
// frequent first.
func exampleTable(examples []api.ReplayedDecision) *table {
	count := map[[6]string]int{}
	for _, e := range examples {
		count[[...]string{e.ModelType, orDash(e.Region), e.StrategyBefore, e.HeadBefore, orDash(e.StrategyAfter), orDash(e.HeadAfter)}]++
	}
	rows := slices.SortedFunc(maps.Keys(count), func(a, b [6]string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), slices.Compare(a[:], b[:]))
	})
	t := &table{columns: []string{"MODEL", "REGION", "BY", "HEAD", "BY", "HEAD THEN", "DECISIONS"}}
	for _, row := range rows {
		t.add(append(row[:], strconv.Itoa(count[row]))...)
	}
	return t
}

func newPolicyApply(r *remote) *cobra.Command {
	var note, ifMatch string
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Bring a file into force",
		Long: `Bring a file into force. It replaces the policy that is in force when the command
begins; if somebody else changes it meanwhile, nothing happens and the exit code
is 5. A file that is no valid policy changes nothing, and the exit code is 4.
--if-revision names the revision that the change was made for.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			document, err := encodedPolicy(cmd, args[0])
			if err != nil {
				return err
			}
			return r.do(nil, func(c *client.Client) error {
				etag := strconv.Quote(ifMatch)
				before, err := c.Policy(cmd.Context())
				if err != nil {
					return err
				}
				if ifMatch == "" {
					etag = before.ETag
				}
				p, err := c.PutPolicy(cmd.Context(), document, client.PolicyChange{IfMatch: etag, Note: note})
				if err != nil {
					return err
				}
				if p.Revision == before.Revision {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "revision %d is in force already; nothing changed\n", p.Revision)
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "revision %d is in force\n", p.Revision)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for the history")
	cmd.Flags().StringVar(&ifMatch, "if-revision", "", "only if this revision is in force")
	return cmd
}

func newPolicyHistory(r *remote) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the revisions of the policy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.do(&out, func(c *client.Client) error {
				list, err := client.Collect(c.PolicyRevisions(cmd.Context()), 0)
				if err != nil {
					return err
				}
				t := &table{columns: []string{"REVISION", "IN FORCE", "FROM", "BY", "SAVED", "NOTE"}}
				for _, p := range list {
					saved := p.SavedAt
					t.add(fmt.Sprint(p.Revision), yesNo(p.Current), p.Source, orDash(p.Author), ago(&saved, time.Now()), p.Note)
				}
				return out.write(cmd.OutOrStdout(), list, t)
			})
		},
	}
	out.addFlag(cmd)
	return cmd
}

func newPolicyRestore(r *remote) *cobra.Command {
	var ifMatch string
	cmd := &cobra.Command{
		Use:   "restore REVISION",
		Short: "Bring an old revision into force, as a new one",
		Long: `Bring an old revision into force, as a new one. It replaces the policy that is in
force when the command begins; if somebody else changes it meanwhile, nothing
happens and the exit code is 5. --if-revision names the revision to replace.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			revision, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usageError(fmt.Errorf("%q: want the number of a revision, as 'headway policy history' lists them", args[0]))
			}
			return r.do(nil, func(c *client.Client) error {
				etag := strconv.Quote(ifMatch)
				if ifMatch == "" {
					before, err := c.Policy(cmd.Context())
					if err != nil {
						return err
					}
					etag = before.ETag
				}
				p, err := c.RestorePolicy(cmd.Context(), revision, client.PolicyChange{IfMatch: etag})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "revision %d is in force, with the document of revision %d\n", p.Revision, revision)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&ifMatch, "if-revision", "", "only if this revision is in force")
	return cmd
}
