package live_test

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// BenchmarkPipelinedDecision is one of the decisions that are asked for over one
// WebSocket without waiting for each answer; the client's part is in it.
func BenchmarkPipelinedDecision(b *testing.B) {
	w := newWorld(b)
	w.register("gpu-1", "us-east")
	conn, _, _, err := ws.Dial(b.Context(), "ws"+strings.TrimPrefix(w.server.URL, "http")+"/ws")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const window = 64
	var batch bytes.Buffer
	for range window {
		if err := ws.WriteFrame(&batch, ws.MaskFrame(ws.NewTextFrame([]byte(`{"id":1,"type":"decide","data":{"model_type":"llama"}}`)))); err != nil {
			b.Fatal(err)
		}
	}
	answers := bufio.NewReaderSize(conn, 64<<10)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%window != 0 {
			continue
		}
		if _, err := conn.Write(batch.Bytes()); err != nil {
			b.Fatal(err)
		}
		for range window {
			h, err := ws.ReadHeader(answers)
			if err == nil {
				_, err = answers.Discard(int(h.Length))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
