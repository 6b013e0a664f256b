package app

import (
	"context"
	"errors"
	"sync"
)

// running is what runs until the service stops. Each part can fail at any time,
// also all of them at once while the service stops, and none waits for that.
type running struct {
	failed chan struct{} // closed at the first failure

	parts sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

func newRunning() *running { return &running{failed: make(chan struct{})} }

// start runs a part until it returns.
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

// wait returns when every part has, with all failures in their order.
func (r *running) wait() error {
	r.parts.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}
