package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"headway/internal/terminal"
	"headway/internal/usage"
)

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
			return "", usage.Errorf("--json and -o %s: want one of them", format)
		}
		return "json", nil
	}
	if !slices.Contains(terminal.Formats, format) {
		return "", usage.Errorf("-o %q: want one of %s", format, strings.Join(terminal.Formats, ", "))
	}
	return format, nil
}
