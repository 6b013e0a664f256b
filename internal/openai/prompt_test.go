package openai_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"headway/internal/openai"
	"headway/internal/prefix"
)

// canonical is the canonical text of a body, in which bytes that are no UTF-8 show.
func canonical(t interface {
	Helper()
	Fatalf(string, ...any)
}, body string,
) string {
	t.Helper()
	var r openai.Request
	if err := openai.Scan([]byte(body), &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var b bytes.Buffer
	r.WriteText([]byte(body), &b)
	return b.String()
}

func media(url string) string { return fmt.Sprintf("\xfd%016x", xxhash.Sum64String(url)) }

// Each list has forms of one prompt.
func TestPitfallS13FormsOfAPromptAreTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		want  string
		forms []string
	}{
		"a question": {"\xffuser\xfeHi \"A\"\n", []string{
			`{"model":"m","messages":[{"role":"user","content":"Hi \"A\"\n"}]}`,
			`{"user":"x","metadata":{"session_id":"7"},"temperature":0.5,"max_tokens":9,"stream":true,"messages":[{"content":"Hi \u0022\u0041\"\u000a","role":"user","id":"msg_1"}],"model":"m"}`,
			"{\"model\":\"m\",\n\t\"messages\" : [ { \"role\" : \"us\\u0065r\" , \"content\" : [ {\"text\":\"Hi \\\"A\\\"\\n\",\"type\":\"text\"} ] } ] }",
			`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"Hi \"A\"\n","cache_control":{"type":"ephemeral"}},{"type":"text","text":""}]}]}`,
			`{"model":"m","input":"Hi \"A\"\n"}`,
			`{"model":"m","input":[{"role":"user","content":"Hi \"A\"\n"}]}`,
			`{"model":"m","instructions":null,"tools":[],"system":"","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"Hi \"A\"\n"}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":["Hi \"A\"\n"]}]}`,
		}},
		"a system and an answer": {"\xffsystem\xfeBe kind.\xffuser\xfeHi\xffassistant\xfb1+1\xfe2\xffuser\xfeBye", []string{
			`{"model":"m","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"},{"role":"assistant","reasoning_content":"1+1","content":"2"},{"role":"user","content":"Bye"}]}`,
			`{"model":"m","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"1+1","signature":"x"},{"type":"text","text":"2"}]},{"role":"user","content":"Bye"}],"system":"Be kind."}`,
			`{"model":"m","system":[{"type":"text","text":"Be kind."}],"messages":[{"role":"user","content":"Hi"},{"role":"assistant","reasoning":"1+1","content":"2"},{"role":"user","content":"Bye"}]}`,
			`{"model":"m","instructions":"Be kind.","input":[{"role":"user","content":"Hi"},{"type":"message","id":"1","role":"assistant","status":"completed","content":[{"type":"thinking","thinking":"1+1"},{"type":"output_text","annotations":[],"text":"2"}]},{"role":"user","content":"Bye"}]}`,
		}},
		"a tool": {"\xf8look\xf7Looks.\xf7{\"properties\":{\"a\":{\"enum\":[1.0,\"ü\\n\"],\"type\":\"string\"},\"b\":{}},\"type\":\"object\"}\xffuser\xfeHi", []string{
			`{"model":"m","messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"look","description":"Looks.","parameters":{"type":"object","properties":{"a":{"type":"string","enum":[1.0,"ü\n"]},"b":{}}}}}]}`,
			`{"model":"m","tools":[{"name":"look","type":"custom","cache_control":{"type":"ephemeral"},"description":"Looks.","input_schema":{"properties":{"b": {}, "a":{"type":"string","enum":[1.0, "\u00fc\u000a"]}},"type":"object"}}],"messages":[{"role":"user","content":"Hi"}]}`,
			`{"model":"m","tools":[{"type":"function","name":"look","description":"Looks.","strict":true,"parameters":{"properties":{"b": {}, "\u0061":{"type":"string","enum":[1.0, "\u00fc\u000a"]}},"type":"object"}}],"input":"Hi"}`,
		}},
		"calls": {"\xffuser\xfeHi\xffassistant\xfeI look.\xfclook\xf7{\"a\":1,\"b\":\"x\\ty\"}\xfcgo\xf7{}\xfftool\xfeseen\xfftool\xfegone\xffuser\xfeSo?", []string{
			`{"model":"m","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"I look.","tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"b\": \"x\\ty\", \"a\": 1}"}},{"id":"c2","type":"function","function":{"arguments":"{ }","name":"go"}}]},{"role":"tool","tool_call_id":"c1","content":"seen"},{"role":"tool","name":"go","tool_call_id":"c2","content":[{"type":"text","text":"gone"}]},{"role":"user","content":"So?"}]}`,
			`{"model":"m","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"text","text":"I look."},{"type":"tool_use","id":"t1","name":"look","input":{"b":"x\ty","a":1}},{"type":"tool_use","id":"t2","name":"go","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"seen"},{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"gone"}]},{"type":"text","text":"So?"}]}]}`,
			`{"model":"m","input":[{"role":"user","content":"Hi"},{"role":"assistant","content":"I look."},{"type":"function_call","id":"f1","call_id":"c1","name":"look","arguments":"{\"a\":1,\"b\":\"x\\ty\"}"},{"type":"function_call","call_id":"c2","name":"go","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"seen"},{"type":"function_call_output","call_id":"c2","output":"gone"},{"role":"user","content":"So?"}]}`,
		}},
		"a call without a text": {"\xffuser\xfeHi\xffassistant\xfcgo\xf7not JSON", []string{
			`{"model":"m","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"go","arguments":"not JSON"}}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"","function_call":{"name":"go","arguments":"not JSON"}}]}`,
			`{"model":"m","input":[{"role":"user","content":"Hi"},{"type":"function_call","name":"go","arguments":"not JSON"}]}`,
		}},
		"pictures and sounds": {"\xffuser\xfeWhat?" + media("data:image/png;base64,AAAA/+==") + media("data:audio/wav;base64,BBBB"), []string{
			`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"What?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA/+==","detail":"low"}},{"type":"input_audio","input_audio":{"data":"BBBB","format":"wav"}}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"What?"},{"type":"image","source":{"type":"base64","media_type":"image\/png","data":"AAAA\/+=="}},{"type":"audio_url","audio_url":{"url":"data:audio/wav;base64,BBBB"}}]}]}`,
			`{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"What?"},{"type":"input_image","detail":"auto","image_url":"data:image/png;base64,AAAA/+=="},{"type":"input_audio","input_audio":{"format":"wav","data":"BBBB"}}]}]}`,
		}},
		"a file": {"\xffuser" + media("file-1"), []string{
			`{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`,
			`{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"file-1"}}]}]}`,
		}},
		"a document of text": {"\xffuser\xfeA page.\xfeSum up.", []string{
			`{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"A page."}},{"type":"text","text":"Sum up."}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":["A page.","Sum up."]}]}`,
		}},
		"a refusal": {"\xffassistant\xfaNo.", []string{
			`{"model":"m","messages":[{"role":"assistant","content":null,"refusal":"No."}]}`,
			`{"model":"m","messages":[{"role":"assistant","content":[{"type":"refusal","refusal":"No."}]}]}`,
		}},
		"reasons": {"\xffassistant\xfbFirst.\xfbThen.", []string{
			`{"model":"m","input":[{"type":"reasoning","id":"rs_1","encrypted_content":"x","summary":[{"type":"summary_text","text":"First."},{"type":"summary_text","text":"Then."}]}]}`,
			`{"model":"m","input":[{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"First."},{"type":"reasoning_text","text":"Then."}]}]}`,
			`{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"First."},{"type":"thinking","thinking":"Then."}]}]}`,
		}},
		"what is not known": {"\xffuser\xf9{\"a\":[1,null,{\"x\":1,\"y\":2}],\"type\":\"map\"}\xff\xf9{\"query\":\"q\",\"type\":\"search\"}", []string{
			`{"model":"m","input":[{"role":"user","content":[{"type":"map","a":[1,null,{"y":2,"x":1}],"id":"1","cache_control":{"x":1}}]},{"type":"search","id":"2","status":"done","query":"q"}]}`,
			`{"model":"m","messages":[{"role":"user","content":[{"a":[ 1, null, {"x":1, "y":2} ],"type":"map"}]},{"type":"search","query":"q"}]}`,
		}},
		"a plain prompt": {"Once upon a \U0001f600", []string{
			`{"model":"m","prompt":"Once upon a \ud83d\ude00"}`, `{"prompt":["Once upon a 😀"],"model":"m"}`,
		}},
		"a conversation that the head has": {"\xf5\xf7conv_1\xffsystem\xfeBe kind.\xffuser\xfeHi", []string{
			`{"model":"m","conversation":"conv_1","instructions":"Be kind.","input":"Hi"}`,
			`{"model":"m","input":"Hi","instructions":"Be kind.","conversation":{"object":"conversation","id":"conv_\u0031"}}`,
		}},
		"no conversation": {"\xffuser\xfeHi", []string{
			`{"model":"m","conversation":null,"documents":null,"input":"Hi"}`, `{"model":"m","conversation":"","documents":[],"input":"Hi"}`,
			`{"model":"m","conversation":{},"input":"Hi"}`, `{"model":"m","conversation":{"id":null},"documents":"x","input":"Hi"}`,
		}},
		"documents": {"\xf8look\xf7\xf7\xffsystem\xfeBe kind.\xf9{\"id\":\"1\",\"text\":\"A page.\"}\xf9\"Another.\"\xffuser\xfeSum up.", []string{
			`{"model":"m","messages":[{"role":"user","content":"Sum up."}],"documents":[{"text":"A page.","id":"1"},"Another."],"system":"Be kind.","tools":[{"name":"look"}]}`,
		}},
		"tokens": {"\xf6[1,22,3", []string{`{"model":"m","prompt":[1,22,3]}`, `{"model":"m","prompt":[[ 1 , 22,3 ]]}`}},
	} {
		for i, form := range c.forms {
			if got := canonical(t, form); got != c.want {
				t.Errorf("%s, form %d: got\n%q, want\n%q", name, i, got, c.want)
			}
		}
	}
}

