package live_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
)

func (w *world) dial(request string) *net.TCPConn {
	conn, err := new(net.Dialer).DialContext(w.Context(), "tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		w.Fatal(err)
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

const upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// reset ends a connection without a goodbye.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// connections are the ways to connect; each returns how to leave politely, and
// how to break off.
var connections = []func(w *world) (leave, breakOff func()){
	func(w *world) (func(), func()) { // a stream
		c := w.dial("GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
		return func() { _ = c.Close() }, func() { reset(c) }
	},
	func(w *world) (func(), func()) { // a stream that has begun
		c := w.dial("GET /events?types=* HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = c.Read(make([]byte, 64))
		return func() { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c); _ = c.Close() }, func() { reset(c) }
	},
	func(w *world) (func(), func()) { // a WebSocket of the one library, which listens
		c, _, err := websocket.Dial(w.Context(), w.server.URL+"/ws", nil)
		if err == nil {
			err = c.Write(w.Context(), websocket.MessageText, []byte(`{"type":"subscribe"}`))
		}
		if err != nil {
			w.Fatal(err)
		}
		return func() { _ = c.Close(websocket.StatusNormalClosure, "") }, func() { _ = c.CloseNow() }
	},
	func(w *world) (func(), func()) { // one that says goodbye by hand, or is reset in the middle of a frame
		c := w.dial(upgrade)
		_, _ = c.Read(make([]byte, 4096))
		return func() {
				_ = ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}, func() {
				_, _ = c.Write(binary.BigEndian.AppendUint16([]byte{0x81, 0xfe}, 4000))
				reset(c)
			}
	},
}

// comeAndGo has n connections come and go in random order, half of them without
// a goodbye, and waits until the service has noticed.
func (w *world) comeAndGo(n int) {
	w.Helper()
	type held struct{ leave, breakOff func() }
	var open []held
	for came, went := 0, 0; went < n; {
		if came < n && (len(open) == 0 || rand.IntN(5) < 3) {
			leave, breakOff := connections[rand.IntN(len(connections))](w)
			open = append(open, held{leave, breakOff})
			came++
			continue
		}
		i := rand.IntN(len(open))
		if went%2 == 0 {
			open[i].leave()
		} else {
			open[i].breakOff()
		}
		open[i] = open[len(open)-1]
		open = open[:len(open)-1]
		went++
	}
	w.until("all are gone", func() bool { return w.value("sse_connections") == 0 && w.value("websocket_connections") == 0 })
}

// settled is how many goroutines there are, and bytes of memory in use, once
// what ends has ended.
func (w *world) settled() (goroutines, memory int) {
	w.Helper()
	last, same := 0, 0
	w.until("the goroutines settle", func() bool {
		now := runtime.NumGoroutine()
		if same++; now != last {
			last, same = now, 0
		}
		return same == 20
	})
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return last, int(m.HeapAlloc)
}

// leftovers is what 1,000 connections leave behind, after some that fill what is
// kept for good.
func leftovers(w *world) (goroutines, memory int) {
	w.Helper()
	w.comeAndGo(1000)
	goroutines, memory = w.settled()
	w.comeAndGo(1000)
	after, use := w.settled()
	return after - goroutines, use - memory
}

// However they end, the gauges are right, and nothing is left behind.
func TestAThousandConnectionsLeaveNothingBehind(t *testing.T) {
	w := newWorld(t)
	goroutines, memory := leftovers(w)
	if goroutines > 2 || memory > mostLeft {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines and %d KiB are left\n%s", goroutines, memory>>10, strings.TrimSpace(string(buf[:runtime.Stack(buf, true)])))
	}
}

// mostLeft is the noise of the heap, in bytes; one connection takes some 10 KiB.
const mostLeft = 256 << 10

// BenchmarkConnectionsLeft measures what 1,000 connections leave behind.
func BenchmarkConnectionsLeft(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		goroutines, memory := leftovers(w)
		b.ReportMetric(float64(max(0, goroutines)), "goroutines")
		b.ReportMetric(float64(max(0, memory))/1024, "KiB")
	}
}
