package natsmq

import (
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/disk"
)

// room accounts for the space for commands on the embedded server: of the
// stream, which senders share, and of the disk. It is safe for concurrent use.
type room struct {
	dir     string
	minFree int64 // bytes of the disk below which no command is taken; 0: it is not looked at

	mu     sync.Mutex
	shares shares[int64]
}

// earlier is the account of commands from before the service started.
const earlier = "earlier"

// take reserves room for a command, or returns why there is none.
func (r *room) take(account string, n int64) error {
	if err := r.diskLeft(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.shares.take(account, n) {
		return &apiv1.Problem{
			Code: api.CodeQueueUnavailable, RetryAfter: 5 * time.Second,
			Detail: "The commands of this sender that wait take as much room as is left for all others (queue.max_bytes); send more once some were carried out.",
		}
	}
	return nil
}

// add accounts for a stored command, even beyond the limit.
func (r *room) add(account string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shares.add(account, n)
}

// give releases the room of a removed command, or that of the account earlier.
func (r *room) give(account string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := min(n, r.shares.of[account])
	r.shares.give(account, own)
	r.shares.give(earlier, n-own)
}

func (r *room) empty() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shares = newShares(r.shares.total)
}

func (r *room) filled() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return float64(r.shares.used) / float64(r.shares.total)
}

// diskLeft refuses commands on a nearly full disk, to keep room for ending
// those stored.
func (r *room) diskLeft() error {
	if r.minFree == 0 {
		return nil
	}
	free, err := disk.Free(r.dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", r.dir, err)
	}
	if free >= r.minFree {
		return nil
	}
	return &apiv1.Problem{
		Code: api.CodeQueueUnavailable, RetryAfter: 5 * time.Second,
		Detail: fmt.Sprintf("No command is taken: the disk of the queue has %d MiB free, and %d MiB must be (state.min_free_bytes).", free>>20, r.minFree>>20),
	}
}

// charge returns the account and the room of a command.
func charge(subject string, header nats.Header, body []byte) (account string, n int64) {
	n = int64(30 + len(subject) + len(body))
	if len(header) > 0 {
		n += 16
	}
	for name, values := range header {
		for _, v := range values {
			n += int64(len(name) + len(v) + 4)
		}
	}
	return accountOf(header), n
}