// No two of these are one prompt.
func TestOtherPromptsAreOthers(t *testing.T) {
	seen := map[string]string{}
	for _, form := range []string{
		`"messages":[]`, `"messages":[{"role":"user"}]`, `"messages":[{"role":"user","content":"ab"}]`, `"messages":[{"role":"user","content":["a","b"]}]`,
		`"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]`, `"messages":[{"role":"assistant","content":"ab"}]`,
		`"messages":[{"role":"system","content":"ab"}]`, `"messages":[{"role":"user","name":"c","content":"ab"}]`,
		`"messages":[{"role":"user","content":"AB"}]`, `"messages":[{"role":"use","content":"rab"}]`, `"prompt":"ab"`, `"prompt":["a","b"]`,
		`"prompt":[1,2]`, `"prompt":[12]`, `"prompt":[[1],[2]]`, `"prompt":"[12"`, `"prompt":{"id":"ab"}`,
		`"messages":[{"role":"assistant","content":"ab","refusal":"x"}]`, `"messages":[{"role":"assistant","content":"ab","reasoning":"x"}]`,
		`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":"{}"}}]}]`,
		`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":"{\"b\":1}"}}]}]`,
		`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":"{\"b\":1,}"}}]}]`,
		`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":"{\"b\":\"1\"}"}}]}]`,
		`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":"{\"id\":1}"}}]}]`,
		`"messages":[{"role":"tool","content":"ab"}]`, `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]`,
		`"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"v"}}]}]`,
		`"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"v"}}]}]`,
		`"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/gif","data":"v"}}]}]`,
		`"tools":[{"name":"a"}],"messages":[]`, `"tools":[{"name":"b"}],"messages":[]`, `"tools":[{"name":"a","description":"b"}],"messages":[]`,
		`"tools":[{"name":"a","input_schema":{"b":1}}],"messages":[]`, `"tools":[{"name":"a"},{"name":"b"}],"messages":[]`, `"tools":[{"type":"search"}]`,
		`"previous_response_id":"resp_1","input":"ab"`, `"previous_response_id":"resp_2","input":"ab"`,
		`"conversation":"resp_1","input":"ab"`, `"conversation":{"id":"conv_2"},"input":"ab"`,
		`"documents":[{"id":"1","text":"x"}],"messages":[{"role":"user","content":"ab"}]`,
		`"documents":[{"id":"2","text":"x"}],"messages":[{"role":"user","content":"ab"}]`,
		`"documents":["{\"id\":\"2\",\"text\":\"x\"}"],"messages":[{"role":"user","content":"ab"}]`, `"instructions":"c","input":"ab"`,
	} {
		body := `{"model":"m",` + form + `}`
		text := canonical(t, body)
		if other, found := seen[text]; found {
			t.Errorf("%s and %s are both %q", other, body, text)
		}
		seen[text] = body
	}
	if seen[""] != `{"model":"m","messages":[]}` {
		t.Errorf("nothing is %q", seen[""])
	}
}

