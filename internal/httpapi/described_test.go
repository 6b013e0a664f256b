package httpapi_test

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"headway/internal/httpapi"
)

// contract is the description of the interface as clients get it. Schemas of
// OpenAPI 3.1 are JSON Schemas, so a validator of those holds requests and
// answers against it.
type contract struct {
	raw      any
	compiler *jsonschema.Compiler
	document document

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by JSON Pointer
}

// document is what the tests read of the description.
type document struct {
	OpenAPI    string              `json:"openapi"`
	Paths      map[string]pathItem `json:"paths"`
	Components struct {
		Schemas    map[string]schema    `json:"schemas"`
		Responses  map[string]content   `json:"responses"`
		Parameters map[string]parameter `json:"parameters"`
	} `json:"components"`
}

// pathItem has an operation for each method, and else parameters.
type pathItem struct {
	Get    *operation `json:"get"`
	Post   *operation `json:"post"`
	Put    *operation `json:"put"`
	Patch  *operation `json:"patch"`
	Delete *operation `json:"delete"`
}

// operations are those of the item, by method in lower case.
func (p pathItem) operations() map[string]operation {
	found := map[string]operation{}
	for method, op := range map[string]*operation{"get": p.Get, "post": p.Post, "put": p.Put, "patch": p.Patch, "delete": p.Delete} {
		if op != nil {
			found[method] = *op
		}
	}
	return found
}

type operation struct {
	ID          string             `json:"operationId"`
	Summary     string             `json:"summary"`
	Tags        []string           `json:"tags"`
	Parameters  []parameter        `json:"parameters"`
	RequestBody *content           `json:"requestBody"`
	Responses   map[string]content `json:"responses"`
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name     string `json:"name"`
	In       string `json:"in"`
	Required bool   `json:"required"`
	Schema   any    `json:"schema"`
}

type content struct {
	Ref     string         `json:"$ref"`
	Content map[string]any `json:"content"`
}

type schema struct {
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Enum       []any             `json:"enum"`
}

const describedAt = "https://headway.invalid/openapi.json"

