package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/terminal"
)

func newQueue() *cobra.Command {
	r := new(remote)
	return r.addFlags(group("queue", "Look after commands of the message queue that could not be carried out",
		`Look after dead letters: commands of the message queue, such as outcomes of
decisions, that could not be carried out. Each says why. See docs/queue.md.`,
		newQueueList(r), newQueuePeek(r),
		newQueueEach(r, "retry", "Put dead letters back into the queue", (*client.Client).RetryDeadLetter),
		newQueueEach(r, "purge", "Forget dead letters", (*client.Client).PurgeDeadLetter)))
}

func newQueueList(r *remote) *cobra.Command {
	var most int
	cmd := addOutput(command("ls", "List dead letters, oldest first", "", r.ask(func(c *call) error {
		return list(c, c.DeadLetters(c.Context()), most, letterTable)
	})))
	cmd.Aliases = []string{"list"}
	cmd.Flags().IntVar(&most, "limit", 1000, "list at most so many")
	return cmd
}

func letterTable(letters []api.DeadLetter) *terminal.Table {
	t := &terminal.Table{Columns: []string{"NUMBER", "AGE", "QUEUE", "DELIVERIES", "CODE", "REASON", "BYTES", "MESSAGE ID"}, Wide: 6}
	now := time.Now()
	for _, l := range letters {
		t.Add(l.Number, terminal.Ago(&l.Time, now), l.Queue, l.Deliveries, l.Code, l.Reason, l.Bytes, terminal.OrDash(l.MessageID))
	}
	return t
}

func newQueuePeek(r *remote) *cobra.Command {
	return addOutput(command("peek NUMBER", "Show one dead letter with its body", "", func(c *call) error {
		number, err := letterNumber(c.args[0])
		if err != nil {
			return err
		}
		return r.connected(c, func(c *call) error {
			l, err := c.DeadLetter(c.Context(), number)
			if err != nil {
				return err
			}
			t := &terminal.Table{Columns: []string{"FIELD", "VALUE"}, Bare: true}
			t.Add("number", c.args[0])
			t.Add("given up", l.Time.Local().Format(time.RFC3339))
			t.Add("subject", l.Subject)
			t.Add("deliveries", l.Deliveries)
			t.Add("code", l.Code)
			t.Add("reason", l.Reason)
			t.Add("message id", terminal.OrDash(l.MessageID))
			t.Add("body", fmt.Sprintf("%q", l.Body))
			return c.show(l, t)
		})
	}))
}

// newQueueEach is a command that does something with each dead letter that is
// named.
func newQueueEach(r *remote, use, short string, act func(*client.Client, context.Context, uint64) error) *cobra.Command {
	var all bool
	cmd := command(use+" NUMBER... | --all", short, "", func(c *call) error {
		if all == (len(c.args) > 0) {
			return cmdline.Errorf("name the numbers of dead letters, or say --all")
		}
		var numbers []uint64
		for _, arg := range c.args {
			n, err := letterNumber(arg)
			if err != nil {
				return err
			}
			numbers = append(numbers, n)
		}
		return r.connected(c, func(c *call) error {
			if all {
				for l, err := range c.DeadLetters(c.Context()) {
					if err != nil {
						return err
					}
					numbers = append(numbers, l.Number)
				}
			}
			if err := each(c, "dead letter", numbers, func(n uint64) error { return act(c.Client, c.Context(), n) }); err != nil {
				return err
			}
			c.note("%s: %s\n", use, terminal.Count(len(numbers), "dead letter"))
			return nil
		})
	})
	cmd.Flags().BoolVar(&all, "all", false, "all that there are")
	return cmd
}

func letterNumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, cmdline.Errorf("%q: want the number of a dead letter, as headway queue ls shows it", text)
	}
	return n, nil
}
