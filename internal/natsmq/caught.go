package natsmq

import (
	"fmt"
	"runtime/debug"
)

// caught calls f and turns a panic into an error, so that one message cannot
// end the process.
func (q *Queue) caught(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
			q.o.Log.Error("a message met a bug", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return f()
}
