package httpapi_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"headway/api"
)

// bad is a request that must be refused, and the places that the refusal must
// name: pointers into the body, parameters, or nothing for the whole.
type bad struct {
	method, target, body string
	status               int
	at                   []string
}

const (
	postHead     = "POST /api/v1/heads"
	putStatus    = "PUT /api/v1/heads/a/status"
	patchHead    = "PATCH /api/v1/heads/a"
	postDecision = "POST /api/v1/decisions"
	postProgress = "POST /api/v1/decisions/DECISION/progress"
	postOutcome  = "POST /api/v1/decisions/DECISION/outcome"
)

// notJSON are bodies that no call takes.
var notJSON = []string{
	``, ` `, `{`, `}`, `{"`, `{"id"`, `{"id":`, `{"id":}`, `{"id":"x"`, `{"id":"x",}`, `{,}`, `{"id" "x"}`, `{id:"x"}`, `{'id':'x'}`,
	`null`, `true`, `1`, `"x"`, `[]`, `[{}]`, `nul`, `{"id":nul}`, `{"id":NaN}`, `{"id":Infinity}`, `{"id":01}`, `{"id":+1}`, `{"id":.5}`, `{"id":1.}`,
	`{"id":0x1}`, `{"id":"x"} {}`, `{"id":"x"}x`, `{"id":"x"}]`, "{\"id\":\"\x00\"}", "{\"id\":\"\n\"}", "{\"id\":\"\xff\"}", "{\"\xff\":1}",
	"\xef\xbb\xbf{}", "{\"id\":\"\xc0\x80\"}", "{\"id\":\"\xed\xa0\x80\"}", `{"id":"\ud800"}`, `{"id":"\x41"}`, `{"id":"\u12"}`, "{} \x00", "\x1f\x8b\x08",
	`{"id":"x","id":"x"}`, `{"region":"a","\u0072egion":"b"}`, `{"labels":{"a":"1","a":"2"}}`, `{"load":{"queued":1,"queued":1}}`, `{"zz":{"a":1,"a":1}}`,
	`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, `{"labels":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat("}", 40) + `}`,
	`{"a":` + strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000), strings.Repeat("[", 100_000),
	`<head id="x"/>`, `id=x&region=y`,
}

func long(n int) string { return strings.Repeat("x", n) }

// list is n times element in an array; %d in it becomes the index.
func list(n int, element string) string {
	var b strings.Builder
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strings.ReplaceAll(element, "%d", fmt.Sprint(i)))
	}
	return b.String() + "]"
}

// head is a registration with one more field, or another value of one.
func head(fields string) string {
	b := `"id":"b","endpoint":"http://10.0.0.1:8000","model_types":["m"],"region":"eu"`
	for field := range strings.SplitSeq(b, `,"`) {
		name, _, _ := strings.Cut(strings.Trim(field, `"`), `"`)
		if strings.Contains(fields, `"`+name+`":`) || name == "model_types" && strings.Contains(fields, `"model_type":`) {
			b = strings.Replace(b, strings.TrimPrefix(field, `"`), `"`, 1)
		}
	}
	b = strings.NewReplacer(`"",`, ``, `,""`, ``, `""`, ``).Replace(b)
	if b != "" {
		b += ","
	}
	return "{" + b + fields + "}"
}