// scenes are conversations that every form can have.
type scene struct {
	kind, text string // system, user, assistant, call, result
}

var scenes = rapid.Custom(func(t *rapid.T) []scene {
	texts := rapid.OneOf(rapid.StringN(1, 40, -1), rapid.SampledFrom([]string{"a", "ab", "\x00", "\"\\\n", "é😀", strings.Repeat("long ", 200)}))
	list := []scene{{"user", texts.Draw(t, "first")}}
	if rapid.Bool().Draw(t, "with a system") {
		list = slices.Insert(list, 0, scene{"system", texts.Draw(t, "system")})
	}
	for range rapid.IntRange(0, 5).Draw(t, "turns") {
		list = append(list, scene{"assistant", texts.Draw(t, "answer")})
		calls := rapid.IntRange(0, 2).Draw(t, "calls")
		for range calls {
			list = append(list, scene{"call", texts.Draw(t, "argument")})
		}
		for range calls {
			list = append(list, scene{"result", texts.Draw(t, "result")})
		}
		list = append(list, scene{"user", texts.Draw(t, "question")})
	}
	return list
})

// quote writes a string of JSON with escapes at random.
func quote(r *rand.Rand, s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c < ' ' || c == '"' || c == '\\' || r.IntN(4) == 0:
			if c > 0xffff {
				fmt.Fprintf(&b, `\u%04x\u%04X`, (c-0x10000)>>10+0xd800, (c-0x10000)&0x3ff+0xdc00)
			} else {
				fmt.Fprintf(&b, `\u%04x`, c)
			}
		default:
			b.WriteRune(c)
		}
	}
	return b.String() + `"`
}

