package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"headway/internal/routing"
)

// An answer in JSON that ends in its middle, or has an error in it, is no success,
// of any size and framing, objects and lists alike. One that is whole is.
func TestAnswersOfAnySizeAreJudged(t *testing.T) {
	framings := map[string]func(w io.Writer, text string){
		"with its length": func(w io.Writer, text string) {
			fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		},
		"in chunks": func(w io.Writer, text string) {
			fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(text), text)
		},
		"without framing": func(w io.Writer, text string) {
			fmt.Fprintf(w, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n%s", text)
		},
	}
	for name, c := range map[string]struct {
		text string // with %s
		ok   bool
	}{
		"an object":                       {`{"object":"list","data":["%s"]}`, true},
		"an object and an end of line":    {"{\"data\":[\"%s\"]}\r\n", true},
		"a list":                          {`[{"index":0,"text":"%s ] } \" ,"},[1,{"a":[]}]]`, true},
		"a string":                        {`"%s"`, true},
		"no error":                        {`{"error":null,"data":["%s"],"x":{"error":{"message":"inner"}}}`, true},
		"an object that ends within":      {`{"object":"list","data":["%s"]`, false},
		"an object that ends within text": {`{"object":"list","data":["%s`, false},
		"a list that ends within":         {`[{"index":0,"text":"%s"},{"ind`, false},
		"a list that ends between":        {` [{"index":0,"text":"%s"}`, false},
		"a string that ends within":       {`"%s`, false},
		"an error behind":                 {`{"data":["%s"],"error":{"message":"out of memory"}}`, false},
		"an error that is long":           {`{"data":[],"error":{"message":"%s"}}`, false},
		"an error as text":                {`{"data":["%s"],"error":"out of memory"}`, false},
	} {
		for framing, write := range framings {
			for _, size := range []int{10, 300 << 10} {
				t.Run(fmt.Sprintf("%s, %s, %d bytes", name, framing, size), func(t *testing.T) {
					text := strings.Replace(c.text, "%s", strings.Repeat("x", size), 1)
					p := newPlane(t)
					p.registered("a", rawHead(t, func(c net.Conn, r *bufio.Reader) {
						if req, err := http.ReadRequest(r); err == nil {
							_, _ = io.Copy(io.Discard, req.Body)
							write(c, text)
						}
					}))
					a := p.answer("/v1/rerank", `{"model":"m","query":"a","documents":["a"]}`)
					p.settled()
					o, _ := p.decisionOf(a.Header).Outcome()
					whole := a.err == nil && a.StatusCode == http.StatusOK && bytes.Equal(a.body, []byte(text))
					if c.ok && (!whole || o.Result != routing.ResultOK) || !c.ok && !o.Blames() {
						t.Errorf("%d, %d bytes of %d, %v; the outcome is %+v", a.StatusCode, len(a.body), len(text), a.err, o)
					}
					if !c.ok && (size < 1000 && a.StatusCode != http.StatusBadGateway || size > 1000 && a.err == nil && framing != "with its length") {
						t.Errorf("%d, %d bytes of %d, %v", a.StatusCode, len(a.body), len(text), a.err)
					}
				})
			}
		}
	}
}

// An error without framing that ends in its middle is not made whole by a length of ours.
func TestAnErrorThatEndsWithinIsNotMadeWhole(t *testing.T) {
	for _, status := range []int{400, 429, 500} {
		p := newPlane(t)
		p.registered("a", rawHead(t, func(c net.Conn, r *bufio.Reader) {
			if req, err := http.ReadRequest(r); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				fmt.Fprintf(c, "HTTP/1.0 %d No\r\nContent-Type: application/json\r\n\r\n{\"error\":{\"message\":\"half", status)
			}
		}))
		a := p.answer(chatPath, chatBody)
		if a.StatusCode < 400 || bytes.Contains(a.body, []byte("half")) || !bytes.HasSuffix(a.body, []byte("}}")) {
			t.Errorf("%d: %d %s", status, a.StatusCode, a.body)
		}
	}
}

// An error that a head writes as events is the caller's as any other: it comes whole,
// with the status and the model's name that was asked for, and its end is clean.
func TestAnErrorAsEventsIsPassedOnWhole(t *testing.T) {
	const text = "data: {\"error\":{\"message\":\"'m' takes no images\",\"code\":400}}\n\n"
	for framing, head := range map[string]string{
		"with its length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(text), text),
		"in chunks":       fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(text), text),
	} {
		for _, model := range []string{"m", "alias"} {
			p := newPlane(t)
			p.registered("a", rawHead(t, func(c net.Conn, r *bufio.Reader) {
				if req, err := http.ReadRequest(r); err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/event-stream\r\n"+head)
				}
			}))
			p.apply(`{"default_strategy":"round_robin","aliases":{"alias":"m"}}`)
			a := p.answer(chatPath, `{"model":"`+model+`","messages":[],"stream":true}`)
			p.settled()
			o, _ := p.decisionOf(a.Header).Outcome()
			want := strings.Replace(text, "'m'", "'"+model+"'", 1)
			if a.err != nil || a.StatusCode != http.StatusBadRequest || string(a.body) != want || o.Result != routing.ResultError || o.Blames() {
				t.Errorf("%s, %s: %d %q, %v; the outcome is %+v", framing, model, a.StatusCode, a.body, a.err, o)
			}
		}
	}
}
