package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/terminal"
)

// call is one run of a command.
type call struct {
	*cobra.Command
	*client.Client // nil where the command asks no service
	args           []string
	format         string    // of what it shows
	w              io.Writer // that it shows it on
}

// command makes a command, with its usage, its line in a list, its help ("": that
// line) and what it runs. cmdline.Check reads the arguments and required flags from
// the usage.
func command(use, short, long string, run func(*call) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, RunE: func(cmd *cobra.Command, args []string) error {
		format, err := formatOf(cmd)
		if err != nil {
			return err
		}
		return run(&call{Command: cmd, args: args, format: format, w: cmd.OutOrStdout()})
	}}
}

// group makes a command that only has others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long}
	cmd.AddCommand(commands...)
	return cmd
}

// addOutput adds the flags that say in which format a command shows its result.
func addOutput(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("output", "o", "table", "format: "+strings.Join(terminal.Formats, ", "))
	cmd.Flags().Bool("json", false, "the same as --output json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(terminal.Formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// formatOf is the format that the flags of a command say; of one that has none
// it is table.
func formatOf(cmd *cobra.Command) (string, error) {
	output := cmd.Flags().Lookup("output")
	if output == nil {
		return "table", nil
	}
	format := output.Value.String()
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		if output.Changed && format != "json" {
			return "", cmdline.Errorf("--json and -o %s: want one of them", format)
		}
		return "json", nil
	}
	if !slices.Contains(terminal.Formats, format) {
		return "", cmdline.Errorf("-o %q: want one of %s", format, strings.Join(terminal.Formats, ", "))
	}
	return format, nil
}

// say writes text for people on standard output, note on standard error. Texts
// among args come from others: what a terminal would obey is escaped.
func (c *call) say(format string, args ...any) error { return terminal.Printf(c.w, format, args...) }

func (c *call) note(format string, args ...any) {
	_ = terminal.Printf(c.ErrOrStderr(), format, args...)
}

// show writes v in the format of the call; t is its table.
func (c *call) show(v any, t *terminal.Table) error { return terminal.Write(c.w, c.format, v, t) }

// showOr shows v to a program, and to people what text says.
func (c *call) showOr(v any, text func() error) error {
	if c.structured() {
		return c.show(v, nil)
	}
	return text()
}

// list shows up to most of the items; 0 is all.
func list[T any](c *call, items iter.Seq2[T, error], most int, table func([]T) *terminal.Table) error {
	shown, err := client.Collect(items, most)
	if err != nil {
		return err
	}
	return c.show(shown, table(shown))
}

// structured reports whether a program reads the output.
func (c *call) structured() bool { return c.format == "json" || c.format == "yaml" }

// repeatEvery is the time between two pages of a command that repeats itself.
const repeatEvery = 2 * time.Second

// repeat shows a page once, or again and again until the call is interrupted.
func (c *call) repeat(again bool, show func() error) error {
	if !again {
		return show()
	}
	w := c.w
	tick := time.NewTicker(repeatEvery)
	defer tick.Stop()
	for {
		var page strings.Builder
		if terminal.IsTerminal(w) {
			page.WriteString(terminal.Clear)
		}
		c.w = &page
		if err := show(); err != nil {
			if c.Context().Err() != nil {
				return nil
			}
			return err
		}
		if _, err := io.WriteString(w, page.String()); err != nil {
			return err
		}
		select {
		case <-c.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

// each does something with each of several things. If there is only one, its
// failure is the command's error. Of several each failure is printed and the
// rest go on, unless it would be the same for all; what was not tried then is
// named as well. The exit code is that of the failures if they agree, else 1.
func each[T any](c *call, kind string, list []T, do func(T) error) error {
	if len(list) == 1 {
		return do(list[0])
	}
	var failures []error
	tried := 0
	for _, x := range list {
		err := do(x)
		tried++
		if err == nil {
			continue
		}
		failures = append(failures, err)
		c.note("%s %s: %v\n", kind, fmt.Sprint(x), err)
		if c.Context().Err() != nil || errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrUnauthorized) {
			break
		}
	}
	if len(failures) == 0 {
		return nil
	}
	for _, x := range list[tried:] {
		c.note("%s %s: not tried\n", kind, fmt.Sprint(x))
	}
	text := fmt.Sprintf("%s: %d of %d failed", c.Name(), len(failures), len(list))
	if left := len(list) - tried; left > 0 {
		text += fmt.Sprintf(", %d not tried", left)
	}
	code := codeOf(failures[0])
	if slices.ContainsFunc(failures, func(err error) bool { return codeOf(err) != code }) {
		code = exitError
	}
	return &codedError{code, &summaryError{failures[0], text}}
}

// summaryError sums failures up that were printed.
type summaryError struct {
	error // the first
	text  string
}

func (e *summaryError) Error() string { return e.text }
func (e *summaryError) Unwrap() error { return e.error }

// confirm asks the user. Without a terminal it takes nothing for yes.
func (c *call) confirm(what string) error {
	if !terminal.IsTerminal(c.InOrStdin()) {
		return cmdline.Errorf("%s; say --yes if that is wanted", what)
	}
	c.note("%s. Do it? [y/N] ", what)
	answer, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
