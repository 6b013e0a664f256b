package proxy

import (
	"context"
	"errors"
	"testing"
)

func TestRequestsUnderWayAreFoundUntilTheyAreOver(t *testing.T) {
	var u underway
	found := func() (n int) {
		u.each(func(*standing) { n++ })
		return n
	}
	list := []*standing{{Context: t.Context()}, {Context: t.Context()}, {Context: t.Context()}, {Context: t.Context()}}
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 1, 0}} {
		for i := range list {
			list[i] = &standing{Context: t.Context()}
			u.enter(list[i])
			u.awaits(list[i], i%2 == 0)
		}
		if u.awaited() != 2 {
			t.Errorf("%v bodies are awaited, want 2", u.awaited())
		}
		for left, i := range order {
			if n := found(); n != len(list)-left {
				t.Errorf("%v: %d are found, want %d", order, n, len(list)-left)
			}
			u.leave(list[i])
		}
		if n := found(); n != 0 {
			t.Errorf("%v: %d are found at the end", order, n)
		}
	}
}

func TestRequestsUnderWayEndByThemselvesOrWithTheirParent(t *testing.T) {
	why, gone := errors.New("why"), errors.New("gone")
	for _, waited := range []bool{false, true} {
		for _, first := range []error{why, gone} {
			parent, leave := context.WithCancelCause(t.Context())
			t.Cleanup(func() { leave(nil) })
			s := &standing{Context: parent}
			child, stop := context.Context(s), context.CancelFunc(func() {})
			if waited {
				child, stop = context.WithCancel(s)
			}
			if s.Err() != nil || context.Cause(s) != nil {
				t.Fatalf("it has ended: %v, %v", s.Err(), context.Cause(s))
			}
			for _, cause := range []error{first, why, gone} { // the first one counts
				if errors.Is(cause, why) {
					s.end(cause)
				} else {
					leave(cause)
				}
				for _, ctx := range []context.Context{s, child} {
					<-ctx.Done()
					if !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(context.Cause(ctx), first) {
						t.Errorf("waited for %t, %v: %v, %v", waited, first, ctx.Err(), context.Cause(ctx))
					}
				}
			}
			stop()
		}
	}
}
