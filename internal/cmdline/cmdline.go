// Package cmdline makes wrong use of a command line an error that says what was
// probably meant.
package cmdline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/internal/strict"
)

// Error is wrong use of a command.
type Error struct{ error }

// Unwrap is the error that says what is wrong.
func (e *Error) Unwrap() error { return e.error }

// Errorf makes an Error as fmt.Errorf makes an error.
func Errorf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }

// Check makes wrong use of each command an Error: a script whose command does
// nothing must not go on. A command takes the arguments that its usage names, and
// needs the flags. The commands must all be there.
func Check(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.SetFlagErrorFunc(unknownFlag)
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Args = helpTopic
		}
	}
	strictUsage(root)
	addPlainFlags()
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsages | plainFlags"))
}

// addPlainFlags adds to the functions of templates, which all commands of the process
// share, one that leaves out the values of flags that the name alone turns on.
var addPlainFlags = sync.OnceFunc(func() {
	const values = "[=true|false]"
	cobra.AddTemplateFunc("plainFlags", func(usages string) string {
		return strings.ReplaceAll(usages, values, strings.Repeat(" ", len(values)))
	})
})

func strictUsage(cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		cmd.Args = noSuchCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	names, flags := wantedBy(cmd)
	check := cmd.Args
	if !cmd.HasSubCommands() && cmd.Name() != "help" {
		check = argsOf(cmd, names)
	}
	if len(flags) > 0 {
		cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return required(cmd, flags) }
	}
	cmd.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return Errorf("%w%s", err, wanted(c))
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		strictUsage(sub)
	}
}

// wantedBy are the arguments that the usage of a command names, and the flags that
// must not be left out: those that do not stand behind a |.
func wantedBy(cmd *cobra.Command) (args, flags []string) {
	use, _, _ := strings.Cut(cmd.Use, "|")
	for _, word := range strings.Fields(use)[1:] {
		if flag, isFlag := strings.CutPrefix(word, "--"); isFlag {
			flags = append(flags, flag)
		} else if len(flags) == 0 {
			args = append(args, word)
		}
	}
	return args, flags
}

// argsOf takes as many arguments as the usage says: NAME, NAME..., [NAME] or none.
func argsOf(cmd *cobra.Command, names []string) cobra.PositionalArgs {
	if strings.Contains(cmd.Use, "|") {
		return cobra.ArbitraryArgs
	}
	return func(_ *cobra.Command, args []string) error {
		given, most := len(args), len(names)
		switch {
		case given < most && !strings.HasPrefix(names[given], "["):
			return errors.New(strings.TrimSuffix(names[given], "...") + " is missing")
		case given > most && (most == 0 || !strings.HasSuffix(names[most-1], "...")):
			return fmt.Errorf("there is no place for the argument %q", args[most])
		}
		return nil
	}
}

// required refuses a call that leaves one of the flags out, or empty.
func required(cmd *cobra.Command, flags []string) error {
	for _, name := range flags {
		if v := cmd.Flags().Lookup(name).Value.String(); v == "" || v == "[]" {
			return Errorf("--%s is missing. Usage: %s", name, cmd.UseLine())
		}
	}
	return nil
}

// exampleArgs are arguments as they might be, by group and name in the usage.
var exampleArgs = map[string]string{
	"heads ID": "gpu-7", "keys ID": "0123456789ab", "policy FILE": "policy.yaml", "policy REVISION": "3",
	"queue NUMBER": "4", "state FILE": "state.json", "tls NAME": "rack-7", "strategies NAME": "adaptive", "headway DIR": "man", "monitoring DIR": "monitoring",
}

// wanted says how the command is used; "" where that does not depend on arguments.
func wanted(cmd *cobra.Command) string {
	if cmd.HasSubCommands() || cmd.Name() == "help" {
		return ""
	}
	names, flags := wantedBy(cmd)
	said := ". Usage: " + cmd.UseLine()
	for line := range strings.Lines(cmd.Long) {
		if example := strings.TrimSpace(line); strings.HasPrefix(line, "  ") && strings.HasPrefix(example, cmd.CommandPath()+" ") {
			return said + "\nFor example: " + example
		}
	}
	if len(names) == 0 || len(flags) > 0 || strings.Contains(cmd.Use, "|") {
		return said
	}
	value := exampleArgs[cmd.Parent().Name()+" "+strings.Trim(names[0], "[].")]
	return said + "\nFor example: " + cmd.CommandPath() + " " + value
}

// noSuchCommand refuses arguments of a group that are no command of it.
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
	hint := DidYouMean("", args[0], known)
	if hint == "" {
		hint = sameVerb(args[0], known)
	}
	if hint == "" && group.HasParent() {
		hint = "; it has " + strings.Join(known, ", ")
	}
	return fmt.Errorf("unknown command %q of %q%s", args[0], group.CommandPath(), hint)
}

// verbs are names that other command lines have for the same.
var verbs = [][]string{
	{"get", "show", "describe", "view", "cat", "inspect", "print", "peek", "read"},
	{"list", "ls", "all", "search", "find", "query", "history", "revisions", "versions", "log", "logs"},
	{"create", "add", "new", "make", "issue", "register", "join", "init", "generate"},
	{"remove", "rm", "delete", "del", "destroy", "deregister", "unregister", "revoke", "purge", "drop"},
	{"apply", "set", "put", "update", "edit", "replace", "load"},
	{"check", "validate", "verify", "lint", "test", "fsck"},
	{"restore", "rollback", "undo", "revert", "reset"},
	{"drain", "cordon", "disable"},
	{"undrain", "uncordon", "enable", "resume"},
	{"reinstate", "uneject", "unban"},
	{"tail", "follow", "watch", "events", "stream"},
	{"export", "backup", "dump", "save"},
	{"import", "recover"},
	{"retry", "requeue", "replay"},
	{"diff", "compare"},
	{"serve", "start", "run", "up", "daemon", "server"},
	{"heads", "head", "nodes", "servers", "backends", "fleet"},
	{"decide", "route", "decision", "decisions", "pick", "choose"},
	{"keys", "key", "tokens", "token", "users", "credentials"},
	{"policy", "policies", "strategy", "strategies", "rules"},
	{"audit", "trail"},
	{"status", "health", "info", "top"},
	{"tls", "certs", "certificates", "pki"},
}

// sameVerb is "; did you mean X?" with the known name that means the same, "" if
// there is none.
func sameVerb(name string, known []string) string {
	for _, same := range verbs {
		if !slices.Contains(same, strings.ToLower(name)) {
			continue
		}
		for _, v := range same {
			if slices.Contains(known, v) {
				return fmt.Sprintf("; did you mean %s?", v)
			}
		}
	}
	return ""
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
		return &Error{noSuchCommand(cmd, words)} // whose flag it would have been
	}
	if missing, ok := errors.AsType[*pflag.NotExistError](err); ok && missing.GetSpecifiedShortnames() == "" {
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				known = append(known, f.Name)
			}
		})
		err = fmt.Errorf("%w%s", err, DidYouMean("--", missing.GetSpecifiedName(), known))
	}
	return &Error{err}
}

// DidYouMean is "; did you mean X?" with the only known name that begins so, or
// else with the nearest, and "" without one.
func DidYouMean(prefix, name string, known []string) string {
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
		meant = strict.Nearest(name, known)
	}
	if meant == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, meant)
}
