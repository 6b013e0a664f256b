package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"headway/internal/proxy"
)

const ofTheHead = "key-of-the-head-1"

// No answer, of any status, kind and length, has the key that its head asks for, and
// nothing else of it changes.
func TestNoAnswerHasTheKeyOfItsHead(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.HeadKey = func(string) string { return ofTheHead } })
	flush := func(w http.ResponseWriter, text string) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
	}
	long := strings.Repeat("long ", 80<<10)
	p.script("a", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+ofTheHead {
			t.Error("the head did not get its key")
		}
		key, h := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), w.Header()
		status := 200
		_, _ = fmt.Sscan(r.Header.Get("X-Status"), &status)
		h.Set("X-Echo", "Bearer "+key)
		switch r.Header.Get("X-Kind") {
		case "text":
			h.Set("Content-Type", "text/plain")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "no "+key+".")
		case "json":
			h.Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":null,"you":"`+key+`"}`)
		case "long":
			text := `{"you":"` + long + key + long + `"}`
			h.Set("Content-Type", "application/json")
			h.Set("Content-Length", fmt.Sprint(len(text)))
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		case "parts":
			w.WriteHeader(status)
			for i := range key {
				flush(w, key[i:i+1])
			}
			flush(w, " key-of-the-head")
		case "events":
			say(w, roleEvent)
			say(w, strings.Replace(tokenEvent, `"x"`, `"`+key+`"`, 1))
			say(w, finishEvent+doneEvent)
		case "error event":
			say(w, roleEvent+tokenEvent)
			say(w, `data: {"error":{"message":"bad `+key+`"}}`+"\n\n")
		}
	})
	for _, path := range []string{"/heads/m/x", chatPath} {
		for _, kind := range []string{"text", "json", "long", "parts", "events", "error event"} {
			for _, status := range []int{200, 400, 404, 500} {
				if strings.Contains(kind, "event") && status != 200 || status == 500 && kind == "parts" {
					continue
				}
				body := chatBody
				if kind == "events" || kind == "error event" {
					body = streamBody
				}
				a := p.answer(path, body, "X-Kind", kind, "X-Status", fmt.Sprint(status))
				if bytes.Contains(a.body, []byte(ofTheHead)) || strings.Contains(fmt.Sprint(a.Header), ofTheHead) {
					t.Errorf("%s, %s, %d: the answer has the key: %v %.300s", path, kind, status, a.Header, a.body)
				}
				if a.StatusCode != status && status != 500 {
					t.Errorf("%s, %s, %d: %d %.300s", path, kind, status, a.StatusCode, a.body)
				}
				stars := strings.Repeat("*", len(ofTheHead))
				want := map[string]string{
					"parts": stars + " key-of-the-head", "long": `{"you":"` + long + stars + long + `"}`, "text": "no " + stars + ".",
				}[kind]
				if want != "" && status == 200 && string(a.body) != want {
					t.Errorf("%s, %s: %d bytes, want %d: %.300s", path, kind, len(a.body), len(want), a.body)
				}
			}
		}
	}
	p.settled()
}
