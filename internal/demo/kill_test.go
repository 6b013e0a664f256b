package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"headway/internal/freeport"
)

// ask sends a completion to a head itself and returns what came of the answer.
func ask(t *testing.T, url, agent string, stream bool) (string, error) {
	t.Helper()
	body := `{"model":"m","max_tokens":200,"ignore_eos":true,"messages":[{"role":"user","content":"Hi"}]`
	if stream {
		body += `,"stream":true`
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body+"}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", agent)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// The head that answers a request from outside is killed in the middle of it: of a
// stream a part has come, of a whole answer nothing, so that another head can answer.
// Requests of the demo kill none.
func TestTheHeadThatAnswersAStrangerIsKilled(t *testing.T) {
	_, url := newFakeRouter(t)
	o := Options{Server: url, Heads: 1, Models: []string{"m"}, Speed: 100}
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	f := newHeads(&o, agents(t, &o))
	if err := f.startAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.stopAll(t.Context()) }()
	at := f.units[0].head.URL()
	for _, stream := range []bool{true, false} {
		f.arm()
		if text, err := ask(t, at, userAgent, stream); err != nil || states(f)[stateUp] != 1 {
			t.Fatalf("a request of the demo: %v, %v after %s", err, states(f), text)
		}
		text, err := ask(t, at, "OpenAI/Python", stream)
		if err == nil || strings.Contains(text, "[DONE]") || strings.Contains(text, `"content"`) != stream {
			t.Errorf("stream %v: %v, and %q came", stream, err, text)
		}
		awaitDown(t, f)
		_, notes := f.view()
		if last := notes[len(notes)-1].text; !strings.HasPrefix(last, "demo-1 killed in the middle of an answer") {
			t.Errorf("the last note is %q", last)
		}
		f.revive(t.Context(), "demo-1")
		if text, err := ask(t, at, "OpenAI/Python", stream); err != nil {
			t.Errorf("stream %v: the request after it fails: %v, %q", stream, err, text)
		}
	}
}

func awaitDown(t *testing.T, f *heads) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for states(f)[stateDown] != 1 {
		<-tick.C
	}
}

// A head whose port another process took starts on another.
func TestAHeadStartsThoughItsPortIsTaken(t *testing.T) {
	_, url := newFakeRouter(t)
	o := Options{Server: url, Heads: 1, Models: []string{"m"}}
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	f := newHeads(&o, agents(t, &o))
	if err := f.startAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.stopAll(t.Context()) }()
	before := f.units[0].addr
	f.kill()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", before)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f.revive(t.Context(), "demo-1")
	if got := f.units[0].addr; states(f)[stateUp] != 1 || got == before {
		t.Errorf("%v at %s, and %s is taken", states(f), got, before)
	}
}

// The heads alone are what the configuration of a service names: it is printed, and
// they answer there as vLLM does.
func TestHeadsAlone(t *testing.T) {
	first := freeport.Range(t, 2)
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- RunHeads(ctx, Options{Heads: 2, Models: []string{"Qwen/Qwen2.5-7B-Instruct"}, Ports: Ports{first, first + 1}, Faults: true}, in)
		in.Close()
	}()
	text := make([]byte, 4096)
	n, err := out.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	if line, _, _ := strings.Cut(string(text[:n]), "\n"); line != fmt.Sprintf("# Make gpu-1 go wrong: %s", breaking("http://"+Ports{first, first + 1}.address(0))) {
		t.Errorf("the first line is %q, want how gpu-1 goes wrong", line)
	}
	var file struct {
		Heads []struct{ ID, Endpoint, Engine, Region string }
	}
	if err := yaml.Unmarshal(bytes.TrimSpace(text[:n]), &file); err != nil || len(file.Heads) != 2 {
		t.Fatalf("%v in\n%s", err, text[:n])
	}
	connections := newConnections()
	defer connections.CloseIdleConnections()
	for i, h := range file.Heads {
		if want := "http://" + (Ports{first, first + 1}).address(i); h.Endpoint != want || h.Engine != "vllm" || h.Region == "" || h.ID == "" {
			t.Errorf("%+v, want it at %s", h, want)
		}
		for path, want := range map[string]string{"/health": "", "/v1/models": `Qwen/Qwen2\.5-7B-Instruct`, "/metrics": `(?m)^vllm:num_requests_running.* 0$`} {
			resp, err := connections.Get(h.Endpoint + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || !regexp.MustCompile(want).Match(body) {
				t.Errorf("%s: %d, %v, %s", path, resp.StatusCode, err, body)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