// object writes members in an order and with spaces at random.
func object(r *rand.Rand, members ...string) string {
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	space := func() string { return []string{"", " ", "\n\t"}[r.IntN(3)] }
	return "{" + space() + strings.Join(members, space()+","+space()) + space() + "}"
}

func array(list []string) string { return "[" + strings.Join(list, ",") + "]" }

func chatForm(r *rand.Rand, list []scene) string {
	var messages []string
	for i := 0; i < len(list); i++ {
		s, q := list[i], quote(r, list[i].text)
		switch s.kind {
		case "assistant":
			var calls []string
			for ; i+1 < len(list) && list[i+1].kind == "call"; i++ {
				arguments := quote(r, object(r, `"text":`+quote(r, list[i+1].text), `"id":1`))
				calls = append(calls, object(r, `"id":"x"`, `"function":`+object(r, `"name":"f"`, `"arguments":`+arguments)))
			}
			messages = append(messages, object(r, `"role":"assistant"`, `"content":`+q, `"tool_calls":`+array(calls)))
		case "result":
			messages = append(messages, object(r, `"role":"tool"`, `"content":`+q, `"tool_call_id":"x"`))
		default:
			if r.IntN(2) == 0 {
				q = array([]string{object(r, `"type":"text"`, `"text":`+q)})
			}
			messages = append(messages, object(r, `"role":`+quote(r, s.kind), `"content":`+q))
		}
	}
	return object(r, `"model":"m"`, `"messages":`+array(messages))
}

