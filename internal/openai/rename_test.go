package openai_test

import (
	"strings"
	"testing"

	"headway/internal/openai"
)

// The name of a model is a word of the language, or of programs, too.
func TestARenamedModelIsNoWord(t *testing.T) {
	for in, want := range map[string]string{
		`{"error":{"message":"The default value of default is default","param":"default","code":"default","type":"default"}}`:                                    "",
		`{"default" :1,"x" : {"default": "the default"}}`:                                                                                                        "",
		`{"model":"default","models":["default","default-2"],"id" :  "default"}`:                                                                                 `{"model":"al/ias","models":["al/ias","default-2"],"id" :  "al/ias"}`,
		`{"detail":"no model 'default', \"default\" or ` + "`default`" + `"}`:                                                                                    `{"detail":"no model 'al/ias', \"al/ias\" or ` + "`al/ias`" + `"}`,
		`{"detail":"no “default”, ‘default’; 'default-2', 'my default'"}`:                                                                                        `{"detail":"no “al/ias”, ‘al/ias’; 'default-2', 'my default'"}`,
		"event: error\r\ndata: {\"model\":\"de\\u0066ault\",\"m\":\"'default'\"}\r\n\r\n":                                                                        "event: error\r\ndata: {\"model\":\"al/ias\",\"m\":\"'al/ias'\"}\r\n\r\n",
		`{"error":"default","message":"a \\\"default\\\" \\"}`:                                                                                                   `{"error":"al/ias","message":"a \\\"default\\\" \\"}`,
		`{"a":"\u12","b":"\x","c":"d\u0065fault"}`:                                                                                                               `{"a":"\u12","b":"\x","c":"al/ias"}`,
		`{"error":"default", "message":"it has no end 'default'`:                                                                                                 `{"error":"al/ias", "message":"it has no end 'default'`,
		`["default",{"status":"default","nested":{"code":["default"],"x":"default"}},"default"]`:                                                                 `["al/ias",{"status":"default","nested":{"code":["default"],"x":"al/ias"}},"al/ias"]`,
		`{"detail":[{"loc":["body"],"input":{"mod\u0065l":"default","messages":[{"role":"default","content":"default","text" : "default","name":"default"}]}}]}`: `{"detail":[{"loc":["body"],"input":{"mod\u0065l":"al/ias","messages":[{"role":"default","content":"default","text" : "default","name":"al/ias"}]}}]}`,
		`{"arguments":"{\"city\":\"default\"}","content":"what is 'default'","code":"'default'","message":"'default'"}`:                                          `{"arguments":"{\"city\":\"default\"}","content":"what is 'default'","code":"'default'","message":"'al/ias'"}`,
		`{"c\u006fde":"default","rol\u0065":"default","\u12":"default"}`:                                                                                         `{"c\u006fde":"default","rol\u0065":"default","\u12":"al/ias"}`,
	} {
		if want == "" {
			want = in
		}
		if got := string(openai.Rename([]byte(in), "default", "al/ias")); got != want {
			t.Errorf("%s\n became %s\n want %s", in, got, want)
		}
	}
}

// Of an answer the value of its own model changes and nothing else: no text, role, key or
// argument that is the same word, and no model of an object within. Each split into two
// pieces, and single bytes, give the same.
func TestOnlyTheModelOfAnAnswerIsRenamed(t *testing.T) {
	const text = `{"id":"m","object":"m","model":"m","mod\u0065l":"\u006d","\u006d\u006f\u0064\u0065\u006c" : "m","model\"":"m","\\model":"m","m":"model","models":["m",{"model":"m"}],` +
		`"xmod\u0065l":"m","\u006d\u006f\u0064\u0065\u006cs":"m","choices":[{"role":"m","message":{"role":"m","model":"m","content":"m","mod\u0065l":"m","tool_calls":[{"function":{"name":"m","arguments":"{\"model\":\"m\"}"}}]}}],` +
		`"metadata":{"model":"m"},"note":"\"model\":\"m\"","us\u0061ge":{"prompt_tokens":3,"completion_tokens":4},"model":["m"],"model":{"model":"m"},"model":null}`
	want := strings.NewReplacer(`"object":"m","model":"m","mod\u0065l":"\u006d"`, `"object":"m","model":"al","mod\u0065l":"al"`, `\u006c" : "m"`, `\u006c" : "al"`).Replace(text)
	check := func(borders []int) {
		t.Helper()
		a := &openai.Answer{Endpoint: chat, Model: "al"}
		if got := pass(a, text, borders); got != want || a.Longer() != len(want)-len(text) || a.Usage() != (openai.Usage{Input: 3, Output: 4, Cached: openai.Unknown}) {
			t.Fatalf("in pieces at %d: usage %+v\n%s\nwant\n%s", borders, a.Usage(), got, want)
		}
	}
	each(len(text), check)
	if a := (&openai.Answer{Endpoint: chat}); pass(a, `{"err\u006fr":{"message":"x"}}`, nil) == "" || !a.Failed() {
		t.Error("an error by an escaped name is none")
	}
}

