package openai_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"headway/internal/openai"
)

func TestTheFieldsOfARequest(t *testing.T) {
	body := []byte(` {"messages": [{"role":"user","content":"hi \ud83d"}], "model":"m\u0031", "stream":true, "max_tokens":1.5, "Max_Tokens":7,
		"stream_options":{"x":1,"include_usage":false}, "n":"2", "user":"u", "prompt_cache_key":" ", "metadata":{"session_id":"s"}, "temperature":1e-3, "seed":12345678901234567890} `)
	var r openai.Request
	if err := openai.Scan(body, &r); err != nil {
		t.Fatal(err)
	}
	if r.Model != "m1" || !r.Stream || r.User != "u" || r.SessionKey != "s" || r.IncludeUsage != openai.False {
		t.Errorf("got %+v", r)
	}
	if got := string(r.Prompt[openai.PartMessages].Of(body)); got != `[{"role":"user","content":"hi \ud83d"}]` {
		t.Errorf("messages are %s", got)
	}
	if r.Prompt[openai.PartPrompt] != (openai.Span{}) {
		t.Errorf("a prompt was found where there is none")
	}
}

// A model that two readers read differently passes limits of one of them.
func TestPitfallP19JSONThatLiesIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ body, param string }{
		"twice":              {`{"model":"a","model":"b"}`, "model"},
		"other case":         {`{"model":"a","MODEL":"b"}`, "model"},
		"other case alone":   {`{"Model":"a"}`, "model"},
		"escaped twice":      {`{"model":"a","\u006dodel":"b"}`, "model"},
		"long s":             {`{"model":"a","me\u017f\u017fages":[]}`, "messages"},
		"Kelvin":             {"{\"model\":\"a\",\"prompt_cache_\u212aey\":\"\"}", "prompt_cache_key"},
		"include twice":      {`{"model":"a","stream_options":{"include_usage":true,"include_usage":false}}`, "stream_options.include_usage"},
		"include's case":     {`{"model":"a","stream_options":{"Include_Usage":true}}`, "stream_options.include_usage"},
		"no model":           {`{"stream":true}`, "model"},
		"null model":         {`{"model":null}`, "model"},
		"empty model":        {`{"model":""}`, "model"},
		"number":             {`{"model":1}`, "model"},
		"long model":         {`{"model":"` + strings.Repeat("a", openai.MaxModel+1) + `"}`, "model"},
		"stream":             {`{"model":"a","stream":"true"}`, "stream"},
		"options":            {`{"model":"a","stream_options":[]}`, "stream_options"},
		"session":            {`{"model":"a","metadata":{"session_id":1}}`, "metadata.session_id"},
		"trailing":           {`{"model":"a"}{}`, ""},
		"trailing NUL":       {"{\"model\":\"a\"}\x00", ""},
		"array":              {`["model"]`, ""},
		"nothing":            {``, ""},
		"bad UTF-8":          {"{\"model\":\"a\",\"x\":\"\xff\"}", ""},
		"overlong":           {"{\"model\":\"a\",\"x\":\"\xc0\xaf\"}", ""},
		"surrogate in UTF-8": {"{\"model\":\"a\",\"x\":\"\xed\xa0\x80\"}", ""},
		"control":            {"{\"model\":\"a\",\"x\":\"\n\"}", ""},
		"escape":             {`{"model":"a","x":"\x"}`, ""},
		"short escape":       {`{"model":"a","x":"\u12`, ""},
		"number form":        {`{"model":"a","x":01}`, ""},
		"literal":            {`{"model":"a","x":nul}`, ""},
		"comma":              {`{"model":"a",}`, ""},
		"depth":              {`{"model":"a","x":` + strings.Repeat("[", 256) + strings.Repeat("]", 256) + `}`, ""},
		"BOM":                {"\ufeff{\"model\":\"a\"}", ""},
	} {
		var r openai.Request
		err := openai.Scan([]byte(c.body), &r)
		if err == nil || err.Status != http.StatusBadRequest || err.Param != c.param {
			t.Errorf("%s: got %+v, want 400 with param %q", name, err, c.param)
		}
	}
}

