package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"headway/api"
	"headway/client"
	"headway/internal/app"
	"headway/internal/config"
	"headway/internal/local"
)

// exampleService is a whole service, with a message queue on a port. Examples
// cannot report a failure, so that it panics.
func exampleService() (url, queue string, stop func()) {
	dir, err := os.MkdirTemp("", "headway-example-")
	check(err)
	flags := pflag.NewFlagSet("headway", pflag.ContinueOnError)
	config.AddFlags(flags)
	c, err := config.Load(flags, nil, os.ReadFile)
	check(err)
	c.Listen, c.Queue.Listen, c.DataDir, c.HTTP.LameDuck = "127.0.0.1:0", "127.0.0.1:0", dir, time.Millisecond
	c.Audit.File, c.Redis.Mode = filepath.Join(dir, "audit.log"), "off"
	a, err := app.New(context.Background(), app.Options{Config: c, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler)})
	check(err)
	raw, err := os.ReadFile(filepath.Join(dir, local.File))
	check(err)
	var said local.Service
	check(json.Unmarshal(raw, &said))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	for begin := time.Now(); !queueRuns(said.URL); <-time.After(10 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			panic("the message queue is not ready")
		}
	}
	return said.URL, said.QueueURL, func() {
		cancel()
		check(<-ended)
		check(os.RemoveAll(dir))
	}
}

// queueRuns asks whether the queue takes commands and publishes events.
func queueRuns(url string) bool {
	c, err := client.New(url)
	check(err)
	defer c.Close()
	ready, err := c.Ready(context.Background())
	check(err)
	text, err := json.Marshal(ready)
	check(err)
	return strings.Contains(string(text), "the embedded server runs at")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// exampleHead registers a head that is ready at once, as an Agent would.
func exampleHead(c *client.Client) {
	_, err := c.Register(context.Background(), api.Registration{
		ID: "gpu-1", Endpoint: "http://10.0.0.1:8000", ModelTypes: []string{"llama-3.1-8b"}, Region: "eu-west",
		Status: client.StatusActive,
	})
	check(err)
}

// A client follows what happens, over Server-Sent Events: first the fleet as it
// is, then each event. A broken connection is made again.
func ExampleClient_Watch() {
	url, _, stop := exampleService()
	defer stop()
	c, err := client.New(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for n, err := range c.Watch(ctx, api.Subscription{Types: []string{"head.registered"}}) {
		switch {
		case err != nil: // asking again would not help: a wrong key, say
			fmt.Println(err)
			return
		case n.Snapshot != nil:
			fmt.Println(len(n.Snapshot.Heads), "heads")
			exampleHead(c)
		case n.Lost != nil:
			fmt.Println(n.Lost.Count, "events are missing; snapshots follow")
		default:
			fmt.Println(n.Event.Type, n.Event.Head, n.Event.Region)
			return
		}
	}
	// Output:
	// 0 heads
	// head.registered gpu-1 eu-west
}

// One WebSocket takes all that a head or a caller does, and events besides.
// Calls from many goroutines are under way at once.
func ExampleClient_OpenSocket() {
	url, _, stop := exampleService()
	defer stop()
	c, err := client.New(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := c.OpenSocket(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	if err := s.Subscribe(ctx, api.Subscription{Types: []string{"head.routable"}}); err != nil {
		fmt.Println(err)
		return
	}
	done, err := s.Register(ctx, api.Registration{ID: "gpu-1", Endpoint: "http://10.0.0.1:8000", ModelTypes: []string{"llama-3.1-8b"}, Region: "eu-west"})
	if err == nil {
		_, err = s.Report(ctx, "gpu-1", api.StatusReport{Epoch: done.Lease.Epoch, Status: client.StatusActive})
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range s.Notices() { // closed with the connection; s.Err says why
		if n.Event != nil {
			fmt.Println(n.Event.Type, n.Event.Head)
			break
		}
	}
	d, err := s.Decide(ctx, api.DecisionRequest{ModelType: "llama-3.1-8b"})
	if err == nil {
		fmt.Println("ask", d.Head.Endpoint)
		err = s.ReportOutcome(ctx, d.DecisionID, api.Outcome{Result: client.ResultOK})
	}
	fmt.Println("error:", err)
	// Output:
	// head.routable gpu-1
	// ask http://10.0.0.1:8000
	// error: <nil>
}

// Over the message queue the bodies are those of HTTP, so that any NATS client
// and the types of headway/api are all it takes.
func Example_nats() {
	_, queue, stop := exampleService()
	defer stop()
	// With keys, nats.Token(key) and nats.CustomInboxPrefix("_INBOX."+keyID).
	nc, err := nats.Connect(queue)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	// ask sends a request, and reads the answer into out.
	ask := func(subject string, in, out any) error {
		body, err := json.Marshal(in)
		if err != nil {
			return err
		}
		m, err := nc.Request("headway.v1."+subject, body, 10*time.Second)
		if err != nil {
			return err
		}
		if code := m.Header.Get("Nats-Service-Error"); code != "" {
			return fmt.Errorf("%s: %s", code, m.Data) // an api.Problem
		}
		return json.Unmarshal(m.Data, out)
	}

	// Listen: each event is a CloudEvent whose data is an api.Event.
	events, err := nc.SubscribeSync("headway.v1.events.head.routable")
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	// A head registers and reports.
	var done api.RegistrationAnswer
	err = ask("heads.register", api.Registration{
		ID: "gpu-1", Endpoint: "http://10.0.0.1:8000", ModelTypes: []string{"llama-3.1-8b"}, Region: "eu-west",
	}, &done)
	if err == nil {
		var said api.StatusAnswer
		err = ask("heads.status", struct {
			ID string `json:"id"`
			api.StatusReport
		}{"gpu-1", api.StatusReport{Epoch: done.Lease.Epoch, Status: client.StatusActive}}, &said)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := events.NextMsg(10 * time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	var e struct{ Data api.Event }
	if err := json.Unmarshal(m.Data, &e); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Data.Type, e.Data.Head)

	// A caller decides, and says how it ended: into a stream, which acknowledges
	// what is on the disk.
	var d api.Decision
	if err := ask("decisions.request", api.DecisionRequest{ModelType: "llama-3.1-8b"}, &d); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ask", d.Head.Endpoint)
	var kept struct{ Stream string }
	err = ask("decisions.outcome", struct {
		DecisionID string `json:"decision_id"`
		api.Outcome
	}{d.DecisionID, api.Outcome{Result: client.ResultOK}}, &kept)
	fmt.Println("kept in", kept.Stream, err)
	// Output:
	// head.routable gpu-1
	// ask http://10.0.0.1:8000
	// kept in HEADWAY_COMMANDS <nil>
}
