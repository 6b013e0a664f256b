package mockhead

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

// sound is an answer in WAV.
type sound []byte

// upload is a multipart body: its fields and its files.
type upload struct {
	fields map[string]string
	files  map[string][]byte
}

const maxFormParts = 64

func readUpload(r *http.Request, body []byte) (*upload, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, &apiError{http.StatusUnsupportedMediaType, "", "the Content-Type must be multipart/form-data"}
	}
	u := &upload{fields: make(map[string]string), files: make(map[string][]byte)}
	in := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for range maxFormParts {
		p, err := in.NextRawPart()
		if errors.Is(err, io.EOF) {
			return u, nil
		}
		if err != nil {
			return nil, invalid("", "the body is no valid multipart form")
		}
		value, err := io.ReadAll(p)
		if err != nil {
			return nil, invalid("", "the body is no valid multipart form")
		}
		if p.FileName() != "" {
			u.files[p.FormName()] = value
		} else {
			u.fields[p.FormName()] = string(value)
		}
	}
	return nil, invalid("", "the form has more than %d parts", maxFormParts)
}

// transcriptForm is that of transcriptions and translations.
type transcriptForm struct {
	task   string
	format string // json, text or verbose_json
}

func decodeTranscript(kind string) func(*http.Request, []byte) (*completion, error) {
	return func(r *http.Request, body []byte) (*completion, error) {
		u, err := readUpload(r, body)
		if err != nil {
			return nil, err
		}
		file, ok := u.files["file"]
		if !ok || len(file) == 0 {
			return nil, invalid("file", "file: Field required")
		}
		f := transcriptForm{task: kind, format: u.fields["response_format"]}
		switch f.format {
		case "":
			f.format = "json"
		case "json", "text", "verbose_json":
		default:
			return nil, invalid("response_format", "%q is no supported response_format", clip(f.format))
		}
		// A second of 16 kHz speech is about 12 tokens of the encoder here.
		p := prompt{text: append([]byte(u.fields["prompt"]), file...), tokens: max(1, len(file)/(32000/12))}
		return &completion{form: f, model: u.fields["model"], n: 1, stream: u.fields["stream"] == "true", prompts: []prompt{p}, maxTokens: 64}, nil
	}
}

func (f transcriptForm) whole(t *turn) any {
	text := strings.TrimSpace(t.parts[0].text())
	switch f.format {
	case "text":
		return plain(text + "\n")
	case "verbose_json":
		return object{
			"task": f.task, "language": "english", "duration": float64(t.c.prompts[0].tokens) / 12, "text": text,
			"segments": []any{}, "words": []any{},
		}
	}
	u := t.usage()
	return object{"text": text, "usage": object{
		"type": "tokens", "input_tokens": u.PromptTokens, "output_tokens": u.CompletionTokens, "total_tokens": u.TotalTokens,
	}}
}

func (transcriptForm) begin(out []byte, _ *turn) []byte { return out }

func (transcriptForm) chunk(out []byte, _ *turn, _ *part, text string) []byte {
	return appendEvent(out, encode(object{"type": "transcript.text.delta", "delta": text}))
}

func (transcriptForm) end(out []byte, t *turn) []byte {
	out = appendEvent(out, encode(object{"type": "transcript.text.done", "text": strings.TrimSpace(t.parts[0].text())}))
	return appendEvent(out, []byte("[DONE]"))
}

// speech answers with a tone of a twentieth of a second for each token.
func speech(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model string `json:"model"`
		Input string `json:"input"`
		Voice string `json:"voice"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	if in.Input == "" {
		return "", nil, invalid("input", "input: Field required")
	}
	p := newPrompt([]byte(in.Input))
	_, seed := h.hash(p.text)
	const rate, perToken = 8000, 400
	samples := make([]byte, min(p.tokens, 4096)*perToken)
	for i := range samples {
		period := 16 + int(mix(seed, uint64(i/perToken))%32)
		if i%period < period/2 {
			samples[i] = 0xa0
		} else {
			samples[i] = 0x60
		}
	}
	var b bytes.Buffer
	b.WriteString("RIFF")
	_ = binary.Write(&b, binary.LittleEndian, uint32(36+len(samples))) // a buffer takes all
	b.WriteString("WAVEfmt ")
	_ = binary.Write(&b, binary.LittleEndian, struct {
		Size             uint32
		Format, Channels uint16
		Rate, Bytes      uint32
		Align, Bits      uint16
	}{16, 1, 1, rate, rate, 1, 8})
	b.WriteString("data")
	_ = binary.Write(&b, binary.LittleEndian, uint32(len(samples)))
	b.Write(samples)
	return in.Model, sound(b.Bytes()), nil
}

func generateImages(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model  string `json:"model"`
		Prompt string `json:"prompt"`
		N      int    `json:"n"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	answer, err := h.images([]byte(in.Prompt), in.N)
	return in.Model, answer, err
}

func editImages(h *Head, r *http.Request, body []byte) (string, any, error) {
	u, err := readUpload(r, body)
	if err != nil {
		return "", nil, err
	}
	source := u.files["image"]
	if source == nil {
		source = u.files["image[]"]
	}
	if source == nil {
		return "", nil, invalid("image", "image: Field required")
	}
	answer, err := h.images(append([]byte(u.fields["prompt"]), source...), 1)
	return u.fields["model"], answer, err
}

// images draws n pictures that a prompt generates.
func (h *Head) images(prompt []byte, n int) (any, error) {
	if len(prompt) == 0 {
		return nil, invalid("prompt", "prompt: Field required")
	}
	if n < 0 || n > 10 {
		return nil, invalid("n", "n must be 1 to 10, not %d", n)
	}
	_, seed := h.hash(prompt)
	data := []any{}
	for i := range max(1, n) {
		const side = 64
		m := image.NewRGBA(image.Rect(0, 0, side, side))
		for p := range side * side {
			x, y := p%side, p/side
			c := mix(seed, uint64(i)<<32|uint64(x/8)<<8|uint64(y/8))
			m.SetRGBA(x, y, color.RGBA{byte(c), byte(c >> 8), byte(c >> 16), 255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			return nil, err
		}
		data = append(data, object{"b64_json": base64.StdEncoding.EncodeToString(b.Bytes())})
	}
	return object{"created": h.started.Unix(), "data": data}, nil
}