func anthropicForm(r *rand.Rand, list []scene) string {
	members := []string{`"model":"m"`, `"max_tokens":7`}
	if list[0].kind == "system" {
		members = append(members, `"system":`+quote(r, list[0].text))
		list = list[1:]
	}
	var messages []string
	for i := 0; i < len(list); {
		var parts []string
		role := "user"
		if list[i].kind == "assistant" {
			role = "assistant"
		}
		for from := i; i < len(list) && (list[i].kind == "assistant" || list[i].kind == "call") == (role == "assistant"); i++ {
			q := quote(r, list[i].text)
			switch list[i].kind {
			case "call":
				parts = append(parts, object(r, `"type":"tool_use"`, `"name":"f"`, `"id":"x"`, `"input":`+object(r, `"text":`+q, `"id":1`)))
			case "result":
				parts = append(parts, object(r, `"type":"tool_result"`, `"tool_use_id":"x"`, `"content":`+q))
			default:
				if i > from && list[i].kind == list[i-1].kind {
					break
				}
				parts = append(parts, object(r, `"type":"text"`, `"text":`+q))
			}
		}
		messages = append(messages, object(r, `"role":`+quote(r, role), `"content":`+array(parts)))
	}
	return object(r, append(members, `"messages":`+array(messages))...)
}

func responsesForm(r *rand.Rand, list []scene) string {
	members := []string{`"model":"m"`, `"store":false`}
	if list[0].kind == "system" {
		members = append(members, `"instructions":`+quote(r, list[0].text))
		list = list[1:]
	}
	var items []string
	for _, s := range list {
		q := quote(r, s.text)
		switch s.kind {
		case "call":
			items = append(items, object(r, `"type":"function_call"`, `"name":"f"`, `"call_id":"x"`, `"arguments":`+quote(r, object(r, `"text":`+q, `"id":1`))))
		case "result":
			items = append(items, object(r, `"type":"function_call_output"`, `"call_id":"x"`, `"output":`+q))
		default:
			items = append(items, object(r, `"role":`+quote(r, s.kind), `"content":`+q))
		}
	}
	return object(r, append(members, `"input":`+array(items))...)
}

// One conversation has one text in all forms; what it began with is the beginning of its
// text, and each change of a text or a role is one of the text.
func TestAConversationHasOneText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := scenes.Draw(t, "conversation")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		want := canonical(t, chatForm(r, list))
		for name, form := range map[string]func(*rand.Rand, []scene) string{"chat": chatForm, "messages": anthropicForm, "responses": responsesForm} {
			if got := canonical(t, form(r, list)); got != want {
				t.Fatalf("as %s it is\n%q, as chat\n%q", name, got, want)
			}
		}
		if n := rapid.IntRange(1, len(list)).Draw(t, "messages"); !strings.HasPrefix(want, canonical(t, chatForm(r, list[:n]))) {
			t.Fatalf("%q does not begin with its first %d messages", want, n)
		}
		at := rapid.IntRange(0, len(list)-1).Draw(t, "changed")
		other := slices.Clone(list)
		other[at].text += "."
		if canonical(t, chatForm(r, other)) == want {
			t.Fatalf("text %d is another, and the whole is the same", at)
		}
		if other = slices.Clone(list); other[at].kind == "user" {
			other[at].kind = "result"
			if canonical(t, chatForm(r, other)) == want {
				t.Fatalf("role %d is another, and the whole is the same", at)
			}
		}
	})
}