// Strings are read many bytes at a time; a byte that matters is found at each
// place.
func TestEachByteOfAStringIsLookedAt(t *testing.T) {
	for length := range 80 {
		for at := range length {
			for text, ok := range map[string]bool{"\x1f": false, "\x00": false, "\x7f": true, "\x80": false, "é": true, `\q`: false, `\n`: true, `"`: false} {
				content := strings.Repeat("a", at) + text + strings.Repeat("~", length-at-1)
				var r openai.Request
				err := openai.Scan([]byte(`{"model":"a","x":"`+content+`"}`), &r)
				if (err == nil) != ok {
					t.Fatalf("%q at %d of %d: %v", text, at, length, err)
				}
			}
		}
	}
}

func TestWhatNoReaderNeedsPasses(t *testing.T) {
	for _, body := range []string{
		`{"model":"a","x":1,"x":2,"tools":[{"model":"b","model":"c"}]}`,
		`{"model":"a","stream":null,"stream_options":null,"user":null,"max_tokens":null,"n":null,"metadata":null}`,
		`{"model":"a","max_tokens":1.5,"Max_Tokens":"7","n":"1","user":{},"safety_identifier":5,"metadata":["x"]}`,
		`{"model":"a","user":"` + strings.Repeat("a", openai.MaxKey+1) + `","metadata":{"user_id":7}}`,
		`{"model":"a","x":` + strings.Repeat("[", 255) + strings.Repeat("]", 255) + `}`,
		`{"model":"` + strings.Repeat("a", openai.MaxModel) + `"}`,
	} {
		var r openai.Request
		if err := openai.Scan([]byte(body), &r); err != nil {
			t.Errorf("%.80s: %v", body, err)
		}
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ body, model, want, asked string }{
		{`{"model":"a"}`, "real", `{"model":"real"}`, `{"stream_options":{"include_usage":true},"model":"real"}`},
		{
			`{ "x":"a","model" : "a" ,"messages":[{"model":"a"}]}`, `q"`, `{ "x":"a","model" : "q\"" ,"messages":[{"model":"a"}]}`,
			`{"stream_options":{"include_usage":true}, "x":"a","model" : "q\"" ,"messages":[{"model":"a"}]}`,
		},
		{`{"model":"a","stream_options":{}}`, "", `{"model":"a","stream_options":{}}`, `{"model":"a","stream_options":{"include_usage":true}}`},
		{`{"stream_options":{"x":1},"model":"a"}`, "r", `{"stream_options":{"x":1},"model":"r"}`, `{"stream_options":{"include_usage":true,"x":1},"model":"r"}`},
		{`{"stream_options":null,"model":"a"}`, "a", `{"stream_options":null,"model":"a"}`, `{"stream_options":{"include_usage":true},"model":"a"}`},
		{`{"stream_options":{"include_usage":null},"model":"a"}`, "", `{"stream_options":{"include_usage":null},"model":"a"}`, `{"stream_options":{"include_usage":true},"model":"a"}`},
		{`{"stream_options":{"include_usage":false},"model":"a"}`, "", `{"stream_options":{"include_usage":false},"model":"a"}`, `{"stream_options":{"include_usage":false},"model":"a"}`},
	} {
		for want, ask := range map[string]bool{c.want: false, c.asked: true} {
			if c.want == c.asked {
				want = c.want
			}
			got, length := rewrite(t, []byte(c.body), c.model, ask)
			if got != want || length != len(got) {
				t.Errorf("%s to %q, usage asked %v: got %s (%d), want %s", c.body, c.model, ask, got, length, want)
			}
		}
	}
}

func rewrite(t interface{ Fatal(...any) }, body []byte, model string, ask bool) (string, int) {
	var r openai.Request
	before := bytes.Clone(body)
	if err := openai.Scan(body, &r); err != nil {
		t.Fatal(err)
	}
	pieces, length := r.Rewrite(nil, body, model, ask)
	if !bytes.Equal(before, body) {
		t.Fatal("the body was changed")
	}
	return string(bytes.Join(pieces, nil)), length
}

