package live_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"headway/api"
	"headway/internal/access"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/live"
	"headway/internal/registry"
)

// peer is a client of a WebSocket.
type peer struct {
	w    *world
	conn *websocket.Conn
}

func (w *world) connect() *peer {
	w.Helper()
	w.readAll()
	conn, answer, err := websocket.Dial(w.Context(), w.server.URL+"/ws", &websocket.DialOptions{HTTPClient: w.server.Client()})
	if err != nil {
		w.Fatalf("%v, %+v", err, answer)
	}
	conn.SetReadLimit(1 << 20)
	w.Cleanup(func() { _ = conn.CloseNow() })
	return &peer{w: w, conn: conn}
}

func (p *peer) send(text string) {
	p.w.Helper()
	if err := p.conn.Write(p.w.Context(), websocket.MessageText, []byte(text)); err != nil {
		p.w.Fatal(err)
	}
}

// next returns the next message, or the error that ended the connection.
func (p *peer) next() (api.Envelope, error) {
	ctx, cancel := context.WithTimeout(p.w.Context(), 20*time.Second)
	defer cancel()
	var m api.Envelope
	kind, raw, err := p.conn.Read(ctx)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m, json.RejectUnknownMembers(true)); err != nil || kind != websocket.MessageText {
		p.w.Fatalf("%s is no envelope: %v", raw, err)
	}
	return m, nil
}

// want reads a message and demands its type, id and a part of its data. Events
// may come before an answer.
func (p *peer) want(kind, id, part string) api.Envelope {
	p.w.Helper()
	m, err := p.next()
	for err == nil && m.Type == "event" && kind == "answer" {
		m, err = p.next()
	}
	if err != nil {
		p.w.Fatalf("%v; want %s %s", err, kind, part)
	}
	if m.Type != kind || string(m.ID) != id || !strings.Contains(string(m.Data), part) {
		p.w.Fatalf("got %s %s %s; want %s %s with %s", m.ID, m.Type, m.Data, kind, id, part)
	}
	return m
}

// closes reads until the end and demands the close code.
func (p *peer) closes(code websocket.StatusCode, reason string) {
	p.w.Helper()
	for {
		_, err := p.next()
		if err == nil {
			continue
		}
		if websocket.CloseStatus(err) != code || !strings.Contains(err.Error(), reason) {
			p.w.Fatalf("%v; want close code %d with %q", err, code, reason)
		}
		return
	}
}

func TestEverythingCanBeDoneOverOneWebSocket(t *testing.T) {
	w := newWorld(t)
	p := w.connect()
	p.send(`{"id":1,"type":"register","data":{"id":"gpu-1","endpoint":"http://10.0.0.1:8000","model_type":"llama","region":"us-east"}}`)
	var done api.RegistrationAnswer
	if err := json.Unmarshal(p.want("answer", "1", `"gpu-1"`).Data, &done); err != nil || done.Lease.Epoch == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	p.send(fmt.Sprintf(`{"id":"two","type":"status","data":{"id":"gpu-1","epoch":%d,"status":"active","load":{"in_flight":1}}}`, done.Lease.Epoch))
	p.want("answer", `"two"`, `"lease"`)
	p.send(`{"id":3,"type":"subscribe","data":{"types":["head.*"],"region":"us-east"}}`)
	p.want("answer", "3", "")
	p.want("snapshot", "", `"gpu-1"`)
	p.send(`{"id":4,"type":"decide","data":{"model_type":"llama"}}`)
	var made api.Decision
	if err := json.Unmarshal(p.want("answer", "4", `"decision_id"`).Data, &made); err != nil || made.Head.ID != "gpu-1" {
		t.Fatalf("%+v, %v", made, err)
	}
	p.send(`{"id":5,"type":"progress","data":{"decision_id":"` + made.DecisionID + `","event":"first_token"}}`)
	p.want("answer", "5", "")
	p.send(`{"id":6,"type":"outcome","data":{"decision_id":"` + made.DecisionID + `","result":"ok","duration_ms":12}}`)
	p.want("answer", "6", "")
	if d, err := w.router.Decision(made.DecisionID); err != nil || d.FirstTokenAt().IsZero() {
		t.Errorf("%v: the first token was not noted", err)
	} else if o, ended := d.Outcome(); !ended || o.Duration != 12 {
		t.Errorf("the outcome is %+v", o)
	}
	p.send(`{"type":"ping"}`)
	p.want("answer", "", "")
	w.drain("gpu-1", fleet.AdminDraining)
	for noticed := false; !noticed; { // before, between or after the two events
		m, err := p.next()
		if noticed = m.Type == "admin"; err != nil || noticed && string(m.Data) != `{"head":"gpu-1","admin_state":"draining"}` || !noticed && m.Type != "event" {
			t.Fatalf("%s %s, %v", m.Type, m.Data, err)
		}
	}
	p.send(`{"id":7,"type":"unsubscribe"}`)
	p.want("answer", "7", "")
	p.send(`{"id":8,"type":"deregister","data":{"id":"gpu-1"}}`)
	p.want("answer", "8", "")
	if _, err := w.fleet.Head("gpu-1"); err == nil {
		t.Error("the head is still there")
	}
	if n := w.value("headway_live_messages_total", "ok"); n != 9 {
		t.Errorf("%v messages were counted", n)
	}
}