// each calls f with no border, with each one, and with all of a text of n bytes.
func each(n int, f func(borders []int)) {
	f(nil)
	var all []int
	for at := 1; at < n; at++ {
		f([]int{at})
		all = append(all, at)
	}
	f(all)
}

// The same of the events of a stream, where the response or message that an event is about
// has a model too.
func TestOnlyTheModelOfAnEventIsRenamed(t *testing.T) {
	for _, c := range []struct {
		at         *openai.Endpoint
		text, want string
	}{
		{
			chat,
			`data: {"id":"m","model":"m","choices":[{"index":0,"delta":{"role":"m","content":"m","model":"m"}}],"metadata":{"model":"m"}}` + "\n\n" +
				`data: {"mod\u0065l":"\u006d","choices":[{"delta":{"tool_calls":[{"function":{"name":"m","arguments":"{\"model\":\"m\"}"},"model":"m"}]}}]}` + "\r\n\r\n" +
				`data: {"choices":[{"delta":{"content":"\"model\":\"m\""}}],"model":["m"]}` + "\n\n: \"model\":\"m\"\n\ndata: \"model\":\"m\"\n\n",
			`data: {"id":"m","model":"al","choices":[{"index":0,"delta":{"role":"m","content":"m","model":"m"}}],"metadata":{"model":"m"}}` + "\n\n" +
				`data: {"mod\u0065l":"al","choices":[{"delta":{"tool_calls":[{"function":{"name":"m","arguments":"{\"model\":\"m\"}"},"model":"m"}]}}]}` + "\r\n\r\n" +
				`data: {"choices":[{"delta":{"content":"\"model\":\"m\""}}],"model":["m"]}` + "\n\n: \"model\":\"m\"\n\ndata: \"model\":\"m\"\n\n",
		},
		{
			responses,
			"event: response.created\ndata: " + `{"type":"response.created","response":{"model":"m","tools":[{"model":"m"}],"metadata":{"model":"m"},"output":[{"role":"m","content":"m"}],"response":{"model":"m"}}}` + "\n\n",
			"event: response.created\ndata: " + `{"type":"response.created","response":{"model":"al","tools":[{"model":"m"}],"metadata":{"model":"m"},"output":[{"role":"m","content":"m"}],"response":{"model":"m"}}}` + "\n\n",
		},
		{
			messages,
			`data: {"type":"message_start","message":{"role":"m","mod\u0065l":"m","content":[{"type":"tool_use","name":"m","input":{"model":"m"}}]}}` + "\n\n",
			`data: {"type":"message_start","message":{"role":"m","mod\u0065l":"al","content":[{"type":"tool_use","name":"m","input":{"model":"m"}}]}}` + "\n\n",
		},
	} {
		each(len(c.text), func(borders []int) {
			t.Helper()
			if got, _, _ := run(&openai.Stream{Endpoint: c.at, Model: "al"}, c.text, borders); got != c.want {
				t.Fatalf("in pieces at %d:\n%s\nwant\n%s", borders, got, c.want)
			}
		})
	}
}

// What is made of an error is still one by any names.
func TestARenamedErrorIsJSON(t *testing.T) {
	e := openai.Error{Status: 404, Message: "no \"message\" and 'message'\n"}
	in := e.Append(nil, openai.OpenAI, "")
	for _, to := range []string{`a"b`, `\`, "a\nb", "é", ""} {
		got := openai.Rename(in, "message", to)
		if !valid(got) {
			t.Errorf("%q gives %s", to, got)
		}
	}
}

func FuzzRename(f *testing.F) {
	f.Add([]byte(`{"model":"m","a":"no 'm', \"m\" \u12"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := openai.Rename(text, "m", "m"); valid(text) && !valid(got) {
			t.Fatalf("%q became %q", text, got)
		}
		if got := openai.Rename(text, "not in it", "x"); string(got) != string(text) && !strings.Contains(string(text), `\`) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