// What an alias changes is read back as the model; the rest is as it was.
func TestPitfallP18RewriteChangesTheModelOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pad := rapid.StringMatching(`[ \n]{0,3}`)
		name := rapid.StringN(1, 20, openai.MaxModel)
		model, alias := name.Draw(t, "model"), name.Draw(t, "alias")
		text := rapid.String().Draw(t, "text")
		quote := func(s string) string { b, _ := jsontext.AppendQuote(nil, s); return string(b) }
		front := "{" + pad.Draw(t, "a") + `"model":` + pad.Draw(t, "b")
		back := pad.Draw(t, "c") + `,"prompt":` + quote(text) + `}`
		body := []byte(front + quote(alias) + back)
		got, length := rewrite(t, body, model, false)
		if length != len(got) || got[:len(front)] != front || got[len(got)-len(back):] != back {
			t.Fatalf("got %s", got)
		}
		var r openai.Request
		if err := openai.Scan([]byte(got), &r); err != nil || r.Model != model {
			t.Fatalf("read back %q, %v; want %q", r.Model, err, model)
		}
	})
}

// valid is what another reader says of a text.
func valid(body []byte) bool {
	if !utf8.Valid(body) {
		return false
	}
	// Invalid UTF-8 is out; what this allows besides are halves of surrogate pairs.
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if d.PeekKind() != '{' || d.SkipValue() != nil {
		return false
	}
	_, err := d.ReadToken()
	return errors.Is(err, io.EOF)
}

func deepest(body []byte) (most int) {
	depth := 0
	for _, c := range body {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		most = max(most, depth)
	}
	return most
}

func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"model":"a","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"é\n\ud83d\ude00"}]}`,
		`{"model":"a","max_tokens":1e2,"user":"x","metadata":{"session_id":"s"},"input":["a",[1,-2.5e+3]]}`,
		`{"model":"a","x":{"y":[{},[],null,false,true,"",0]}}`, "{\"model\":\"\xff\"}", `{"model":"a"}x`, `{"model":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if deepest(body) > 250 {
			return
		}
		var r openai.Request
		err := openai.Scan(body, &r)
		ok := valid(body)
		switch {
		case err != nil && err.Param == "" && ok:
			t.Fatalf("%q: %v, and jsontext takes it", body, err)
		case err == nil && !ok:
			t.Fatalf("%q is taken, and jsontext does not take it", body)
		case err != nil:
			return
		}
		var want struct {
			Model   string `json:"model"`
			Stream  bool   `json:"stream"`
			User    any    `json:"user"`
			Options struct {
				Usage *bool `json:"include_usage"`
			} `json:"stream_options"`
			Messages jsontext.Value `json:"messages"`
		}
		if err := json.Unmarshal(body, &want, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
			t.Skip() // a number out of range
		}
		usage := openai.Absent
		if want.Options.Usage != nil {
			usage = map[bool]openai.Tri{false: openai.False, true: openai.True}[*want.Options.Usage]
		}
		user, _ := want.User.(string)
		if r.Model != want.Model || r.Stream != want.Stream || user != "" && len(user) <= openai.MaxKey && strings.TrimSpace(user) != "" && r.User != user || r.IncludeUsage != usage {
			t.Fatalf("%q: got %+v, want %+v", body, r, want)
		}
		if got := r.Prompt[openai.PartMessages].Of(body); !bytes.Equal(got, want.Messages) {
			t.Fatalf("%q: messages %q, want %q", body, got, want.Messages)
		}
		got, length := rewrite(t, body, "other", true)
		var again openai.Request
		if err := openai.Scan([]byte(got), &again); err != nil || again.Model != "other" || again.IncludeUsage == openai.Absent || length != len(got) {
			t.Fatalf("%q became %q (%d): %v, %+v", body, got, length, err, again)
		}
	})
}

func prompt(n int) []byte {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog and on. ", n/52)
	return []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"` + text + `"}],"temperature":0.7}`)
}

