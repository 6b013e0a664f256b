package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"headway/internal/routing"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check a policy file", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that is wrong with a policy file",
		Long: `Say everything that is wrong with a policy file (YAML, or JSON when the name
ends in .json), each fault with its place. Exit code 0: it would be taken; 1: not.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			format := "yaml"
			if filepath.Ext(args[0]) == ".json" {
				format = "json"
			}
			doc, faults := routing.ParsePolicy(data, format)
			var policy *routing.Policy
			if len(faults) == 0 {
				policy, faults = routing.Compile(doc)
			}
			for _, f := range faults {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", cmp.Or(f.Pointer, "the document"), f.Reason)
			}
			if len(faults) > 0 {
				return fmt.Errorf("%s is no valid policy; faults: %d", args[0], len(faults))
			}
			for _, w := range policy.Warnings {
				fmt.Fprintf(cmd.OutOrStdout(), "warning: %s: %s\n", w.Pointer, w.Reason)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: default %s, rules: %d, regions: %d\n",
				args[0], doc.DefaultStrategy, len(doc.Rules), len(doc.Regions))
			return err
		},
	})
	return cmd
}