func badInputs() []bad {
	var all []bad
	add := func(call, body string, status int, at ...string) {
		method, target, _ := strings.Cut(call, " ")
		all = append(all, bad{method, target, body, status, at})
	}
	fields := func(call string, rows map[string]string) {
		for body, at := range rows {
			add(call, body, 422, strings.Fields(at)...)
		}
	}
	for _, call := range []string{postHead, putStatus, patchHead, postDecision, postProgress, postOutcome} {
		for _, body := range notJSON {
			add(call, body, 400)
		}
		add(call, `{"a":"`+long(1<<20)+`"}`, 413)
	}
	all = append(all, badRegistrations()...)
	fields(putStatus, map[string]string{
		`{}`:                                               "/epoch /status",
		`{"epoch":null}`:                                   "/epoch /status",
		`{"epoch":0,"status":"active"}`:                    "/epoch",
		`{"epoch":-1,"status":"active"}`:                   "/epoch",
		`{"epoch":1.5,"status":"active"}`:                  "/epoch",
		`{"epoch":1e400,"status":"active"}`:                "/epoch",
		`{"epoch":99999999999999999999,"status":"active"}`: "/epoch",
		`{"epoch":"1","status":"active"}`:                  "/epoch",
		`{"epoch":[1],"status":"active"}`:                  "/epoch",
		`{"epoch":{"a":1},"status":"active"}`:              "/epoch",
		`{"epoch":true,"status":"active"}`:                 "/epoch",
		`{"epoch":1,"status":"Active"}`:                    "/status",
		`{"epoch":1,"status":""}`:                          "/status",
		`{"epoch":1,"status":"unknown"}`:                   "/status",
		`{"epoch":1,"status":1}`:                           "/status",
		`{"epoch":1,"status":"active","sequence":0}`:       "/sequence",
		`{"epoch":1,"status":"active","sequence":-1}`:      "/sequence",
		`{"epoch":1,"status":"active","load":[]}`:          "/load",
		`{"epoch":1,"status":"active","load":1}`:           "/load",
		`{"epoch":1,"status":"active","extra":1}`:          "/extra",
		`{"epoch":1,"status":"active","Epoch":1}`:          "/Epoch",
		`{"epoch":1,"status":"active","load":{"in_flight":-1,"queued":1.5,"pending_prompt_tokens":1e13,"kv_capacity_tokens":"1","kv_cache_usage":1.01,"utilization":-0.1,"tokens_per_second":1e10,"gpu":1}}`: "/load/in_flight /load/queued /load/pending_prompt_tokens /load/kv_capacity_tokens /load/kv_cache_usage /load/utilization /load/tokens_per_second /load/gpu",
		`{"epoch":1,"status":"active","load":{"utilization":1e400}}`: "/load/utilization",
		`{"epoch":1,"status":"active","load":{"utilization":"1"}}`:   "/load/utilization",
	})
	fields(patchHead, map[string]string{
		`{}`:                                   "",
		`{"admin_state":null}`:                 "",
		`{"admin_state":"off"}`:                "/admin_state",
		`{"admin_state":""}`:                   "/admin_state",
		`{"admin_state":1}`:                    "/admin_state",
		`{"weight":-1}`:                        "/weight",
		`{"weight":0.0001}`:                    "/weight",
		`{"weight":0}`:                         "/weight",
		`{"weight":1001}`:                      "/weight",
		`{"weight":"1"}`:                       "/weight",
		`{"labels":[]}`:                        "/labels",
		`{"labels":{"a":1}}`:                   "/labels/a",
		`{"labels":{"":"x"}}`:                  "/labels/",
		`{"labels":{"a/b~c":"\u0007"}}`:        "/labels/a~1b~0c",
		`{"labels":{"a":"` + long(129) + `"}}`: "/labels/a",
		`{"region":"us"}`:                      "/region",
		`{"status":"active"}`:                  "/status",
	})
	fields(postDecision, map[string]string{
		`{}`:                                 "/model_type",
		`{"model_type":""}`:                  "/model_type",
		`{"model_type":null}`:                "/model_type",
		`{"model_type":1}`:                   "/model_type",
		`{"model_type":["m"]}`:               "/model_type",
		`{"model_type":"` + long(129) + `"}`: "/model_type",
		`{"model_type":"m","region":"` + long(65) + `"}`:                                                 "/region",
		`{"model_type":"m","region":1}`:                                                                  "/region",
		`{"model_type":"m","region_mode":"nearest"}`:                                                     "/region_mode",
		`{"model_type":"m","region_mode":""}`:                                                            "/region_mode",
		`{"model_type":"m","region_mode":true}`:                                                          "/region_mode",
		`{"model_type":"m","region_mode":"require"}`:                                                     "/region",
		`{"model_type":"llama-3.1-8b","strategy":"best"}`:                                                "/strategy",
		`{"model_type":"m","strategy":"` + long(65) + `"}`:                                               "/strategy",
		`{"model_type":"m","session_key":"` + long(257) + `"}`:                                           "/session_key",
		`{"model_type":"m","session_key":5}`:                                                             "/session_key",
		`{"model_type":"m","session_id":"` + long(257) + `"}`:                                            "/session_id",
		`{"model_type":"m","session_id":["s"]}`:                                                          "/session_id",
		`{"model_type":"m","turn":-1}`:                                                                   "/turn",
		`{"model_type":"m","turn":1.5}`:                                                                  "/turn",
		`{"model_type":"m","turn":"1"}`:                                                                  "/turn",
		`{"model_type":"m","turn":1000000001}`:                                                           "/turn",
		`{"model_type":"m","expected_return_ms":-0.5}`:                                                   "/expected_return_ms",
		`{"model_type":"m","expected_return_ms":1000000001}`:                                             "/expected_return_ms",
		`{"model_type":"m","expected_return_ms":"1s"}`:                                                   "/expected_return_ms",
		`{"model_type":"m","prompt":["hi"]}`:                                                             "/prompt",
		`{"model_type":"m","prompt":{"role":"user"}}`:                                                    "/prompt",
		`{"model_type":"m","input_tokens":-1}`:                                                           "/input_tokens",
		`{"model_type":"m","input_tokens":1.5}`:                                                          "/input_tokens",
		`{"model_type":"m","input_tokens":1000000001}`:                                                   "/input_tokens",
		`{"model_type":"m","input_tokens":1e300}`:                                                        "/input_tokens",
		`{"model_type":"m","input_tokens":123456789012345678901234567890}`:                               "/input_tokens",
		`{"model_type":"m","input_tokens":"12"}`:                                                         "/input_tokens",
		`{"model_type":"m","explain":1}`:                                                                 "/explain",
		`{"model_type":"m","explain":"true"}`:                                                            "/explain",
		`{"model_type":"m","prefix_hashes":"ff"}`:                                                        "/prefix_hashes",
		`{"model_type":"m","prefix_hashes":["","xyz",null,1.5,-1,9007199254740993,"00112233445566778"]}`: "/prefix_hashes/0 /prefix_hashes/1 /prefix_hashes/2 /prefix_hashes/3 /prefix_hashes/4 /prefix_hashes/5 /prefix_hashes/6",
		`{"model_type":"m","prefix_hashes":` + list(4097, `"ff"`) + `}`:                                  "/prefix_hashes",
		`{"model_type":"m","exclude":{"a":1}}`:                                                           "/exclude",
		`{"model_type":"m","exclude":["","a/b",null,"` + long(129) + `"]}`:                               "/exclude/0 /exclude/1 /exclude/2 /exclude/3",
		`{"model_type":"m","exclude":` + list(257, `"h"`) + `}`:                                          "/exclude",
		`{"model_type":"m","labels":["x"]}`:                                                              "/labels",
		`{"model_type":"m","labels":{"a":null,"b":2}}`:                                                   "/labels/b",
		`{"model_type":"m","model":"m"}`:                                                                 "/model",
		`{"Model_Type":"m","model_type":"m"}`:                                                            "/Model_Type",
		`{"model_type":"m","a~/b":1}`:                                                                    "/a~0~1b",
		`{"region":7,"explain":7,"zz":7}`:                                                                "/region /explain /zz /model_type",
	})
	fields(postProgress, map[string]string{
		`{}`: "/event", `{"event":"last_token"}`: "/event", `{"event":1}`: "/event", `{"event":"first_token","at":1}`: "/at",
	})
	fields(postOutcome, map[string]string{
		`{}`:                                "/result",
		`{"result":"expired"}`:              "/result",
		`{"result":"OK"}`:                   "/result",
		`{"result":true}`:                   "/result",
		`{"result":"ok","status_code":99}`:  "/status_code",
		`{"result":"ok","status_code":600}`: "/status_code",
		`{"result":"ok","ttft_ms":-1,"duration_ms":1e12,"input_tokens":-1,"output_tokens":0.5,"cached_tokens":"1","cost":1}`: "/ttft_ms /duration_ms /input_tokens /output_tokens /cached_tokens /cost",
	})
	return append(all, badTargets()...)
}