// A head whose connection breaks has its lease still, and is counted gone when
// that runs out and no sooner.
func TestAHeadOutlivesItsConnectionByItsLease(t *testing.T) {
	w := newWorldOf(t, registry.LeaseOptions{})
	p := w.connect()
	p.send(`{"id":1,"type":"register","data":{"id":"gpu-1","endpoint":"http://10.0.0.1:8000","model_type":"llama","region":"us-east","status":"active"}}`)
	p.want("answer", "1", "")
	_ = p.conn.CloseNow()
	w.until("the connection is gone", func() bool { return w.value("websocket_connections") == 0 })
	view, err := w.fleet.Head("gpu-1")
	if err != nil || !view.Head.Routable() {
		t.Fatalf("%+v, %v; want it routable", view.Head, err)
	}
	l := w.listen("?types=head.expired")
	l.want("snapshot", "")
	l.want("head.expired", "gpu-1")
	if early := time.Until(view.Lease.ExpiresAt); early > 50*time.Millisecond {
		t.Errorf("%s before the end of its lease", early)
	}
}

func TestAHeadGetsTheAdminState(t *testing.T) {
	w := newWorld(t)
	p := w.connect()
	p.send(`{"id":1,"type":"register","data":{"id":"gpu-1","endpoint":"http://10.0.0.1:8000","model_type":"llama","region":"us-east","status":"active"}}`)
	p.want("answer", "1", "")
	w.register("gpu-2", "us-east")
	w.drain("gpu-2", fleet.AdminDraining) // of another client
	w.drain("gpu-1", fleet.AdminMaintenance)
	p.want("admin", "", `{"head":"gpu-1","admin_state":"maintenance"}`)
	w.drain("gpu-1", fleet.AdminEnabled)
	p.want("admin", "", `{"head":"gpu-1","admin_state":"enabled"}`)
}

func TestAnswersComeInTheOrderOfTheRequests(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	p := w.connect()
	const n = 5000
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := range n {
			p.send(fmt.Sprintf(`{"id":%d,"type":"decide","data":{"model_type":"llama"}}`, i))
		}
	})
	for i := range n {
		p.want("answer", fmt.Sprint(i), `"decision_id"`)
	}
	wait.Wait()
}