func BenchmarkScan64KiB(b *testing.B) {
	body := prompt(64 << 10)
	b.SetBytes(int64(len(body)))
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		var r openai.Request
		for b.Loop() {
			if err := openai.Scan(body, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json/v2", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var v struct {
				Model    string         `json:"model"`
				Stream   bool           `json:"stream"`
				Messages jsontext.Value `json:"messages"`
			}
			if err := json.Unmarshal(body, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A body that was cut anywhere is refused as that, and not for the field at the cut,
// and one that is JSON is refused for its field alone.
func TestTheReasonIsTheTrueOne(t *testing.T) {
	whole := `{"model":"a\u0041é","stream":true,"stream_options":{"include_usage":false},"metadata":{"session_id":"s","x":null},"n":-1.5e+3,"messages":[{"a":{}}]}`
	for n := range len(whole) {
		want := "The body is not valid JSON: the text ends too early at byte " + strconv.Itoa(n)
		if n == 0 {
			want = "The body is empty"
		}
		var r openai.Request
		if err := openai.Scan([]byte(whole[:n]), &r); err == nil || err.Message != want || err.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", whole[:n], err)
		}
	}
	const noJSON, noObject = "The body is not valid JSON: ", "The body must be a JSON object"
	for body, want := range map[string]string{
		" \n":                        "The body is empty",
		"hello":                      noJSON + "want a value at byte 0",
		"\x00":                       noJSON + "want a value at byte 0",
		`["model"]`:                  noObject,
		`"model"`:                    noObject,
		`null`:                       noObject,
		`nul`:                        noJSON + "the text ends too early at byte 3",
		`[1`:                         noJSON + "the text ends too early at byte 2",
		`model=m&x=1`:                noJSON + "want a value at byte 0",
		`{"model":}`:                 noJSON + "want a value at byte 9",
		`{"model":5`:                 noJSON + "the text ends too early at byte 10",
		`{"model":5,}`:               noJSON + "want a string at byte 11",
		`{"model":m}`:                noJSON + "want a value at byte 9",
		`{"model":5}`:                "'model' must be a string",
		`{"model":["a"],"x":[]}`:     "'model' must be a string",
		`{"model":"a","model":}`:     noJSON + "want a value at byte 21",
		`{"model":"a","model":"b"}`:  "'model' is given twice",
		`{"Model":"a"}`:              "'model' must be written in lower case",
		`{"model":"a","stream":1}`:   "'stream' must be true or false",
		`{"model":"a","stream":tru}`: noJSON + "want a value at byte 22",
		`{"model":"a","stream":"`:    noJSON + "the text ends too early at byte 23",
		`{"model":"a","stream_options":3,"model":"b"}`:           "'stream_options' must be an object",
		`{"model":"a","stream_options":{"include_usage":"yes"}}`: "'stream_options.include_usage' must be true or false",
		`{"model":"a","session_id":{}}`:                          "'session_id' must be a string",
		`{"messages":[]}`:                                        "you must provide a model parameter",
		`{"model":" `:                                            noJSON + "the text ends too early at byte 11",
	} {
		var r openai.Request
		if err := openai.Scan([]byte(body), &r); err == nil || err.Message != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	var r openai.Request
	if err := openai.ScanMultipart(nil, "multipart/form-data; boundary=x", &r); err == nil || err.Message != "The body is empty" {
		t.Errorf("an empty form: %v", err)
	}
}

// Each of the names of a user counts where those before it are absent or blank, and
// says nothing of the session.
func TestTheUserOfARequest(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"a","user":"u","safety_identifier":"s"}`:                    "u",
		`{"model":"a","user":" ","safety_identifier":"s"}`:                    "s",
		`{"model":"a","user":3,"metadata":{"user_id":"user_1__session_2"}}`:   "user_1__session_2",
		`{"model":"a","safety_identifier":null,"metadata":{"user_id":["x"]}}`: "",
	} {
		var r openai.Request
		if err := openai.Scan([]byte(body), &r); err != nil || r.User != want || r.SessionKey != "" {
			t.Errorf("%s: %q, %q, %v", body, r.User, r.SessionKey, err)
		}
	}
}