// What a Chain is given has no part in where its text was cut, and what is long passes
// without a copy.
func TestLongPromptsHaveTheirHashes(t *testing.T) {
	for _, unit := range []string{"abcdefgh", `a\"b\n`, `\u00e9\ud83d\ude00`, "é", `x\\`, strings.Repeat("y", 300) + `\t`} {
		body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat(unit, 5000) + `"}]}`
		var r openai.Request
		if err := openai.Scan([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		var cut, whole prefix.Chain
		r.WriteText([]byte(body), &cut)
		var text string
		if err := json.Unmarshal([]byte(`"`+strings.Repeat(unit, 5000)+`"`), &text); err != nil {
			t.Fatal(err)
		}
		_, _ = whole.Write([]byte("\xffuser\xfe" + text))
		if !slices.Equal(cut.Hashes, whole.Hashes) || cut.Bytes() != whole.Bytes() || len(cut.Hashes) < 17 {
			t.Errorf("%q has %d hashes of %d bytes, want %d of %d", unit, len(cut.Hashes), cut.Bytes(), len(whole.Hashes), whole.Bytes())
		}
	}
}

// A picture's data are not counted as text, of which they would be most.
func TestDataOfPicturesIsNoText(t *testing.T) {
	data := strings.Repeat("A", 1000)
	for want, body := range map[int]string{
		2 + 1000:      `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + data + `"}}]}]}`,
		2 + 22 + 1000: `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,` + data + `"}]}]}`,
		0:             `{"model":"m","prompt":"` + data + `"}`,
	} {
		var r openai.Request
		if err := openai.Scan([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		if got := r.WriteText([]byte(body), io.Discard); got != want {
			t.Errorf("%d bytes are data, want %d, of %.60s", got, want, body)
		}
	}
}

func TestWhoSharesACacheIsRead(t *testing.T) {
	for body, want := range map[string][2]string{
		`{"model":"m","lora_path":"a\u0062","cache_salt":"s"}`:      {"ab", "s"},
		`{"model":"m","adapter_id":"c","lora_path":null}`:           {"c"},
		`{"model":"m","lora_path":["a",null],"cache_salt":{"a":1}}`: {`["a",null]`, `{"a":1}`},
		`{"model":"m","cache_salt":null}`:                           {},
	} {
		var r openai.Request
		if err := openai.Scan([]byte(body), &r); err != nil || r.Adapter != want[0] || r.CacheSalt != want[1] {
			t.Errorf("%s: %v, adapter %q, salt %q", body, err, r.Adapter, r.CacheSalt)
		}
	}
}

// An object with more members than are put in order is written all the same.
func TestLargeObjectsAreWrittenAsTheyCame(t *testing.T) {
	var members []string
	for i := range 1000 {
		members = append(members, fmt.Sprintf(`"m%d":%d`, i^1, i))
	}
	object := "{" + strings.Join(members, ",") + "}"
	if got, want := canonical(t, `{"model":"m","messages":[{"role":"user","content":`+object+`}]}`), "\xffuser\xf9"+object; got != want {
		t.Errorf("got\n%.100q, want\n%.100q", got, want)
	}
	_ = canonical(t, `{"model":"m","messages":[{"role":"user","content":`+strings.Repeat(`{"a":`, 250)+`1`+strings.Repeat("}", 250)+`}]}`)
}

// FuzzPrompt looks for bodies with which the walk fails, or that white space changes.
func FuzzPrompt(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	list := []scene{{"system", "s"}, {"user", "u"}, {"assistant", "a"}, {"call", "c"}, {"result", "r"}, {"user", "é\\"}}
	f.Add([]byte(chatForm(r, list)))
	f.Add([]byte(anthropicForm(r, list)))
	f.Add([]byte(responsesForm(r, list)))
	f.Add([]byte(`{"model":"m","tools":[{"type":"function","function":{"name":"f","parameters":{"b":1,"a":[]}}}],"prompt":[[1,2],"x"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r openai.Request
		if openai.Scan(body, &r) != nil {
			return
		}
		var text, again bytes.Buffer
		r.WriteText(body, &text)
		spaced := jsontext.Value(bytes.Clone(body))
		if spaced.Indent(jsontext.AllowDuplicateNames(true)) != nil {
			return
		}
		if err := openai.Scan(spaced, &r); err != nil {
			t.Fatal(err)
		}
		if r.WriteText(spaced, &again); !bytes.Equal(text.Bytes(), again.Bytes()) {
			t.Fatalf("%q with spaces is %q, without %q", body, again.Bytes(), text.Bytes())
		}
	})
}