func badRegistrations() []bad {
	var all []bad
	for fields, at := range map[string]string{
		`"id":null`:                              "/id",
		`"id":""`:                                "/id",
		`"id":1`:                                 "/id",
		`"id":"a/b"`:                             "/id",
		`"id":"a\\b"`:                            "/id",
		`"id":"../a"`:                            "/id",
		`"id":"."`:                               "/id",
		`"id":"a b"`:                             "/id",
		`"id":"a\u0000"`:                         "/id",
		`"id":"a\n"`:                             "/id",
		`"id":"héad"`:                            "/id",
		`"id":"a%2fb"`:                           "/id",
		`"id":"` + long(129) + `"`:               "/id",
		`"endpoint":""`:                          "/endpoint",
		`"endpoint":"10.0.0.1:8000"`:             "/endpoint",
		`"endpoint":"ftp://10.0.0.1:8000"`:       "/endpoint",
		`"endpoint":"file:///etc/passwd"`:        "/endpoint",
		`"endpoint":"http://u:p@10.0.0.1:8000"`:  "/endpoint",
		`"endpoint":"http://169.254.169.254:80"`: "/endpoint",
		`"endpoint":"http://10.0.0.1:8000/a\"b"`: "/endpoint",
		`"endpoint":"http://10.0.0.1:99999"`:     "/endpoint",
		`"endpoint":"http://` + long(512) + `"`:  "/endpoint",
		`"endpoint":["http://10.0.0.1:8000"]`:    "/endpoint",
		`"model_types":[]`:                       "/model_types",
		`"model_types":"m"`:                      "/model_types",
		`"model_types":["m","m"]`:                "/model_types/1",
		`"model_types":["m",1,"","a b",null]`:    "/model_types/1 /model_types/2 /model_types/3 /model_types/4",
		`"model_types":` + list(65, `"m%d"`):     "/model_types",
		`"model_type":"a b"`:                     "/model_type",
		`"model_type":"` + long(129) + `"`:       "/model_type",
		`"model_type":7`:                         "/model_type /model_types",
		`"model_type":"m","model_types":["m"]`:   "/model_type",
		`"region":""`:                            "/region",
		`"region":"a/b"`:                         "/region",
		`"region":"` + long(65) + `"`:            "/region",
		`"zone":"` + long(65) + `"`:              "/zone",
		`"zone":{}`:                              "/zone",
		`"version":"` + long(65) + `"`:           "/version",
		`"engine":"` + long(33) + `"`:            "/engine",
		`"weight":0`:                             "/weight",
		`"weight":-1`:                            "/weight",
		`"weight":1000.5`:                        "/weight",
		`"weight":1e999`:                         "/weight",
		`"weight":"1"`:                           "/weight",
		`"capacity":5`:                           "/capacity",
		`"capacity":{"max_in_flight":-1}`:        "/capacity/max_in_flight",
		`"capacity":{"max_in_flight":1000001}`:   "/capacity/max_in_flight",
		`"capacity":{"max_in_flight":0.5}`:       "/capacity/max_in_flight",
		`"capacity":{"gpus":1}`:                  "/capacity/gpus",
		`"labels":"x"`:                           "/labels",
		`"labels":{"a":{"b":"c"}}`:               "/labels/a",
		`"labels":{"` + long(64) + `":"c"}`:      "/labels/" + long(64),
		`"labels":{` + strings.Trim(strings.ReplaceAll(list(33, `"k%d"`), `",`, `":"",`), "[]") + `:""}`: "/labels",
		`"status":"ready"`:                       "/status",
		`"load":{}`:                              "/load",
		`"status":"active","load":{"queued":-1}`: "/load/queued",
		`"epoch":0`:                              "/epoch",
		`"sequence":1`:                           "/sequence",
		`"admin_state":"enabled"`:                "/admin_state",
		`"ID":"x"`:                               "/ID",
		`"id":"","region":"","endpoint":"","weight":-1,"zone":1,"what":1`: "/id /region /endpoint /weight /zone /what",
	} {
		all = append(all, bad{"POST", "/api/v1/heads", head(fields), 422, strings.Fields(at)})
	}
	return append(all, bad{"POST", "/api/v1/heads", `{}`, 422, []string{"/id", "/endpoint", "/model_types", "/region"}})
}

