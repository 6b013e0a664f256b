package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

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
