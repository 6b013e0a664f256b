package httpapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"headway/internal/proxy"
)

// lastWords is how long callers that are cut have to take the error that says so.
const lastWords = 2 * time.Second

// Drain stops the server without losing a request: readiness fails at once and
// every answer asks its client to come back on another connection; after the
// lame duck, when clients have moved on, the listener closes and work in
// flight finishes. What has not after Limits.ShutdownTimeout, or when ctx ends, is
// cut: requests of the data plane end with an error, and Drain says how many.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	timer := time.NewTimer(s.o.Limits.LameDuck)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.noLameDuck:
	case <-ctx.Done():
	}
	s.o.Fleet.KeepLeases() // heads cannot report any more: the requests that wait or are tried again need them
	begin := time.Now()
	working, cancel := context.WithTimeout(ctx, s.o.Limits.ShutdownTimeout)
	defer cancel()
	err := s.o.Live.Shutdown(working)
	if err = errors.Join(err, s.shutdown(working)); err == nil {
		return nil
	}
	return s.cutAll(ctx, err, time.Since(begin))
}

// SkipLameDuck has Drain close the listener at once. It is called once.
func (s *Server) SkipLameDuck() { close(s.noLameDuck) }

// shutdown closes the listeners and waits until no request is under way.
func (s *Server) shutdown(ctx context.Context) error {
	var data error
	var both sync.WaitGroup
	both.Go(func() { data = s.data.Shutdown(ctx) })
	err := s.http.Shutdown(ctx)
	both.Wait()
	return errors.Join(err, data)
}

// cutAll ends what is under way. The request's contexts end with a cause by which
// the data plane knows that its callers are still there.
func (s *Server) cutAll(ctx context.Context, why error, waited time.Duration) error {
	s.cut(proxy.ErrStopping)
	var streams, refused int64
	if s.o.Proxy != nil {
		s.o.Proxy.Stop()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	_ = s.shutdown(last)
	if s.o.Proxy != nil {
		streams, refused = s.o.Proxy.Stopped()
	}
	closed := s.metrics.connections.Load()
	s.o.Log.Warn("requests that were under way were cut", "waited", waited.Round(time.Millisecond).String(),
		"answers_cut", streams, "refused", refused, "connections_closed", closed)
	if errors.Is(why, context.DeadlineExceeded) || errors.Is(why, context.Canceled) {
		why = nil // the error says so
	}
	return errors.Join(fmt.Errorf(
		"requests were still under way after %s and were cut: %d answers in their middle, %d answered with 503, %d connections closed; http.shutdown_timeout has to be longer than the longest answer",
		waited.Round(time.Millisecond), streams, refused, closed), why, s.http.Close(), s.data.Close())
}
