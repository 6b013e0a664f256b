package openai_test

import (
	"strings"
	"testing"

	"headway/internal/openai"
)

// The name of a model is a word of the language, or of programs, too.
func TestARenamedModelIsNoWord(t *testing.T) {
	for in, want := range map[string]string{
		`{"error":{"message":"The default value of default is default","param":"default","code":"default","type":"default"}}`: "",
		`{"default" :1,"x" : {"default": "the default"}}`:                                                                     "",
		`{"model":"default","models":["default","default-2"],"id" :  "default"}`:                                              `{"model":"al/ias","models":["al/ias","default-2"],"id" :  "al/ias"}`,
		`{"detail":"no model 'default', \"default\" or ` + "`default`" + `"}`:                                                 `{"detail":"no model 'al/ias', \"al/ias\" or ` + "`al/ias`" + `"}`,
		`{"detail":"no “default”, ‘default’; 'default-2', 'my default'"}`:                                                     `{"detail":"no “al/ias”, ‘al/ias’; 'default-2', 'my default'"}`,
		"event: error\r\ndata: {\"model\":\"de\\u0066ault\",\"m\":\"'default'\"}\r\n\r\n":                                     "event: error\r\ndata: {\"model\":\"al/ias\",\"m\":\"'al/ias'\"}\r\n\r\n",
		`{"error":"default","message":"a \\\"default\\\" \\"}`:                                                                `{"error":"al/ias","message":"a \\\"default\\\" \\"}`,
		`{"a":"\u12","b":"\x","c":"d\u0065fault"}`:                                                                            `{"a":"\u12","b":"\x","c":"al/ias"}`,
		`{"error":"default", "message":"it has no end 'default'`:                                                              `{"error":"al/ias", "message":"it has no end 'default'`,
		`["default",{"status":"default","nested":{"code":["default"],"x":"default"}},"default"]`:                              `["al/ias",{"status":"default","nested":{"code":["default"],"x":"al/ias"}},"al/ias"]`,
	} {
		if want == "" {
			want = in
		}
		if got := string(openai.Rename([]byte(in), "default", "al/ias")); got != want {
			t.Errorf("%s\n became %s\n want %s", in, got, want)
		}
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
