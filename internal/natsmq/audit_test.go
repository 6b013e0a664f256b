package natsmq_test

import (
	"context"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/natsmq"
	"headway/internal/trail"
)

var _ trail.Sink = (*natsmq.Queue)(nil)

// Lines of the trail are messages, in their order, for those who may read it.
func TestTheTrailIsPublished(t *testing.T) {
	w := newWorld(t)
	w.key("k-viewer", access.RoleViewer)
	nc := w.connect(as("k-viewer")...)
	heard := w.listen(nc, "headway.v1.audit")
	lines := [][]byte{[]byte(`{"seq":1}`), []byte(`{"seq":2}`), []byte(`{"seq":3}`)}
	if arrived, receivers, err := w.queue.Publish(t.Context(), lines); arrived != 3 || receivers != -1 || err != nil {
		t.Errorf("%d, %d, %v", arrived, receivers, err)
	}
	for _, line := range lines {
		m, err := heard.NextMsg(time.Minute)
		if err != nil || string(m.Data) != string(line) {
			t.Fatalf("%+v, %v; want %s", m, err, line)
		}
	}
	if n := w.of("audit", "published"); n != 3 {
		t.Errorf("%d are counted", n)
	}
}

// While the server is away nothing has arrived, so that it is sent again.
func TestTheTrailIsNotPublishedWhileTheServerIsAway(t *testing.T) {
	s := newServer(t)
	w := newWorld(t, external(s))
	w.ready()
	s.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if arrived, _, err := w.queue.Publish(ctx, [][]byte{[]byte("{}")}); arrived != 0 || err == nil {
		t.Errorf("%d, %v", arrived, err)
	}
	if n := w.of("audit", "publish_failed"); n != 1 {
		t.Errorf("%d are counted", n)
	}
}
