package openai_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/openai"
)

func pass(a *openai.Answer, text string, borders []int) string {
	var out bytes.Buffer
	from := 0
	for _, to := range append(borders, len(text)) {
		for _, piece := range a.Push(nil, []byte(text[from:to])) {
			out.Write(piece)
		}
		from = to
	}
	for _, piece := range a.Flush(nil) {
		out.Write(piece)
	}
	return out.String()
}

const whole = ` { "id" : "x\"\\" , "choices":[{"model":"m","usage":{"prompt_tokens":99},"text":"a{]\"\\\\\""}], "model" : "m\"x" ,"data":[[0.1,-2e5],{}],
	"usage": {"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}, "error": null } `

func TestAnAnswerInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		borders := borders(t, len(whole))
		for model, want := range map[string]string{"": whole, `al"ias`: strings.Replace(whole, `"m\"x"`, `"al\"ias"`, 1)} {
			a := &openai.Answer{Endpoint: chat, Model: model}
			if out := pass(a, whole, borders); out != want {
				t.Fatalf("passed on %q, want %q", out, want)
			}
			if a.Usage() != (openai.Usage{Input: 10, Output: 5, Cached: 4}) || a.Failed() || !a.Whole() || a.Longer() != len(want)-len(whole) {
				t.Fatalf("got %+v", a)
			}
		}
	})
}

func TestAnAnswerReadAtOnce(t *testing.T) {
	a := &openai.Answer{Endpoint: chat}
	if !a.Read([]byte(whole)) || a.Usage() != (openai.Usage{Input: 10, Output: 5, Cached: 4}) || a.Failed() || !a.Whole() || a.Longer() != 0 {
		t.Errorf("got %+v", a)
	}
	if a.Reset(chat, ""); a.Read([]byte(whole[:len(whole)-3])) || a.Whole() || a.Usage().Input != openai.Unknown {
		t.Errorf("of a part: %+v", a)
	}
}

func TestAnswersThatEndWithin(t *testing.T) {
	for _, text := range []string{
		`{"a":[1,{"b":"}"}],"c":{}}`, `[{"a":"]"},[1,[2]],"x"] `, ` [] `, `"a\"b"`, `null`, `<html>{`, `[{"model":"z","error":{"a":1}}, 2]`,
	} {
		for end := range len(text) + 1 {
			a := &openai.Answer{Endpoint: chat, Model: "m"}
			part := text[:end]
			if out := pass(a, part, []int{end / 2}); out != part {
				t.Errorf("%s became %s", part, out)
			}
			begun := strings.TrimSpace(part)
			within := begun != strings.TrimSpace(text) && begun != "" && strings.ContainsAny(begun[:1], `[{"`)
			if a.Broken() != within || a.Failed() {
				t.Errorf("%s: broken is %v", part, a.Broken())
			}
		}
	}
}

func TestErrorsInAnAnswer(t *testing.T) {
	for text, failed := range map[string]bool{
		`{"error":{"message":"x"}}`:                       true,
		`{"error":"x","model":"m"}`:                       true,
		`{"type":"error","error":{"type":"a"}}`:           true,
		`{"error":null}`:                                  false,
		`{"error":false}`:                                 false,
		`{"error":0}`:                                     false,
		`{"error":true}`:                                  true,
		`{"x":{"error":{"a":1}}}`:                         false,
		`{"error":{"message":"x"}`:                        true,
		`["error"]`:                                       false,
		`not JSON "error":1}`:                             false,
		`{"error":` + strings.Repeat(" ", 20<<10):         false,
		`{"error":"` + strings.Repeat("x", 20<<10) + `"}`: true,
	} {
		a := &openai.Answer{Endpoint: chat, Model: "z"}
		if out := pass(a, text, nil); a.Failed() != failed {
			t.Errorf("%.60s: failed is %v; passed on %.60s", text, a.Failed(), out)
		}
		once := &openai.Answer{Endpoint: chat}
		if valid := json.Valid([]byte(text)) && text[0] == '{'; once.Read([]byte(text)) != valid || once.Whole() != valid || once.Failed() != (failed && valid) {
			t.Errorf("%.60s: read at once, %+v", text, once)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(whole, uint16(3))
	f.Add(`{"model":"`+strings.Repeat("m", 9000)+`"}`, uint16(40))
	f.Add(`{"model" :"m`, uint16(1))
	f.Add(`{"us\u0061ge":{"prompt_tokens":1},"\ud83d\ude00rror":1,"err\u006fr":1}`, uint16(2))
	f.Fuzz(func(t *testing.T, text string, step uint16) {
		var borders []int
		for at := int(step%50) + 1; at < len(text); at += int(step%50) + 1 {
			borders = append(borders, at)
		}
		if out := pass(&openai.Answer{Endpoint: chat}, text, borders); out != text {
			t.Fatalf("%q became %q", text, out)
		}
		if once := (&openai.Answer{Endpoint: chat}); once.Read([]byte(text)) && len(text) < 8<<10 {
			pieces := &openai.Answer{Endpoint: chat}
			if pass(pieces, text, borders); once.Usage() != pieces.Usage() || once.Failed() != pieces.Failed() || once.Whole() != pieces.Whole() {
				t.Fatalf("%q: %+v at once, %+v in pieces", text, once, pieces)
			}
		}
		a, b := &openai.Answer{Endpoint: chat, Model: "x"}, &openai.Answer{Endpoint: chat, Model: "x"}
		one, many := pass(a, text, nil), pass(b, text, borders)
		if one != many || a.Usage() != b.Usage() || a.Failed() != b.Failed() || len(one)-len(text) != a.Longer() {
			t.Fatalf("%q became %q as one and %q in pieces", text, one, many)
		}
	})
}

func BenchmarkAnswer64KiB(b *testing.B) {
	for name, body := range map[string][]byte{
		"text":   []byte(`{"model":"m","choices":[{"message":{"content":"` + strings.Repeat("some text ", 6500) + `"}}],"usage":{"prompt_tokens":1}}`),
		"floats": []byte(`{"model":"m","data":[{"embedding":[` + strings.Repeat("-0.0123456,", 6000) + `0]}],"usage":{"prompt_tokens":1}}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			var dst [][]byte
			for b.Loop() {
				a := openai.Answer{Endpoint: chat, Model: "alias"}
				dst = a.Push(dst[:0], body)
			}
		})
	}
}