// badTargets are requests whose path or query is wrong.
func badTargets() []bad {
	var all []bad
	for _, id := range []string{"a%2Fb", "a%20b", "%00", "%ff", "h%C3%A9ad", "..%2Fa", "%2e%2e", "a%5Cb", "a;b", "a,b", "a@b", "*", "..a", "%7B%7D", "%0d%0aX:y", long(129)} {
		body := `{"epoch":1,"status":"active"}`
		all = append(all,
			bad{"GET", "/api/v1/heads/" + id, "", 422, []string{"id"}},
			bad{"DELETE", "/api/v1/heads/" + id, "", 422, []string{"id"}},
			bad{"PATCH", "/api/v1/heads/" + id, `{"weight":2}`, 422, []string{"id"}},
			bad{"PUT", "/api/v1/heads/" + id + "/status", body, 422, []string{"id"}},
			bad{"GET", "/api/v1/decisions/" + id, "", 422, []string{"id"}},
			bad{"POST", "/api/v1/decisions/" + id + "/progress", `{"event":"first_token"}`, 422, []string{"id"}},
			bad{"POST", "/api/v1/decisions/" + id + "/outcome", `{"result":"ok"}`, 422, []string{"id"}},
		)
	}
	for query, at := range map[string]string{
		"limit=0": "limit", "limit=-1": "limit", "limit=1001": "limit", "limit=ten": "limit", "limit=": "limit", "limit=1e2": "limit",
		"limit=99999999999999999999": "limit", "limit=5&limit=6": "limit", "Limit=5": "Limit", "page=2": "page",
		"model_type=" + long(257): "model_type", "cursor=!!": "cursor", "cursor=aDo": "cursor", "cursor=eDph": "cursor",
		"cursor=aDphL2I": "cursor", "cursor=" + long(257): "cursor", "%ff=1": "\uFFFD", "a%00b=1": "a\x00b",
		"limit=0&offset=3": "limit offset", "%zz": "", "limit=5;x=1": "", "limit=%g0": "",
	} {
		all = append(all, bad{"GET", "/api/v1/heads?" + query, "", 422, strings.Fields(at)}, bad{"GET", "/api/v1/decisions?" + query, "", 422, strings.Fields(at)})
	}
	all = append(all,
		bad{"GET", "/api/v1/heads?status=Active", "", 422, []string{"status"}},
		bad{"GET", "/api/v1/heads?status=none&head=x", "", 422, []string{"status", "head"}},
		bad{"GET", "/api/v1/decisions?cursor=aDph", "", 422, []string{"cursor"}},   // of the list of heads
		bad{"GET", "/api/v1/heads?cursor=ZDox", "", 422, []string{"cursor"}},       // of the list of decisions
		bad{"GET", "/api/v1/decisions?cursor=ZDoxeA", "", 422, []string{"cursor"}}, // d:1x
		bad{"GET", "/api/v1/decisions?cursor=ZDow", "", 422, []string{"cursor"}},   // d:0
		bad{"GET", "/api/v1/decisions?region=eu", "", 422, []string{"region"}},
		bad{"GET", "/api/v1/strategies?name=x", "", 422, []string{"name"}},
		bad{"GET", "/api/v1/strategies?window=61m", "", 422, []string{"window"}},
		bad{"GET", "/api/v1/strategies?window=90s", "", 422, []string{"window"}},
		bad{"GET", "/api/v1/strategies?window=15", "", 422, []string{"window"}},
		bad{"GET", "/api/v1/policy?revision=1", "", 422, []string{"revision"}},
		bad{"GET", "/api/v1/heads/a?verbose=1", "", 422, []string{"verbose"}},
		bad{"DELETE", "/api/v1/heads/a?force=true", "", 422, []string{"force"}},
		bad{"POST", "/api/v1/decisions?explain=true", `{"model_type":"llama-3.1-8b"}`, 422, []string{"explain"}},
		bad{"PUT", "/api/v1/heads/a/status?epoch=1", `{"epoch":1,"status":"active"}`, 422, []string{"epoch"}},
	)
	for _, target := range []string{
		"/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/heads/", "/api/v1/heads//", "/api/v1/heads//status", "/api/v1/heads/a/", "/api/v1/heads/a/status/",
		"/api/v1/heads/a/b", "/api/v1/headss", "/api/v1/Heads", "/api/v2/heads", "//api/v1/heads", "/api//v1/heads", "/api/v1/./heads", "/api/v1/heads/..",
		"/api/v1/decisions/", "/api/v1/decisions/x/", "/api/v1/decisions/x/y", "/metrics/", "/livez/", "/index.html", "/.git/config", "/%2e%2e/etc/passwd",
		"/favicon.ico", "/%00", "/*", "/" + long(9000),
	} {
		for _, method := range []string{"GET", "POST", "DELETE", "BREW"} {
			all = append(all, bad{method, target, "", 404, nil})
		}
	}
	return all
}