func TestErrorsAreAnswersAndTheConnectionGoesOn(t *testing.T) {
	w := newWorld(t)
	p := w.connect()
	for _, c := range []struct{ message, id, part string }{
		{`{`, "", `"invalid_json"`},
		{`[]`, "", `"invalid_json"`},
		{`{"id":1,"type":"ping"} {}`, "1", `"invalid_json"`},
		{`{"id":1,"type":"ping","type":"ping"}`, "1", `"invalid_json"`},
		{`{"id":1}`, "1", `/type`},
		{`{"id":1,"type":"dance"}`, "1", `known are auth`},
		{`{"id":1,"type":7}`, "1", `want a string`},
		{`{"id":[1],"type":"ping"}`, "", `/id`},
		{`{"id":"` + strings.Repeat("x", 200) + `","type":"ping"}`, "", `/id`},
		{`{"id":1,"type":"ping","extra":2}`, "1", `/extra`},
		{`{"id":1,"type":"decide"}`, "1", `/model_type`},
		{`{"id":1,"type":"decide","data":{"model_type":"absent"}}`, "1", `"unknown_model_type"`},
		{`{"id":1,"type":"decide","data":{"model_type":"x","colour":1}}`, "1", `/colour`},
		{`{"id":1,"type":"status","data":{"id":"x","epoch":1,"status":"active"}}`, "1", `"head_not_found"`},
		{`{"id":1,"type":"status","data":{"epoch":1,"status":"active"}}`, "1", `/id`},
		{`{"id":1,"type":"outcome","data":{"decision_id":"x","result":"ok"}}`, "1", `"decision_not_found"`},
		{`{"id":1,"type":"outcome","data":{"result":"ok"}}`, "1", `/decision_id`},
		{`{"id":1,"type":"progress","data":{}}`, "1", `/event`},
		{`{"id":1,"type":"register","data":{"id":"a b"}}`, "1", `/endpoint`},
		{`{"id":1,"type":"deregister","data":{"id":"x"}}`, "1", `"head_not_found"`},
		{`{"id":1,"type":"deregister","data":{"name":"x"}}`, "1", `/data/name`},
		{`{"id":1,"type":"subscribe","data":{"types":["dance"]}}`, "1", `/data/types`},
		{`{"id":1,"type":"subscribe","data":{"types":"head.*"}}`, "1", `/data/types`},
		{`{"id":1,"type":"subscribe","data":[]}`, "1", `/data`},
		{`{"id":1,"type":"auth","data":{"user":"x"}}`, "1", `/data/user`},
	} {
		p.send(c.message)
		m, err := p.next()
		if err != nil {
			t.Fatalf("%.60s: %v", c.message, err)
		}
		var problem api.Problem
		if json.Unmarshal(m.Data, &problem) != nil || m.Type != "error" || string(m.ID) != c.id || !strings.Contains(string(m.Data), c.part) || problem.Status < 400 {
			t.Errorf("%.60s: %s %s %s; want id %q and %s", c.message, m.ID, m.Type, m.Data, c.id, c.part)
		}
	}
	p.send(`{"id":9,"type":"ping"}`)
	p.want("answer", "9", "")
}

func TestEachMessageNeedsItsPermission(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	messages := map[string]string{
		"subscribe": `{}`, "unsubscribe": `{}`, "ping": `{}`,
		"register":   `{"id":"gpu-1","endpoint":"http://10.0.0.1:8000","model_type":"llama","region":"us-east"}`,
		"status":     `{"id":"gpu-1","epoch":1,"status":"active"}`,
		"deregister": `{"id":"absent"}`,
		"decide":     `{"model_type":"llama"}`, "progress": `{}`, "outcome": `{}`,
	}
	may := map[access.Role][]string{
		access.RoleViewer: {"subscribe", "unsubscribe"},
		access.RoleClient: {"decide", "progress", "outcome"},
		access.RoleHead:   {"register", "status", "deregister"},
	}
	for role, allowed := range may {
		w.who.Store(&access.Principal{Type: "key", ID: "k", Role: role, Heads: map[bool][]string{true: {"gpu-*", "absent"}}[role == access.RoleHead]})
		p := w.connect()
		for kind, data := range messages {
			before := w.denied.Load()
			p.send(`{"id":1,"type":"` + kind + `","data":` + data + `}`)
			var m api.Envelope
			for m.Type != "answer" && m.Type != "error" {
				var err error
				if m, err = p.next(); err != nil {
					t.Fatal(err)
				}
			}
			refused := strings.Contains(string(m.Data), `"forbidden"`)
			if want := !slices.Contains(allowed, kind) && kind != "ping"; refused != want {
				t.Errorf("%s as %s: refused %v (%s)", kind, role, refused, m.Data)
			} else if refused != (w.denied.Load() > before) {
				t.Errorf("%s as %s: %d refusals were recorded", kind, role, w.denied.Load()-before)
			}
		}
	}
	// A head speaks for itself only.
	w.who.Store(&access.Principal{Type: "key", ID: "k", Role: access.RoleHead, Heads: []string{"gpu-2"}})
	p := w.connect()
	p.send(`{"id":1,"type":"status","data":{"id":"gpu-1","epoch":1,"status":"offline"}}`)
	p.want("error", "1", "may not act for this head")
}

