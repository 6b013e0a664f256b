package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"headway/api"
	"headway/client"
	"headway/internal/local"
)

// announced is what the service says of itself.
func (p *process) announced() (said local.Service) {
	p.Helper()
	raw, err := os.ReadFile(filepath.Join(p.dataDir, local.File))
	if err == nil {
		err = json.Unmarshal(raw, &said)
	}
	if err != nil {
		p.Fatal(err)
	}
	return said
}

// natsTool builds the nats command of the Go module.
func natsTool(t *testing.T) string {
	t.Helper()
	tool, err := filepath.Abs("../../bin/nats")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "-C", "../../tools/nats", "build", "-o", tool, "github.com/nats-io/natscli/nats").CombinedOutput()
	if err != nil {
		t.Fatalf("the nats tool cannot be built; its modules have to be fetched once: %v\n%s", err, out)
	}
	return tool
}

// browser is a program that listens as a page in a browser does, with the
// EventSource and the WebSocket that there are of it for Node.
func browser(t *testing.T) (listen func(ctx context.Context, kind, url, types string) *exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/browser")); err != nil {
		t.Fatal(err)
	}
	debian(t, "node", "nodejs")
	debian(t, "npm", "npm")
	install := exec.CommandContext(t.Context(), "npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in cmd/headway/testdata/browser: %v\n%s", err, out)
	}
	return func(ctx context.Context, kind, url, types string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "node", "--no-warnings", "listen.mjs", kind, url, types)
		cmd.Dir = dir
		return cmd
	}
}

// A browser comes back by itself, and goes on where it was or learns that it
// cannot.
func TestABrowsersEventSourceComesBack(t *testing.T) {
	listen := browser(t)
	dir := t.TempDir()
	p := serve(t, dir)
	said := make(chan string, 1000)
	program(t, func(line string) { said <- line }, listen(t.Context(), "EventSource", p.url, "head.*"))
	want := func(parts ...string) {
		t.Helper()
		for _, part := range parts {
			select {
			case line := <-said:
				if !strings.HasPrefix(line, part) {
					t.Fatalf("it was told %.200s; want %s", line, part)
				}
			case <-time.After(patience):
				t.Fatalf("it was not told %s", part)
			}
		}
	}
	want("open", `snapshot {"part":1,"parts":1`)
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("a"))
	want("head.registered")
	for line := range said {
		if strings.HasPrefix(line, "head.routable") {
			break
		}
	}
	p.stop()
	want("bye")
	serve(t, dir, "--listen", strings.TrimPrefix(p.url, "http://"))
	want("open", `lost {"count":0,"reason":"restart"}`, `snapshot {"part":1,"parts":1`)
}

// watched collects the ids of events that one way of watching shows.
type watched struct {
	mu  sync.Mutex
	ids map[string][]string // by the name of the way
}

func (w *watched) add(way, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id != "" && !slices.Contains(w.ids[way], id) {
		w.ids[way] = append(w.ids[way], id)
	}
}

// common is the newest id that all of the ways have shown, "" if there is none.
func (w *watched) common(ways []string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range slices.Backward(w.ids[ways[0]]) {
		if !slices.ContainsFunc(ways, func(way string) bool { return !slices.Contains(w.ids[way], id) }) {
			return id
		}
	}
	return ""
}

// after are the ids that a way has shown after one of them.
func (w *watched) after(way, id string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ids[way][slices.Index(w.ids[way], id)+1:])
}

// program runs a program and hands each line that it prints on.
func program(t *testing.T, line func(string), cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line(lines.Text())
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
}

// idIn is the id of an event's JSON, at any place of the line.
func idIn(line string) string {
	at := strings.Index(line, `{"id":`)
	if at < 0 {
		return ""
	}
	var e api.Event
	if json.NewDecoder(strings.NewReader(line[at:])).Decode(&e) != nil || e.Type == "" {
		return ""
	}
	return e.ID
}