// For each fault of a request the answer is a problem that names where,
// and nothing else happens: no change, no error in the log, and no series that
// was not there.
func TestBadInputChangesNothing(t *testing.T) {
	c := theContract(t)
	w := newWorld(t)
	lease := w.register("a").Lease
	decision := w.decide(`{"model_type":"llama-3.1-8b"}`).DecisionID
	requests := badInputs()
	ask := func(b bad) *answer {
		return w.do(b.method, strings.Replace(b.target, "DECISION", decision, 1), strings.Replace(b.body, `"epoch":1,`, fmt.Sprintf(`"epoch":%d,`, lease.Epoch), 1))
	}
	// A write of its own follows a head's first healthy report; this one comes
	// behind it.
	was := into[api.Head](t, w.must(http.StatusOK, "PATCH", "/api/v1/heads/a", `{"admin_state":"enabled"}`))
	saves := w.store.Counts().Saves
	for _, b := range requests {
		a := ask(b)
		name := fmt.Sprintf("%s %.120s %.200s", b.method, b.target, b.body)
		if a.status != b.status || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %.300s; want %d", name, a.status, a.body, b.status)
			continue
		}
		var p api.Problem
		if err := json.Unmarshal(a.body, &p, json.RejectUnknownMembers(true)); err != nil || p.Code == "" || p.Detail == "" {
			t.Errorf("%s: %v in %s", name, err, a.body)
		}
		if b.status == 422 {
			var at []string
			for _, f := range p.Errors {
				if at = append(at, f.Pointer+f.Parameter); f.Reason == "" || len(f.Reason) > 600 {
					t.Errorf("%s: reason %q", name, f.Reason)
				}
			}
			want := slices.Clone(b.at)
			if len(want) == 0 {
				want = []string{""}
			}
			slices.Sort(at)
			if slices.Sort(want); !slices.Equal(at, want) {
				t.Errorf("%s: faults at %q; want %q: %s", name, at, want, a.body)
			}
		}
		if len(a.body) > 32<<10 {
			t.Errorf("%s: the answer has %d bytes", name, len(a.body))
		}
		c.problem(t, a)
	}

	if w.store.Counts().Saves != saves || w.router.Open() != 1 || w.router.Policy().Revision != 0 {
		t.Errorf("%d writes, %d reservations, policy %d", w.store.Counts().Saves-saves, w.router.Open(), w.router.Policy().Revision)
	}
	is := into[api.Head](t, w.must(http.StatusOK, "GET", "/api/v1/heads/a", ""))
	if is.Load.AgeMs = was.Load.AgeMs; !reflect.DeepEqual(is, was) {
		t.Errorf("the head is %+v; it was %+v", is, was)
	}
	if _, ended := must(w.router.Decision(decision)).Outcome(); ended || !must(w.router.Decision(decision)).FirstTokenAt().IsZero() {
		t.Error("the decision was changed")
	}
	if text := w.log.String(); strings.Contains(text, "level=ERROR") || strings.Contains(text, "level=WARN") {
		t.Errorf("the log says %.2000s", text)
	}
	before := w.samples()
	for _, b := range requests {
		ask(b)
	}
	if after := w.samples(); !slices.Equal(before, after) {
		t.Errorf("series that were not there: %q", slices.DeleteFunc(after, func(s string) bool { return slices.Contains(before, s) }))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// samples are the names and labels of all series, sorted.
func (w *world) samples() []string {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += fmt.Sprintf(",%s=%q", l.GetName(), l.GetValue())
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// Every path that is there says for each other method which ones it has.
func TestWrongMethods(t *testing.T) {
	c := theContract(t)
	w := newWorld(t)
	allowed := map[string][]string{}
	for _, o := range w.server.Operations() {
		allowed[o.Pattern] = append(allowed[o.Pattern], o.Method)
		if o.Method == http.MethodGet {
			allowed[o.Pattern] = append(allowed[o.Pattern], http.MethodHead)
		}
		if slices.Contains(probes, o.Pattern) {
			allowed[o.Pattern] = append(allowed[o.Pattern], http.MethodOptions)
		}
	}
	for pattern, methods := range allowed {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
			if slices.Contains(methods, method) {
				continue
			}
			a := w.do(method, strings.NewReplacer("{id}", "x", "{n}", "x").Replace(pattern), "")
			w.problem(http.StatusMethodNotAllowed, api.CodeMethodNotAllowed, a)
			c.problem(t, a)
			got := strings.Split(a.header.Get("Allow"), ", ")
			slices.Sort(got)
			if slices.Sort(methods); !slices.Equal(got, methods) {
				t.Errorf("%s %s: Allow %q; want %q", method, pattern, got, methods)
			}
		}
	}
	for _, path := range []string{"/api/v1/heads", "/livez", "/metrics", "/"} {
		w.must(http.StatusOK, http.MethodHead, path, "")
	}
}

// counted counts what is read of it.
type counted struct {
	r    io.Reader
	read int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.read += n
	return n, err
}

func (c *counted) Close() error { return nil }

// endless is the body of a client that never stops.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func TestLargeBodiesAreNotReadFurtherThanTheLimit(t *testing.T) {
	w := newWorld(t)
	for _, target := range []string{"/api/v1/heads", "/api/v1/decisions"} {
		for length, most := range map[int64]int{
			-1:        1<<20 + 1, // chunked: the end is not known
			1<<20 + 1: 0,
			1 << 60:   0,
		} {
			body := &counted{r: endless{}}
			r := newRequest(t, http.MethodPost, target, "{}")
			r.Body, r.ContentLength = body, length
			a := w.ask(r)
			w.problem(http.StatusRequestEntityTooLarge, api.CodeTooLarge, a)
			if body.read > most || a.header.Get("Connection") != "close" {
				t.Errorf("%s with length %d: %d bytes were read; Connection: %s", target, length, body.read, a.header.Get("Connection"))
			}
		}
		// A compressed body may be a bomb; it is not even looked at.
		for _, header := range []string{"Content-Encoding", "Content-Type"} {
			r := newRequest(t, http.MethodPost, target, "{}")
			r.Header.Set(header, "gzip")
			r.Body = brokenBody{func() error { t.Errorf("%s: a body with %s gzip was read", target, header); return errors.New("read") }}
			w.problem(http.StatusUnsupportedMediaType, api.CodeUnsupportedMedia, w.ask(r))
		}
	}
	fits := `{"model_type":"m","prompt":"`
	fits += strings.Repeat("x", 1<<20-len(fits)-2) + `"}`
	w.problem(http.StatusNotFound, api.CodeUnknownModelType, w.do(http.MethodPost, "/api/v1/decisions", fits))
	w.problem(http.StatusRequestEntityTooLarge, api.CodeTooLarge, w.do(http.MethodPost, "/api/v1/decisions", fits+" "))
}