func TestTheFirstMessageMayHoldTheCredential(t *testing.T) {
	w := newWorld(t)
	w.who.Store(nil)
	w.register("gpu-1", "us-east")
	p := w.connect()
	p.send(`{"id":1,"type":"decide","data":{"model_type":"llama"}}`)
	p.want("error", "1", `"unauthenticated"`)
	p.send(`{"id":2,"type":"auth","data":{"token":"` + token + `"}}`)
	p.want("answer", "2", `"role":"admin"`)
	p.send(`{"id":3,"type":"decide","data":{"model_type":"llama"}}`)
	p.want("answer", "3", `"decision_id"`)

	guess := w.connect()
	guess.send(`{"id":1,"type":"auth","data":{"token":"guess"}}`)
	guess.want("error", "1", `"unauthenticated"`)
	guess.closes(websocket.StatusPolicyViolation, "not valid")
}

func TestAPeerThatDoesNotSayWhoItIsIsDropped(t *testing.T) {
	w := newWorld(t, impatient)
	w.who.Store(nil)
	w.connect().closes(websocket.StatusPolicyViolation, "authenticate first")
}

func TestARevokedWebSocketEnds(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.Timing.Beat = time.Second })
	w.who.Store(passing())
	p := w.connect()
	p.send(`{"id":1,"type":"ping"}`)
	p.want("answer", "1", "")
	w.lapse()
	p.send(`{"id":2,"type":"decide","data":{"model_type":"llama"}}`) // at once, before the next beat
	p.want("error", "2", "revoked")
	p.closes(websocket.StatusPolicyViolation, "credential")
	w.until("the gauge falls", func() bool { return w.value("websocket_connections") == 0 })
}

// What ends a WebSocket is the change itself; no look at the clock comes before
// it, and no message.
func TestAWebSocketEndsWithTheChangeThatEndsItsKey(t *testing.T) {
	w := newWorld(t, idle)
	p := w.connect()
	p.send(`{"id":1,"type":"ping"}`)
	p.want("answer", "1", "")
	w.end()
	p.closes(websocket.StatusPolicyViolation, "credential")
}

func TestShutdownSaysGoodbyeOverWebSocket(t *testing.T) {
	w := newWorld(t)
	p := w.connect()
	p.send(`{"id":1,"type":"ping"}`)
	p.want("answer", "1", "")
	go func() { _ = w.hub.Shutdown(context.Background()) }()
	p.want("bye", "", "connect again")
	p.closes(websocket.StatusGoingAway, "stops")
	w.until("the gauge falls", func() bool { return w.value("websocket_connections") == 0 })
}

func TestAnEventIsTheSameOverBothTransports(t *testing.T) {
	w := newWorld(t)
	l := w.listen("")
	l.want("snapshot", "")
	p := w.connect()
	p.send(`{"type":"subscribe"}`)
	p.want("answer", "", "")
	p.want("snapshot", "", "")
	for i := range 50 {
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: fmt.Sprint("gpu-", i), Time: time.Now(), ModelTypes: []string{"ü\"<&"}})
		a, b := l.next(), p.want("event", "", "")
		if a.data != string(b.Data) {
			t.Fatalf("%s over SSE, %s over WebSocket", a.data, b.Data)
		}
	}
}

func TestAWebSocketResumesAsAStreamDoes(t *testing.T) {
	w := newWorld(t)
	l := w.listen("")
	shot := l.want("snapshot", "")
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a"})
	p := w.connect()
	p.send(`{"type":"subscribe","data":{"last_event_id":"` + shot.id + `"}}`)
	p.want("answer", "", "")
	p.want("event", "", `"a"`)
	p.send(`{"type":"subscribe","data":{"last_event_id":"other-1"}}`)
	p.want("answer", "", "")
	p.want("lost", "", `"restart"`)
	p.want("snapshot", "", "")
}

