package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"headway/internal/doctor"
	"headway/internal/terminal"
)

func newDoctor() *cobra.Command {
	r := new(remote)
	return r.addFlags(addOutput(command("doctor", "Look for what is wrong, and say what helps",
		`Look for what is wrong with the service of this machine, or with --server, and
say what helps: the clock, the disk, the file limit, what the service is ready
for (its state, its message queue), the audit trail and Redis, certificates and
keys, what Prometheus scrapes, the alert rules and the dashboards. It changes
nothing. Exit code 0: no faults; 1: there are.`, func(c *call) error {
			found := doctor.Examine(c.Context(), r.Target)
			t := &terminal.Table{Columns: []string{"CHECK", "STATE", "DETAIL"}}
			faults := 0
			for _, f := range found {
				t.Add(f.Check, f.State, f.Detail)
				if f.Fix != "" {
					t.Add("", "", "  -> "+f.Fix)
				}
				if f.State == doctor.Fault {
					faults++
				}
			}
			if err := c.show(found, t); err != nil {
				return err
			}
			if faults > 0 {
				return fmt.Errorf("faults found: %d", faults)
			}
			return nil
		})))
}
