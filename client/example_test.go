package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"headway/api"
	"headway/client"
)

// exampleRouter stands for a router in the examples.
func exampleRouter() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const lease = `"lease":{"epoch":1,"ttl_seconds":30,"heartbeat_interval_seconds":10}}`
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/api/v1/heads":
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"head":{},`+lease)
		case strings.HasSuffix(r.URL.Path, "/status"):
			_, _ = io.WriteString(w, `{`+lease)
		case r.Method == http.MethodPost && r.URL.Path == "/api/v1/decisions":
			_, _ = io.WriteString(w, decisionBody)
		case r.Method == http.MethodGet && r.URL.Path == "/api/v1/heads":
			_, _ = io.WriteString(w, `{"data":[{"id":"gpu-1","status":"active"},{"id":"gpu-2","status":"draining"}],"next_cursor":""}`)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
}

// A head registers, and reports its load as often as the router asks for.
func ExampleClient_NewAgent() {
	router := exampleRouter()
	defer router.Close()
	c, err := client.New(router.URL, client.WithToken("hw_secret"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	agent, err := c.NewAgent(api.Registration{
		ID: "gpu-1", Endpoint: "http://10.0.0.1:8000", ModelTypes: []string{"llama-3.1-8b"}, Region: "eu-west",
	}, func() api.Load {
		running := int64(3) // of the inference engine
		return api.Load{InFlight: &running}
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	go agent.Run(context.Background())
	<-agent.Ready()
	fmt.Println("epoch", agent.State().Epoch)

	agent.Drain() // no new requests; finish the others, then leave
	if err := agent.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: epoch 1
}

// A caller lets Do find the head, try alternatives and report the outcome.
func ExampleClient_Do() {
	router := exampleRouter()
	defer router.Close()
	c, err := client.New(router.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	err = c.Do(context.Background(), api.DecisionRequest{ModelType: "m", SessionKey: "user-7"},
		func(_ context.Context, call *client.Call) error {
			fmt.Println("ask", call.Head.Endpoint, "for", call.ModelType)
			if call.Head.ID == "a" {
				return errors.New("connection refused")
			}
			call.FirstToken() // as the answer begins
			call.Status(http.StatusOK)
			return nil
		})
	fmt.Println("error:", err)
	// Output:
	// ask http://a for m-1
	// ask http://b for m-1
	// error: <nil>
}

// A caller that does the work itself reports how it ended.
func ExampleClient_Decide() {
	router := exampleRouter()
	defer router.Close()
	c, err := client.New(router.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	d, err := c.Decide(context.Background(), api.DecisionRequest{ModelType: "m"})
	switch {
	case errors.Is(err, client.ErrNoHead):
		fmt.Println("try later")
		return
	case err != nil:
		fmt.Println(err)
		return
	}
	fmt.Println(d.Head.ID, "or one of", len(d.Alternatives))
	if err := d.Outcome(context.Background(), api.Outcome{Result: client.ResultOK}); err != nil {
		fmt.Println(err)
	}
	// Output: a or one of 2
}

// Lists ask for their pages as they are needed.
func ExampleClient_Heads() {
	router := exampleRouter()
	defer router.Close()
	c, err := client.New(router.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	for head, err := range c.Heads(context.Background(), client.HeadQuery{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(head.ID, head.Status)
	}
	// Output:
	// gpu-1 active
	// gpu-2 draining
}