// raw is a connection of the other library's, which lets a test write any
// frame.
func (w *world) raw() net.Conn {
	w.Helper()
	conn, _, _, err := ws.Dial(w.Context(), "ws"+strings.TrimPrefix(w.server.URL, "http")+"/ws")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// readFrame reads a frame of a server, which has no mask.
func readFrame(c net.Conn) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(c); err != nil {
		return f, err
	}
	f.Payload = make([]byte, min(f.Header.Length, 1<<20))
	_, err = io.ReadFull(c, f.Payload)
	return f, err
}

// A second client library speaks to us in every form that frames may have.
func TestFramesOfEveryForm(t *testing.T) {
	write := func(c net.Conn, frames ...ws.Frame) {
		for _, f := range frames {
			if err := ws.WriteFrame(c, ws.MaskFrame(f)); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := func(fin bool, op ws.OpCode, s string) ws.Frame { return ws.NewFrame(op, fin, []byte(s)) }
	// code is the close code with which the server ends, 0 if it answers first.
	code := func(c net.Conn) (ws.StatusCode, string) {
		for {
			f, err := readFrame(c)
			switch {
			case err != nil:
				return 1, err.Error()
			case f.Header.OpCode == ws.OpClose:
				code, reason := ws.ParseCloseFrameData(f.Payload)
				return code, reason
			case f.Header.OpCode == ws.OpText && strings.Contains(string(f.Payload), `"answer"`):
				return 0, string(f.Payload)
			}
		}
	}
	const ping = `{"id":1,"type":"ping"}`
	for name, c := range map[string]struct {
		frames []ws.Frame
		want   ws.StatusCode
	}{
		"one frame":                         {[]ws.Frame{text(true, ws.OpText, ping)}, 0},
		"fragments":                         {[]ws.Frame{text(false, ws.OpText, ping[:5]), text(false, ws.OpContinuation, ping[5:9]), text(true, ws.OpContinuation, ping[9:])}, 0},
		"a ping between fragments":          {[]ws.Frame{text(false, ws.OpText, ping[:5]), text(true, ws.OpPing, "x"), text(true, ws.OpContinuation, ping[5:])}, 0},
		"an empty last fragment":            {[]ws.Frame{text(false, ws.OpText, ping), text(true, ws.OpContinuation, "")}, 0},
		"a multibyte character in two":      {[]ws.Frame{text(false, ws.OpText, "{\"id\":\"\xc3"), text(true, ws.OpContinuation, "\xbc\",\"type\":\"ping\"}")}, 0},
		"a pong without a ping":             {[]ws.Frame{text(true, ws.OpPong, "x"), text(true, ws.OpText, ping)}, 0},
		"64 KiB less what frames it":        {[]ws.Frame{text(true, ws.OpText, `{"id":1,"type":"ping","data":"`+strings.Repeat("x", 64<<10-40)+`"}`)}, 0},
		"binary":                            {[]ws.Frame{text(true, ws.OpBinary, ping)}, ws.StatusUnsupportedData},
		"invalid UTF-8":                     {[]ws.Frame{text(true, ws.OpText, "{\"id\":\"\xff\"}")}, ws.StatusInvalidFramePayloadData},
		"oversized":                         {[]ws.Frame{text(true, ws.OpText, strings.Repeat("x", 65<<10))}, ws.StatusMessageTooBig},
		"oversized in fragments":            {[]ws.Frame{text(false, ws.OpText, strings.Repeat("x", 60<<10)), text(true, ws.OpContinuation, strings.Repeat("x", 60<<10))}, ws.StatusMessageTooBig},
		"a continuation of nothing":         {[]ws.Frame{text(true, ws.OpContinuation, ping)}, ws.StatusProtocolError},
		"a message within a message":        {[]ws.Frame{text(false, ws.OpText, ping[:5]), text(true, ws.OpText, ping)}, ws.StatusProtocolError},
		"a ping of more than 125 bytes":     {[]ws.Frame{text(true, ws.OpPing, strings.Repeat("x", 126))}, ws.StatusProtocolError},
		"a fragmented ping":                 {[]ws.Frame{text(false, ws.OpPing, "x")}, ws.StatusProtocolError},
		"an unknown opcode":                 {[]ws.Frame{text(true, 3, ping)}, ws.StatusProtocolError},
		"an unknown control opcode":         {[]ws.Frame{text(true, 11, "")}, ws.StatusProtocolError},
		"a reserved bit":                    {[]ws.Frame{{Header: ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: ws.OpText, Length: int64(len(ping))}, Payload: []byte(ping)}}, ws.StatusProtocolError},
		"a goodbye":                         {[]ws.Frame{ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "done"))}, ws.StatusNormalClosure},
		"a goodbye that is not UTF-8":       {[]ws.Frame{ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "\xff\xfe"))}, ws.StatusInvalidFramePayloadData},
		"a goodbye with a code that is not": {[]ws.Frame{ws.NewCloseFrame(ws.NewCloseFrameBody(999, ""))}, ws.StatusProtocolError},
	} {
		w := newWorld(t)
		conn := w.raw()
		write(conn, c.frames...)
		if got, said := code(conn); got != c.want {
			t.Errorf("%s: %d %.120s; want %d", name, got, said, c.want)
		}
		_ = conn.Close()
		w.until(name+": it is gone", func() bool { return w.value("websocket_connections") == 0 })
		faulty := c.want != 0 && c.want != ws.StatusNormalClosure
		if n := w.value("headway_live_dropped_total", "websocket", "invalid"); (n == 1) != faulty {
			t.Errorf("%s: %v counted as invalid", name, n)
		}
	}
}

