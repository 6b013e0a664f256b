package natsmq

import (
	"context"
	"fmt"
	"time"
)

// publishTime bounds the wait for the server's acknowledgement.
const publishTime = 5 * time.Second

// Publish implements trail.Sink: each line is a message on headway.v1.audit.
// The server confirms it; the receivers are unknown.
func (q *Queue) Publish(ctx context.Context, lines [][]byte) (arrived, receivers int, err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	for _, line := range lines {
		if err = q.nc.Publish(prefix+queueAudit, line); err != nil {
			break
		}
	}
	if err == nil {
		err = q.nc.FlushWithContext(ctx)
	}
	if err != nil { // none is known to have arrived, and all are sent again
		q.o.Messages.add(queueAudit, publishFailed, len(lines))
		return 0, -1, fmt.Errorf("publish the audit trail on %s: %w", prefix+queueAudit, err)
	}
	q.o.Messages.add(queueAudit, published, len(lines))
	return len(lines), -1, nil
}
