package registry

import (
	"context"
	"fmt"
	"time"
)

// epochBlock is how many epochs are set aside with one durable write.
const epochBlock = 1 << 16

// grantEpochs takes a new block of epochs. Only Load and the committer call it.
func (r *Registry) grantEpochs(ctx context.Context) error {
	first, err := r.store.GrantEpochs(ctx, epochBlock)
	if err != nil {
		return fmt.Errorf("set epochs aside: %w", err)
	}
	r.mu.Lock()
	r.nextEpoch, r.epochsLeft = first, epochBlock
	r.mu.Unlock()
	return nil
}

// probeInterval is how often a store that failed is tried again. A service that
// is not ready gets no changes to write, and would never learn that the store
// is back.
const probeInterval = time.Second

// probe sets one epoch aside, the smallest durable write there is.
func (r *Registry) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	if _, err := r.store.GrantEpochs(ctx, 1); err != nil {
		return
	}
	r.storeDown.Store(false)
	r.log.Info("the store works again")
}