func TestAnUnmaskedFrameEndsTheConnection(t *testing.T) {
	w := newWorld(t)
	conn := w.raw()
	if err := ws.WriteFrame(conn, ws.NewTextFrame([]byte(`{"type":"ping"}`))); err != nil {
		t.Fatal(err)
	}
	f, err := readFrame(conn)
	if err != nil || f.Header.OpCode != ws.OpClose {
		t.Fatalf("%+v, %v", f, err)
	}
	if code, _ := ws.ParseCloseFrameData(f.Payload); code != ws.StatusProtocolError {
		t.Errorf("closed with %d", code)
	}
}

func TestTheOtherLibraryCanDoAll(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	conn := w.raw()
	for i := range 100 {
		if err := wsutil.WriteClientText(conn, fmt.Appendf(nil, `{"id":%d,"type":"decide","data":{"model_type":"llama"}}`, i)); err != nil {
			t.Fatal(err)
		}
		raw, err := wsutil.ReadServerText(conn)
		if err != nil || !bytes.Contains(raw, fmt.Appendf(nil, `{"id":%d,"type":"answer"`, i)) {
			t.Fatalf("%s, %v", raw, err)
		}
	}
}

// A peer that is half gone reads nothing and answers no ping.
func TestASilentPeerIsDropped(t *testing.T) {
	w := newWorld(t, impatient)
	w.raw() // answers pings only when it is read
	w.until("it is dropped", func() bool { return w.value("websocket_connections") == 0 })
	if n := w.value("headway_live_dropped_total", "websocket", "silent"); n != 1 {
		t.Errorf("%v dropped as silent", n)
	}
}

func TestAPeerThatAnswersPingsStays(t *testing.T) {
	w := newWorld(t)
	p := w.connect()
	ctx := p.conn.CloseRead(t.Context())
	select {
	case <-ctx.Done():
		t.Error("it was dropped")
	case <-time.After(8 * quick.Heartbeat):
	}
	if n := w.value("websocket_connections"); n != 1 {
		t.Errorf("websocket_connections is %v", n)
	}
}

func TestAPeerThatDoesNotReadIsDropped(t *testing.T) {
	w := newWorld(t, impatient, func(o *live.Options) { o.Timing.Heartbeat = time.Hour })
	conn := w.raw()
	if err := wsutil.WriteClientText(conn, []byte(`{"type":"subscribe"}`)); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 60_000)
	w.until("it is dropped", func() bool {
		w.events.Publish(event.Event{Type: event.PolicyChanged, Data: big})
		return w.value("websocket_connections") == 0
	})
	if n := w.value("headway_live_dropped_total", "websocket", "slow"); n != 1 {
		t.Errorf("%v dropped as slow", n)
	}
}

