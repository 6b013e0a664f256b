// Package cli is the command line of Headway: its commands, one file each.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/config"
	"headway/internal/local"
	"headway/internal/terminal"
)

// Build says what the program was built from.
type Build struct{ Version, Commit string }

// Exit codes, the same for every command.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4 // by the service: no key, not allowed, or invalid
	exitConflict    = 5 // with what others did meanwhile
	exitUnavailable = 6 // no service, or none that can do it now
	exitDifferent   = 7 // a comparison found differences
	exitDamage      = 8 // a verification found damage
)

// codedError is an error that has an exit code of its own.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// Run runs the command line args until ctx ends, and returns the exit code.
func Run(ctx context.Context, b Build, args []string, stdout, stderr io.Writer) int {
	root := newRoot(b)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmdline.Check(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if _, is := errors.AsType[*saidError](err); !is {
		sayError(stderr, err)
	}
	return codeOf(err)
}

// sayError says what went wrong, and what may help.
func sayError(stderr io.Writer, err error) {
	fmt.Fprintln(stderr, "headway:", terminal.EscapeLines(config.Scrub(err.Error())))
	help := local.Help(err)
	if codeOf(err) == exitUsage {
		help = "Run 'headway --help' for the commands, 'headway COMMAND --help' for the flags of one."
	}
	if help != "" {
		fmt.Fprintln(stderr, help)
	}
}

// saidError is an error that was said already.
type saidError struct{ error }

func (e *saidError) Unwrap() error { return e.error }

// exits are the exit codes of what a service answered.
var exits = []struct {
	is   error
	code int
}{
	{local.ErrNotRunning, exitUnavailable},
	{client.ErrNotFound, exitNotFound},
	{client.ErrUnauthorized, exitRefused},
	{client.ErrForbidden, exitRefused},
	{client.ErrInvalid, exitRefused},
	{client.ErrTooLarge, exitRefused},
	{client.ErrConflict, exitConflict},
	{client.ErrUnavailable, exitUnavailable},
	{client.ErrRateLimited, exitUnavailable},
	{client.ErrNoHead, exitUnavailable},
}

// codeOf is the exit code of an error.
func codeOf(err error) int {
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	if _, ok := errors.AsType[*cmdline.Error](err); ok {
		return exitUsage
	}
	for _, e := range exits {
		if errors.Is(err, e.is) {
			return e.code
		}
	}
	return exitError
}

func newRoot(b Build) *cobra.Command {
	root := &cobra.Command{
		Use:   "headway",
		Short: "Place requests on a fleet of AI model servers",
		Long: `Headway places requests on a fleet of AI model servers.

Heads (inference servers) register themselves and report their load. Clients of
the OpenAI API send their requests to http://…/v1 of the service, which passes
each to a head; other callers ask which head to take. Start with:

  headway serve     the service, on 127.0.0.1:8080
  headway demo      a small fleet beside it, and traffic
  headway agent     an inference engine as a head of it
  headway status    how it is

The commands that ask a service find the one of this machine, and its
credential, by themselves; --server names another.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not found; 4 refused; 5 in
conflict with another change; 6 unavailable; 7 differences found; 8 damage
found.`,
		Version:       b.line(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("headway {{.Version}}\n")
	root.AddCommand(newServe(b), newAgent(), newDemo(), newStatus(), newDoctor(), newHeads(), newWatch(), newDecide(), newDecisions(), newSimulate(), newPolicy(), newStrategies(), newKeys(), newAudit(), newQueue(), newState(), newMonitoring(), newTLS(), newConfig(), newMan(b), newVersion(b))
	return root
}

func (b Build) line() string {
	return fmt.Sprintf("%s (commit %s, %s, %s/%s)", b.Version, b.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newVersion(b Build) *cobra.Command {
	return addOutput(command("version", "Print the version, the commit and the toolchain", "", func(c *call) error {
		shown := struct {
			Version  string `json:"version"`
			Commit   string `json:"commit"`
			Go       string `json:"go"`
			Platform string `json:"platform"`
		}{b.Version, b.Commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		return c.showOr(shown, func() error { return c.say("headway %s\n", b.line()) })
	}))
}

func newMan(b Build) *cobra.Command {
	return command("man DIR", "Write the manual pages into DIR",
		`Write the manual pages into DIR, one for each command, in section 1. Their date
is that of the variable SOURCE_DATE_EPOCH if it is set.`, func(c *call) error {
			if err := os.MkdirAll(c.args[0], 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "headway " + b.Version, Manual: "Headway"}
			if err := doc.GenManTree(root, header, c.args[0]); err != nil {
				return fmt.Errorf("write the manual pages: %w", err)
			}
			return nil
		})
}
