package app

import (
	"context"
	"errors"
	"sync"
)

// running are the goroutines of the service. Any may fail at any time without
// blocking another.
type running struct {
	failed chan struct{} // closed at the first failure

	parts sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

func newRunning() *running { return &running{failed: make(chan struct{})} }

func (r *running) start(ctx context.Context, run func(context.Context) error) {
	r.parts.Go(func() {
		err := run(ctx)
		if err == nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.errs = append(r.errs, err); len(r.errs) == 1 {
			close(r.failed)
		}
	})
}

// wait waits for all, and joins their errors in order.
func (r *running) wait() error {
	r.parts.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}