// Every way to watch shows the same events of a demo run: curl, our command,
// our Go client, a browser's EventSource and WebSocket, two WebSocket libraries of
// Go and the nats tool.
func TestEveryWayToWatchShowsTheSameEvents(t *testing.T) {
	tool, listen := natsTool(t), browser(t)
	p := serve(t, t.TempDir(), "--queue-listen", "127.0.0.1:0", "--lease-base-interval", "200ms")
	seen := &watched{ids: map[string][]string{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	program(t, func(line string) { seen.add("curl", idIn(strings.TrimPrefix(line, "data: "))) },
		exec.CommandContext(ctx, "curl", "-sN", p.url+"/api/v1/events?types=head.*"))
	program(t, func(line string) { seen.add("headway watch", idIn(line)) },
		command(t, "watch", "--json", "--types", "head.*", "--server", p.url))
	for _, kind := range []string{"EventSource", "WebSocket"} {
		program(t, func(line string) {
			_, data, _ := strings.Cut(line, " ")
			seen.add("a browser's "+kind, idIn(data))
		}, listen(ctx, kind, p.url, "head.*"))
	}
	c, err := client.New(p.url)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() {
		for n, err := range c.Watch(ctx, api.Subscription{Types: []string{"head.*"}}) {
			if err == nil && n.Event != nil {
				seen.add("the Go client", n.Event.ID)
			}
		}
	})
	const subscribe = `{"id":1,"type":"subscribe","data":{"types":["head.*"]}}`
	one, _, err := websocket.Dial(ctx, p.url+"/api/v1/ws", nil)
	if err == nil {
		err = one.Write(ctx, websocket.MessageText, []byte(subscribe))
	}
	if err != nil {
		t.Fatal(err)
	}
	one.SetReadLimit(1 << 20)
	running.Go(func() {
		defer func() { _ = one.CloseNow() }()
		for {
			_, raw, err := one.Read(ctx)
			if err != nil {
				return
			}
			seen.add("one WebSocket library", idIn(strings.TrimPrefix(string(raw), `{"type":"event","data":`)))
		}
	})
	two, _, _, err := ws.Dial(ctx, "ws"+strings.TrimPrefix(p.url, "http")+"/api/v1/ws")
	if err == nil {
		err = wsutil.WriteClientText(two, []byte(subscribe))
	}
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		defer func() { _ = two.Close() }()
		context.AfterFunc(ctx, func() { _ = two.Close() }) // a deadline would tear a message that has come in part
		for {
			raw, err := wsutil.ReadServerText(two)
			if err != nil {
				return
			}
			seen.add("the other", idIn(strings.TrimPrefix(string(raw), `{"type":"event","data":`)))
		}
	})
	program(t, func(line string) {
		if _, data, found := strings.Cut(line, `"data":`); found {
			seen.add("nats", idIn(data))
		}
	}, exec.CommandContext(ctx, tool, "--server", p.announced().QueueURL, "subscribe", "--raw", "headway.v1.events.head.>"))
	// What all have shown once, all have subscribed to: the events after it are
	// compared. Some of the programs take long to start.
	ways := []string{"curl", "headway watch", "the Go client", "a browser's EventSource", "a browser's WebSocket", "one WebSocket library", "the other", "nats"}
	begin := ""
	eventually(t, patience, "all watch", func() error {
		p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("probe"))
		p.must(http.StatusNoContent, "DELETE", "/api/v1/heads/probe", "")
		if sse, sockets := gauge(p, "sse_connections"), gauge(p, "websocket_connections"); sse != "4" || sockets != "3" {
			return fmt.Errorf("%s streams and %s WebSockets", sse, sockets)
		}
		begin = seen.common(ways)
		if begin == "" {
			return errors.New("no event was shown by all")
		}
		return nil
	})

	if out, err := command(t, "demo", "--server", p.url, "--plain", "--duration", "3s").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eventually(t, patience, "all have shown the same", func() error {
		want := seen.after(ways[0], begin)
		for _, way := range ways {
			if got := seen.after(way, begin); !slices.Equal(got, want) || len(got) < 8 {
				return fmt.Errorf("%s shows %d events %q, %s %d", way, len(got), got, ways[0], len(want))
			}
		}
		return nil
	})
}

// The nats tool finds the service, asks it, and sees why it refuses.
func TestTheNatsToolTalksToTheService(t *testing.T) {
	tool := natsTool(t)
	module, err := os.ReadFile("../../tools/nats/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/queue.md")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(module), "natscli v")
	version, _, _ = strings.Cut(version, " ")
	has(t, string(page), "go install github.com/nats-io/natscli/nats@v"+version+"`")
	p := serve(t, t.TempDir(), "--queue-listen", "127.0.0.1:0")
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("a"))
	queue := p.announced().QueueURL
	run := func(want string, args ...string) {
		t.Helper()
		eventually(t, patience, strings.Join(args, " "), func() error {
			out, err := exec.CommandContext(t.Context(), tool, append([]string{"--server", queue}, args...)...).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte(want)) {
				return fmt.Errorf("%w: %s; want %s", err, out, want)
			}
			return nil
		})
	}
	run("headway", "micro", "ls")
	run(`"unknown_model_type"`, "request", "--raw", "headway.v1.decisions.request", `{"model_type":"nobody"}`)
	run("HEADWAY_COMMANDS", "stream", "ls", "--names")
	run("Published", "publish", "headway.v1.decisions.outcome", `{"decision_id":"x","result":"ok"}`)
	eventually(t, patience, "the dead letter is listed", func() error {
		out, err := command(t, "queue", "ls", "--server", p.url).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("decision_not_found")) {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	for _, args := range [][]string{{"queue", "peek", "1"}, {"queue", "retry", "1"}, {"queue", "purge", "--all"}} {
		if out, err := command(t, append(args, "--server", p.url)...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// A watcher is notified that the service is away, and that it is back.
func TestWatchReportsTheConnection(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"watch", "--server", "http://127.0.0.1:1"}, &out, &errs); code != exitUnavailable || !strings.Contains(errs.String(), "connection refused") {
		t.Fatalf("exit code %d\n%s", code, &errs)
	}
	dir := t.TempDir()
	p := serve(t, dir)
	said := make(chan string, 100)
	watch := command(t, "watch", "--types", "policy.*", "--server", p.url)
	text, err := watch.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	t.Cleanup(func() { <-read })
	program(t, func(line string) { said <- line }, watch)
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(text); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	want := func(part string) {
		t.Helper()
		late := time.After(patience)
		for {
			select {
			case line := <-said:
				if strings.Contains(line, part) {
					return
				}
			case <-late:
				t.Fatalf("%q was not said", part)
			}
		}
	}
	want("0 heads")
	p.stop()
	want("the connection is lost")
	serve(t, dir, "--listen", strings.TrimPrefix(p.url, "http://"))
	want("connected again")
}
