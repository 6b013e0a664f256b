package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/internal/typo"
)

// strict makes wrong use of any command an error that says what was probably
// meant: a script whose command does nothing must not go on.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.SetFlagErrorFunc(unknownFlag)
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Args = helpTopic
		}
	}
	strictArgs(root)
}

func strictArgs(cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		cmd.Args = noSuchCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError(err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
}

// noSuchCommand refuses whatever stands where a command of a group should.
func noSuchCommand(group *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, sub := range group.Commands() {
		if !sub.Hidden {
			known = append(append(known, sub.Name()), sub.Aliases...)
		}
	}
	return fmt.Errorf("unknown command %q of %q%s", args[0], group.CommandPath(), didYouMean("", args[0], known))
}

func helpTopic(help *cobra.Command, args []string) error {
	found, rest, err := help.Root().Find(args)
	if err == nil && found.HasSubCommands() {
		err = noSuchCommand(found, rest)
	}
	return err
}

// unknownFlag is the error of flags that cannot be read.
func unknownFlag(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); len(words) > 0 && cmd.HasSubCommands() {
		return usageError(noSuchCommand(cmd, words)) // whose flag it would have been
	}
	if missing, ok := errors.AsType[*pflag.NotExistError](err); ok && missing.GetSpecifiedShortnames() == "" {
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				known = append(known, f.Name)
			}
		})
		err = fmt.Errorf("%w%s", err, didYouMean("--", missing.GetSpecifiedName(), known))
	}
	return usageError(err)
}

// didYouMean is "; did you mean X?" with the only known name that begins so, or
// else with the nearest, and "" without one.
func didYouMean(prefix, name string, known []string) string {
	meant := ""
	for _, k := range known {
		if name != "" && strings.HasPrefix(k, name) {
			if meant != "" {
				meant = ""
				break
			}
			meant = k
		}
	}
	if meant == "" {
		meant = typo.Nearest(name, known)
	}
	if meant == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, meant)
}
