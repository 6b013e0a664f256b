package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	streamedChunk = `data: {"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"x"}}]}` + "\n\n"
	streamedEnd   = `data: {"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
)

// A stream that is open at SIGTERM completes; readiness fails at once, and after the
// lame duck no new request is taken.
func TestPitfallP32AStreamOutlastsSIGTERM(t *testing.T) { outlastSIGTERM(t, 8, 100*time.Millisecond) }

func TestSoakAStreamOf30SecondsOutlastsSIGTERM(t *testing.T) {
	if *soak == 0 {
		t.Skip("TestPitfallP32AStreamOutlastsSIGTERM is its short form")
	}
	outlastSIGTERM(t, 30, time.Second)
}

func outlastSIGTERM(t *testing.T, chunks int, every time.Duration) {
	refused := make(chan struct{}) // new requests are
	head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flush := http.NewResponseController(w)
		for n := range chunks {
			if n == chunks/2 {
				<-refused // however slow this machine is
			}
			_, _ = io.WriteString(w, streamedChunk)
			_ = flush.Flush()
			<-time.After(every)
		}
		_, _ = io.WriteString(w, streamedEnd)
	}))
	defer head.Close()
	p := serve(t, t.TempDir(), "--http-lame-duck", "2s", "--http-shutdown-timeout", "60s", "--lease-base-interval", "10m")
	p.must(http.StatusCreated, "POST", "/api/v1/heads", fmt.Sprintf(`{"id":"a","endpoint":%q,"model_types":["m"],"region":"eu","status":"active"}`, head.URL))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(stream bool) (*http.Response, error) {
		body := fmt.Sprintf(`{"model":"m","stream":%t,"messages":[{"role":"user","content":"go"}]}`, stream)
		return client.Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	}
	res, err := ask(true)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d %q %v", res.StatusCode, line, err)
	}
	stopped := time.Now()
	p.signal(syscall.SIGTERM)
	for ready := http.StatusOK; ready != http.StatusServiceUnavailable; {
		r, err := client.Get(p.url + "/readyz")
		if err != nil {
			t.Fatalf("readiness after %s: %v", time.Since(stopped), err)
		}
		ready = r.StatusCode
		r.Body.Close()
	}
	for {
		r, err := ask(false)
		if err != nil {
			break
		}
		r.Body.Close()
		if time.Since(stopped) > 30*time.Second {
			t.Fatal("new requests are taken long after the lame duck")
		}
		<-time.After(50 * time.Millisecond)
	}
	if took := time.Since(stopped); took < time.Second {
		t.Errorf("new requests were refused after %s, before the lame duck was over", took)
	}
	close(refused)
	rest, err := io.ReadAll(in)
	if got := strings.Count(string(rest), streamedChunk); err != nil || got != chunks-1 || !strings.HasSuffix(string(rest), streamedEnd) {
		t.Errorf("%d chunks of %d, then %v", got+1, chunks, err)
	}
	if err := <-p.exited; err != nil {
		t.Errorf("the service ended with %v", err)
	}
}
