package openai_test

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"headway/internal/openai"
)

const formType = "multipart/form-data; boundary=XX"

func parts(text ...string) string {
	return "--XX\r\n" + strings.Join(text, "\r\n--XX\r\n") + "\r\n--XX--\r\n"
}

func part(name, value string) string {
	return "Content-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value
}

const sound = "Content-Disposition: form-data; name=\"file\"; filename=\"a b.wav\"\r\nContent-Type: audio/wav\r\n\r\n\x00\xff\r\n--X\r\nname=\"model\"\r\n"

func TestPitfallP30TheModelStandsInAPart(t *testing.T) {
	for name, body := range map[string]string{
		"first":              parts(part("model", "m"), part("stream", "true"), sound),
		"last":               parts(sound, part("stream", "true"), part("model", "m")),
		"empty lines around": "\r\n" + parts(sound, part("stream", "true"), part("model", "m")) + "\r\n",
		"other":              parts(part("stream", "True"), strings.Replace(part("model", "m"), `"model"`, "model", 1), sound, part("language", "")),
	} {
		var r openai.Request
		if err := openai.ScanMultipart([]byte(body), formType, &r); err != nil || r.Model != "m" || !r.Stream {
			t.Errorf("%s: got %+v, %v", name, r, err)
			continue
		}
		pieces, length := r.Rewrite(nil, []byte(body), "other\"", true)
		got, want := string(bytes.Join(pieces, nil)), strings.Replace(body, "\r\n\r\nm\r\n", "\r\n\r\nother\"\r\n", 1)
		if got != want || length != len(want) {
			t.Errorf("%s: rewritten to %q (%d), want %q", name, got, length, want)
		}
	}
}

func TestFormsThatLieAreRefused(t *testing.T) {
	good := part("model", "m")
	for name, c := range map[string]struct {
		body, param string
	}{
		"twice":                        {parts(good, good), "model"},
		"case":                         {parts(good, part("Model", "x")), "model"},
		"none":                         {parts(sound), "model"},
		"empty":                        {parts(part("model", "")), "model"},
		"long":                         {parts(part("model", strings.Repeat("m", openai.MaxModel+1))), "model"},
		"line end":                     {parts(part("model", "a\r\nb")), "model"},
		"file":                         {parts("Content-Disposition: form-data; name=\"model\"; filename=\"x\"\r\n\r\nm"), "model"},
		"stream":                       {parts(good, part("stream", "maybe")), "stream"},
		"preamble":                     {"x\r\n" + parts(good), ""},
		"text on the second line":      {"\r\nx\r\n" + parts(good), ""},
		"epilogue after an empty line": {parts(good) + "\r\nx", ""},
		"epilogue":                     {parts(good) + "--XX\r\n" + good, ""},
		"no end":                       {"--XX\r\n" + good, ""},
		"longer boundary":              {parts(good + "\r\n--XXY\r\n" + part("model", "x")), ""},
		"two dispositions":             {parts("Content-Disposition: form-data; name=\"a\"\r\n" + good), ""},
		"no disposition":               {parts("X: y\r\n\r\nm"), ""},
		"no header":                    {parts("\r\nm"), ""},
		"two names":                    {parts("Content-Disposition: form-data; name=a; name=model\r\n\r\nm"), ""},
		"name*":                        {parts("Content-Disposition: form-data; name*=utf-8''model\r\n\r\nm"), ""},
		"escaped name":                 {parts("Content-Disposition: form-data; name=\"mod\\el\"\r\n\r\nm"), ""},
		"folded":                       {parts("Content-Disposition: form-data;\r\n name=model\r\n\r\nm"), ""},
		"encoded":                      {parts("Content-Transfer-Encoding: base64\r\n" + good), ""},
		"header too long":              {parts("X: " + strings.Repeat("y", 9000) + "\r\n" + good), ""},
		"body without line":            {"--XX\r\nContent-Disposition: form-data; name=model\r\n\r\n--XX--\r\n", ""},
		"nothing":                      {"", ""},
	} {
		var r openai.Request
		err := openai.ScanMultipart([]byte(c.body), formType, &r)
		if err == nil || err.Status != http.StatusBadRequest || err.Param != c.param {
			t.Errorf("%s: got %+v, want 400 with param %q", name, err, c.param)
		}
	}
	for _, kind := range []string{"", "application/json", "multipart/mixed; boundary=XX", "multipart/form-data; boundary=XX; boundary=YY", "multipart/form-data; boundary*=utf-8''XX"} {
		var r openai.Request
		if err := openai.ScanMultipart([]byte(parts(good)), kind, &r); err == nil || err.Status != http.StatusUnsupportedMediaType {
			t.Errorf("Content-Type %q: got %+v, want 415", kind, err)
		}
	}
}

// What is taken is read alike by the standard library.
func FuzzMultipart(f *testing.F) {
	f.Add([]byte(parts(part("model", "m"), sound)))
	f.Add([]byte(parts(sound, part("stream", "1"), part("model", "é"))))
	f.Add([]byte("\r\n" + parts(part("model", "m"), sound) + "\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r openai.Request
		if openai.ScanMultipart(body, formType, &r) != nil {
			return
		}
		pieces, _ := r.Rewrite(nil, body, "other", false)
		for want, text := range map[string][]byte{r.Model: body, "other": bytes.Join(pieces, nil)} {
			reader := multipart.NewReader(bytes.NewReader(text), "XX")
			var models []string
			for {
				p, err := reader.NextRawPart()
				if err != nil {
					break
				}
				_, params, err := mime.ParseMediaType(p.Header.Get("Content-Disposition"))
				if value, _ := io.ReadAll(p); err == nil && params["name"] == "model" {
					models = append(models, string(value))
				}
			}
			if len(models) > 1 || len(models) == 1 && models[0] != want {
				t.Fatalf("%q: the model is %q, and %q for another reader", text, want, models)
			}
		}
	})
}