var described = sync.OnceValues(func() (*contract, error) {
	raw, err := httpapi.OpenAPIJSON()
	if err != nil {
		return nil, err
	}
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	c.compiler.AssertFormat()
	if c.raw, err = jsonschema.UnmarshalJSON(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	if err := c.compiler.AddResource(describedAt, c.raw); err != nil {
		return nil, err
	}
	return c, json.Unmarshal(raw, &c.document)
})

func theContract(t testing.TB) *contract {
	t.Helper()
	c, err := described()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// compile returns the schema at a place of the description.
func (c *contract) compile(t testing.TB, names ...string) *jsonschema.Schema {
	t.Helper()
	pointer := ""
	for _, name := range names {
		pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.schemas[pointer]; s != nil {
		return s
	}
	s, err := c.compiler.Compile(describedAt + "#" + pointer)
	if err != nil {
		t.Fatalf("the schema at %s: %v", pointer, err)
	}
	c.schemas[pointer] = s
	return s
}

// operation finds what is described for a request: the template of its path
// and its method, in lower case.
func (c *contract) operation(r *http.Request) (template, method string, op operation, ok bool) {
	method = strings.ToLower(r.Method)
	for template, item := range c.document.Paths {
		if matched, _ := path.Match(strings.NewReplacer("{id}", "*", "{n}", "*").Replace(template), r.URL.Path); matched {
			op, ok = item.operations()[method]
			return template, method, op, ok
		}
	}
	return "", method, operation{}, false
}

// request wants a request that the description allows.
func (c *contract) request(t testing.TB, r *http.Request, body string) {
	t.Helper()
	template, method, op, ok := c.operation(r)
	if !ok {
		t.Errorf("%s %s is not described", r.Method, r.URL.Path)
		return
	}
	for name, values := range r.URL.Query() {
		c.query(t, r, op, name, values)
	}
	switch {
	case op.RequestBody == nil:
		if body != "" {
			t.Errorf("%s %s: a body is not described", r.Method, r.URL.Path)
		}
	default:
		where := []string{"paths", template, method, "requestBody"}
		if component, isRef := strings.CutPrefix(op.RequestBody.Ref, "#/components/requestBodies/"); isRef {
			where = []string{"components", "requestBodies", component}
		}
		c.matches(t, r.Method+" "+r.URL.Path+" asked", []byte(body), append(where, "content", "application/json", "schema")...)
	}
}

// query wants a query parameter that is described, with a value of its schema.
func (c *contract) query(t testing.TB, r *http.Request, op operation, name string, values []string) {
	t.Helper()
	at := slices.IndexFunc(op.Parameters, func(p parameter) bool {
		if component, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
			p = c.document.Components.Parameters[component]
		}
		return p.In == "query" && p.Name == name
	})
	if at < 0 || len(values) != 1 {
		t.Errorf("%s %s: the query parameter %s=%q is not described", r.Method, r.URL, name, values)
		return
	}
	template, method, _, _ := c.operation(r)
	where := []string{"paths", template, method, "parameters", strconv.Itoa(at), "schema"}
	if component, ok := strings.CutPrefix(op.Parameters[at].Ref, "#/components/parameters/"); ok {
		where = []string{"components", "parameters", component, "schema"}
	}
	value, err := json.Marshal(values[0])
	if n, notNumber := strconv.ParseInt(values[0], 10, 64); notNumber == nil {
		value, err = json.Marshal(n)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.matches(t, "query parameter "+name, value, where...)
}

// answer wants an answer that the description promises for the request.
func (c *contract) answer(t testing.TB, r *http.Request, a *answer) {
	t.Helper()
	template, method, op, ok := c.operation(r)
	if !ok {
		t.Errorf("%s %s is not described", r.Method, r.URL.Path)
		return
	}
	code := strconv.Itoa(a.status)
	response, known := op.Responses[code]
	if !known {
		code = "default"
		response, known = op.Responses[code]
	}
	where := []string{"paths", template, method, "responses", code}
	if component, isRef := strings.CutPrefix(response.Ref, "#/components/responses/"); isRef {
		response, known = c.document.Components.Responses[component]
		where = []string{"components", "responses", component}
	}
	what := fmt.Sprintf("%s %s answered %d", r.Method, r.URL, a.status)
	if !known {
		t.Errorf("%s, which is not described", what)
		return
	}
	if len(response.Content) == 0 || len(a.body) == 0 {
		if len(a.body) > 0 || len(response.Content) > 0 {
			t.Errorf("%s with %d bytes; described are the contents %v", what, len(a.body), response.Content)
		}
		return
	}
	mediaType, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if _, known := response.Content[mediaType]; err != nil || !known {
		t.Errorf("%s as %q; described is %v", what, a.header.Get("Content-Type"), response.Content)
		return
	}
	if strings.HasSuffix(mediaType, "/json") || strings.HasSuffix(mediaType, "+json") {
		c.matches(t, what, a.body, append(where, "content", mediaType, "schema")...)
	}
}

// matches wants JSON that fits the schema at a place of the description.
func (c *contract) matches(t testing.TB, what string, body []byte, where ...string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Errorf("%s %s: %v", what, body, err)
		return
	}
	if err := c.compile(t, where...).Validate(value); err != nil {
		t.Errorf("%s %s, which is not as described: %v", what, body, err)
	}
}

// problem wants a problem as the description has them, for requests that it
// does not have.
func (c *contract) problem(t testing.TB, a *answer) {
	t.Helper()
	c.answer(t, newRequest(t, http.MethodGet, "/api/v1/heads", ""), a)
}

// The schema of OpenAPI 3.1 documents is the OpenAPI Initiative's (Apache-2.0).
func TestDescriptionIsValid(t *testing.T) {
	c := theContract(t)
	if c.document.OpenAPI != "3.1.0" {
		t.Errorf("version %s; want 3.1.0", c.document.OpenAPI)
	}
	file, err := os.Open("testdata/openapi-3.1-schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	standard, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	const at = "https://headway.invalid/standard"
	if err := compiler.AddResource(at, standard); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(c.raw); err != nil {
		t.Error(err)
	}
	for name := range c.document.Components.Schemas {
		c.compile(t, "components", "schemas", name) // each is a JSON Schema, used or not
	}
}

// An answer that is not as described is noticed: the check can fail.
func TestWhatIsNotDescribedIsNoticed(t *testing.T) {
	c := theContract(t)
	jsonHeader := http.Header{"Content-Type": {"application/json"}}
	get := func(target string) *http.Request { return newRequest(t, http.MethodGet, target, "") }
	for name, check := range map[string]func(testing.TB){
		"an unknown path":      func(t testing.TB) { c.request(t, get("/api/v1/nothing"), "") },
		"an unknown parameter": func(t testing.TB) { c.request(t, get("/api/v1/heads?colour=red"), "") },
		"a wrong parameter":    func(t testing.TB) { c.request(t, get("/api/v1/heads?limit=0"), "") },
		"a wrong body": func(t testing.TB) {
			c.request(t, newRequest(t, http.MethodPost, "/api/v1/decisions", ""), `{"model_type":7}`)
		},
		"an answer without a field": func(t testing.TB) {
			c.answer(t, get("/api/v1/heads"), &answer{status: 200, header: jsonHeader, body: []byte(`{}`)})
		},
		"an answer of another type": func(t testing.TB) {
			c.answer(t, get("/api/v1/heads"), &answer{status: 200, header: http.Header{"Content-Type": {"text/plain"}}, body: []byte(`{}`)})
		},
		"no answer where one is described": func(t testing.TB) {
			c.answer(t, get("/api/v1/heads"), &answer{status: 200, header: jsonHeader})
		},
	} {
		seen := &recorder{TB: t}
		if check(seen); !seen.failed {
			t.Errorf("%s passes", name)
		}
	}
}

// recorder notes a failure instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }
