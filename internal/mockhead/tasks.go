package mockhead

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// task reads a request that generates no tokens, and makes its answer.
type task func(h *Head, r *http.Request, body []byte) (model string, answer any, err error)

// do serves a task.
func (h *Head) do(f task, refuse refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := h.read(w, r)
		if err != nil {
			refuse(w, asAPIError(err))
			return
		}
		model, answer, err := f(h, r, body)
		if err == nil {
			err = h.serves(model)
		}
		if err != nil {
			refuse(w, asAPIError(err))
			return
		}
		switch answer := answer.(type) {
		case sound:
			w.Header().Set("Content-Type", "audio/wav")
			w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			_, _ = w.Write(answer) // the client may have left
		default:
			writeJSON(w, http.StatusOK, answer)
		}
	}
}

// readJSON reads a JSON body.
func readJSON(r *http.Request, body []byte, v any) error {
	if err := isJSON(r); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return decodeError(err)
	}
	return nil
}

func inputUsage(prompts []prompt) object {
	n := 0
	for _, p := range prompts {
		n += p.tokens
	}
	return object{"prompt_tokens": n, "total_tokens": n, "completion_tokens": 0}
}

func embeddings(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model      string         `json:"model"`
		Input      jsontext.Value `json:"input"`
		Format     string         `json:"encoding_format"`
		Dimensions int            `json:"dimensions"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	prompts, err := readPrompts(in.Input, "input")
	if err != nil {
		return "", nil, err
	}
	if in.Dimensions == 0 {
		in.Dimensions = 16
	}
	if in.Dimensions < 1 || in.Dimensions > 4096 {
		return "", nil, invalid("dimensions", "dimensions must be 1 to 4096, not %d", in.Dimensions)
	}
	data := []any{}
	for i, p := range prompts {
		_, seed := h.hash(p.text)
		v := vector(seed, in.Dimensions)
		e := object{"index": i, "object": "embedding", "embedding": v}
		if in.Format == "base64" {
			var raw []byte
			for _, x := range v {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			e["embedding"] = base64.StdEncoding.EncodeToString(raw)
		}
		data = append(data, e)
	}
	return in.Model, object{"object": "list", "model": in.Model, "data": data, "usage": inputUsage(prompts)}, nil
}

// vector is a unit vector that a seed generates.
func vector(seed uint64, n int) []float32 {
	v := make([]float32, n)
	sum := 0.0
	for i := range v {
		x := float64(mix(seed, uint64(i))>>11)/(1<<52) - 1
		v[i] = float32(x)
		sum += x * x
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// similarity is the share of a text's four-byte words that stand in another,
// which orders documents as their overlap with the query does.
func similarity(query, text string) float64 {
	words := make(map[string]bool)
	for i := 0; i+wordBytes <= len(query); i++ {
		words[query[i:i+wordBytes]] = true
	}
	hits, all := 0, 0
	for i := 0; i+wordBytes <= len(text); i++ {
		all++
		if words[text[i:i+wordBytes]] {
			hits++
		}
	}
	return float64(hits) / float64(max(1, all))
}

type rank struct {
	index int
	value float64
}

// ranked are the documents, the nearest to the query first.
func ranked(query string, documents []string) []rank {
	all := make([]rank, len(documents))
	for i, d := range documents {
		all[i] = rank{i, similarity(query, d)}
	}
	slices.SortStableFunc(all, func(a, b rank) int { return cmp.Compare(b.value, a.value) })
	return all
}

// texts reads one text or a list of them.
func texts(v jsontext.Value, param string) ([]string, error) {
	var one string
	if json.Unmarshal(v, &one) == nil {
		return []string{one}, nil
	}
	var list []string
	if err := json.Unmarshal(v, &list); err != nil || len(list) == 0 || len(list) > maxParts {
		return nil, invalid(param, "%s must be a string or a list of strings", param)
	}
	return list, nil
}

func rerank(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model     string         `json:"model"`
		Query     string         `json:"query"`
		Documents jsontext.Value `json:"documents"`
		TopN      int            `json:"top_n"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	documents, err := texts(in.Documents, "documents")
	if err != nil {
		return "", nil, err
	}
	results, tokens := []any{}, 0
	for i, score := range ranked(in.Query, documents) {
		tokens += newPrompt([]byte(documents[score.index])).tokens
		if in.TopN > 0 && i >= in.TopN {
			continue
		}
		results = append(results, object{
			"index": score.index, "document": object{"text": documents[score.index]}, "relevance_score": score.value,
		})
	}
	return in.Model, object{"id": "rerank-" + h.nextID(), "model": in.Model, "usage": object{"total_tokens": tokens}, "results": results}, nil
}

func score(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model string         `json:"model"`
		One   jsontext.Value `json:"text_1"`
		Two   jsontext.Value `json:"text_2"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	one, err := texts(in.One, "text_1")
	if err != nil {
		return "", nil, err
	}
	two, err := texts(in.Two, "text_2")
	if err != nil {
		return "", nil, err
	}
	if len(one) != 1 && len(one) != len(two) {
		return "", nil, invalid("text_1", "text_1 must hold one text, or as many as text_2")
	}
	data, prompts := []any{}, []prompt{}
	for i, text := range two {
		query := one[i%len(one)]
		data = append(data, object{"index": i, "object": "score", "score": similarity(query, text)})
		prompts = append(prompts, newPrompt([]byte(query+text)))
	}
	return in.Model, object{
		"id": "score-" + h.nextID(), "object": "list", "created": h.started.Unix(), "model": in.Model,
		"data": data, "usage": inputUsage(prompts),
	}, nil
}

func moderations(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model string         `json:"model"`
		Input jsontext.Value `json:"input"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	list, err := texts(in.Input, "input")
	if err != nil {
		return "", nil, err
	}
	in.Model = h.orFirst(in.Model)
	names := []string{"harassment", "hate", "self-harm", "sexual", "violence"}
	results := []any{}
	for range list {
		categories, scores := object{}, object{}
		for _, name := range names {
			categories[name], scores[name] = false, 0.001
		}
		results = append(results, object{"flagged": false, "categories": categories, "category_scores": scores})
	}
	return in.Model, object{"id": "modr-" + h.nextID(), "model": in.Model, "results": results}, nil
}

// A token is four bytes of text as one number, so that detokenize gives the text
// back.
func tokenize(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model    string    `json:"model"`
		Prompt   *string   `json:"prompt"`
		Messages []message `json:"messages"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	var text []byte
	if in.Prompt != nil {
		text = []byte(*in.Prompt)
	} else {
		var err error
		if text, err = render(in.Messages); err != nil {
			return "", nil, err
		}
	}
	tokens := []uint32{}
	for len(text) > 0 {
		var id uint32
		n := min(wordBytes, len(text))
		for _, b := range text[:n] {
			id = id<<8 | uint32(b)
		}
		tokens, text = append(tokens, id), text[n:]
	}
	return h.orFirst(in.Model), object{"count": len(tokens), "max_model_len": h.maxTokens, "tokens": tokens, "token_strs": nil}, nil
}

func detokenize(h *Head, r *http.Request, body []byte) (string, any, error) {
	var in struct {
		Model  string   `json:"model"`
		Tokens []uint32 `json:"tokens"`
	}
	if err := readJSON(r, body, &in); err != nil {
		return "", nil, err
	}
	var text []byte
	for _, id := range in.Tokens {
		for shift := 24; shift >= 0; shift -= 8 {
			if b := byte(id >> shift); b != 0 {
				text = append(text, b)
			}
		}
	}
	return h.orFirst(in.Model), object{"prompt": strings.ToValidUTF8(string(text), "\ufffd")}, nil
}

// orFirst is the model of a request that may leave it out.
func (h *Head) orFirst(model string) string {
	if model == "" {
		return h.options.Models[0]
	}
	return model
}
