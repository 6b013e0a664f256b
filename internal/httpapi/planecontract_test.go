package httpapi_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Requests and answers of the data plane are as the description has them, errors too.
func TestTheDataPlaneIsAsDescribed(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	c := theContract(t)
	described := c.headers(t)
	for _, x := range []struct {
		method, path, body string
		status             int
		header             []string
	}{
		{"POST", chatPath, chatBody, 200, nil},
		{"POST", chatPath, streamBody, 200, nil},
		{"POST", "/v1/completions", `{"model":"m","prompt":"Hi","max_tokens":2}`, 200, nil},
		{"POST", "/v1/responses", `{"model":"m","input":"Hi","max_output_tokens":2}`, 200, nil},
		{"POST", "/v1/embeddings", `{"model":"m","input":"Hi"}`, 200, nil},
		{"POST", "/v1/rerank", `{"model":"m","query":"Hi","documents":["a","b"]}`, 200, nil},
		{"POST", "/v1/moderations", `{"model":"m","input":"Hi"}`, 200, nil},
		{"POST", "/v1/images/generations", `{"model":"m","prompt":"Hi"}`, 200, nil},
		{"POST", "/v1/messages", `{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"Hi"}]}`, 200, nil},
		{"POST", "/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`, 200, nil},
		{"POST", "/v1/tokenize", `{"model":"m","prompt":"Hi"}`, 200, nil},
		{"GET", "/v1/models", "", 200, nil},
		{"GET", "/v1/models/m", "", 200, nil},
		{"GET", "/v1/models/none", "", 404, nil},
		{"POST", chatPath, `{"model":"none","messages":[]}`, 404, nil},
		{"POST", chatPath, `{"model":"m","messages":"no list"}`, 400, nil},
		{"POST", chatPath, chatBody, 415, []string{"Content-Encoding", "gzip"}},
		{"POST", "/v1/messages", `{"model":"none","messages":[]}`, 404, nil},
		{"GET", "/heads/m/metrics", "", 200, nil},
		{"POST", "/heads/none/x", "{}", 404, nil},
	} {
		r, err := http.NewRequestWithContext(t.Context(), x.method, p.url+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		if x.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i < len(x.header); i += 2 {
			r.Header.Set(x.header[i], x.header[i+1])
		}
		res, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a := &answer{status: res.StatusCode, header: res.Header}
		a.body, err = io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		what := x.method + " " + x.path + " " + x.body
		if a.status != x.status {
			t.Errorf("%s answered %d: %.300s; want %d", what, a.status, a.body, x.status)
			continue
		}
		if strings.HasPrefix(x.path, "/v1/") {
			c.request(t, r, x.body)
			c.answer(t, r, a)
		} else if x.status != http.StatusOK {
			c.matches(t, what, a.body, "components", "schemas", "ClientError")
		}
		for name := range a.header {
			if strings.HasPrefix(name, "X-Headway-") && !slices.Contains(described, name) {
				t.Errorf("%s: the header %s of the answer is not described", what, name)
			}
		}
	}
}

// headers are the names of the headers of answers that are described.
func (c *contract) headers(t *testing.T) (names []string) {
	t.Helper()
	responses := c.raw.(map[string]any)["components"].(map[string]any)["responses"].(map[string]any)
	for name := range responses["Whole"].(map[string]any)["headers"].(map[string]any) {
		names = append(names, name)
	}
	return names
}

// The page and the description name the same headers, of requests and of answers.
func TestThePageAndTheDescriptionNameTheSameHeaders(t *testing.T) {
	page, err := os.ReadFile("../../docs/data-plane.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Headers\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var onPage []string
	for line := range strings.Lines(section) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| `x-") {
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				onPage = append(onPage, http.CanonicalHeaderKey(name[1]))
			}
		}
	}
	c := theContract(t)
	described := c.headers(t)
	for name, p := range c.document.Components.Parameters {
		if strings.HasPrefix(name, "Hint") && p.In == "header" {
			described = append(described, p.Name)
		}
	}
	slices.Sort(onPage)
	slices.Sort(described)
	if !slices.Equal(onPage, described) {
		t.Errorf("the page has %q, the description %q", onPage, described)
	}
}

// The error says how the clients of that API send a key.
func TestAMissingKeyIsAskedForAsTheAPIHasIt(t *testing.T) {
	p := newPlane(t)
	p.keysOf()
	for path, want := range map[string]string{
		chatPath:       "send it as Authorization: Bearer KEY",
		"/v1/messages": "send it as x-api-key: KEY or as Authorization: Bearer KEY",
	} {
		if a := p.answer(path, chatBody); a.StatusCode != http.StatusUnauthorized || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
}