func TestAFloodWaits(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.MaxRate = 200 })
	other := w.connect()
	p := w.connect()
	begin := time.Now()
	var wait sync.WaitGroup
	wait.Go(func() {
		for range 300 {
			p.send(`{"type":"ping"}`)
		}
	})
	other.send(`{"id":1,"type":"ping"}`)
	other.want("answer", "1", "")
	for range 300 {
		p.want("answer", "", "")
	}
	wait.Wait()
	if took := time.Since(begin); took < 400*time.Millisecond { // 200 at once, 100 at 200 a second
		t.Errorf("300 messages took %s", took)
	}
	if w.value("headway_live_throttled_total") == 0 {
		t.Error("nothing was counted")
	}
}

// Unsolicited pings and pongs wait as messages do: each costs an
// answer, or the look for who waits for it.
func TestAFloodOfPingsWaits(t *testing.T) {
	for name, op := range map[string]ws.OpCode{"pings": ws.OpPing, "pongs": ws.OpPong} {
		w := newWorld(t, func(o *live.Options) { o.MaxRate = 200 })
		conn := w.raw()
		var frames bytes.Buffer
		for range 300 {
			if err := ws.WriteFrame(&frames, ws.MaskFrame(ws.NewFrame(op, true, []byte("x")))); err != nil {
				t.Fatal(err)
			}
		}
		if err := ws.WriteFrame(&frames, ws.MaskFrame(ws.NewTextFrame([]byte(`{"id":1,"type":"ping"}`)))); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := conn.Write(frames.Bytes()); err != nil {
			t.Fatal(err)
		}
		for answered := false; !answered; {
			f, err := readFrame(conn)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			answered = f.Header.OpCode == ws.OpText
		}
		if took := time.Since(begin); took < 400*time.Millisecond { // 200 at once, 100 at 200 a second
			t.Errorf("300 %s took %s", name, took)
		}
		if w.value("headway_live_throttled_total") == 0 {
			t.Errorf("%s: nothing was counted", name)
		}
	}
}

// A message in fragments of nothing, which never ends and never gets too long,
// ends the connection; one in fragments of a byte each is a message.
func TestFragmentsOfNothing(t *testing.T) {
	w := newWorld(t)
	conn := w.raw()
	var frames bytes.Buffer
	put := func(f ws.Frame) {
		t.Helper()
		if err := ws.WriteFrame(&frames, ws.MaskFrame(f)); err != nil {
			t.Fatal(err)
		}
	}
	text := `{"id":1,"type":"ping","data":"` + strings.Repeat("x", 64<<10-40) + `"}`
	for i := range len(text) {
		op := ws.OpContinuation
		if i == 0 {
			op = ws.OpText
		}
		put(ws.NewFrame(op, i == len(text)-1, []byte{text[i]}))
	}
	if _, err := conn.Write(frames.Bytes()); err != nil {
		t.Fatal(err)
	}
	f, err := readFrame(conn)
	for err == nil && f.Header.OpCode == ws.OpPing {
		f, err = readFrame(conn)
	}
	if err != nil || f.Header.OpCode != ws.OpText || !bytes.Contains(f.Payload, []byte(`"answer"`)) {
		t.Fatalf("a message in fragments of a byte: %v %.200s, %v", f.Header, f.Payload, err)
	}
	frames.Reset()
	put(ws.NewFrame(ws.OpText, false, nil))
	for range 200_000 {
		put(ws.NewFrame(ws.OpContinuation, false, nil))
	}
	_, _ = conn.Write(frames.Bytes()) // the server closes in the middle
	for {
		f, err := readFrame(conn)
		if err != nil || f.Header.OpCode == ws.OpClose {
			break
		}
	}
	w.until("it is gone", func() bool { return w.value("websocket_connections") == 0 })
	if n := w.value("headway_live_dropped_total", "websocket", "invalid"); n != 1 {
		t.Errorf("%v dropped as invalid", n)
	}
}
