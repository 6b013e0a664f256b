package demo

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	mooncake = `{"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [0, 7, 8]}
{"timestamp": 0, "input_length": 600, "output_length": 0, "hash_ids": [0, 9]}
{"timestamp": 3000, "input_length": 1300, "output_length": 5, "hash_ids": [0, 7, 10]}
`
	azure = `TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
`
)

func TestReadTraceKnowsBothFormats(t *testing.T) {
	rows, err := readTrace(strings.NewReader(mooncake), 1)
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if rows[0].at != 0 || rows[1].at > 3*time.Second || rows[2].at < rows[1].at {
		t.Errorf("times %v, %v, %v", rows[0].at, rows[1].at, rows[2].at)
	}
	for _, r := range rows {
		if r.output < 1 {
			t.Errorf("a request for %d tokens", r.output)
		}
	}
	rows, err = readTrace(strings.NewReader(azure), 1)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if got := rows[1]; got.at != 4314579*time.Microsecond || got.input != 396 || got.output != 109 || got.blocks != nil {
		t.Errorf("second row %+v", got)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(azure)); err != nil || z.Close() != nil {
		t.Fatal("gzip failed")
	}
	if again, err := readTrace(&packed, 1); err != nil || !slices.EqualFunc(rows, again, sameRow) {
		t.Errorf("gzipped: %v, %v", again, err)
	}
}

func sameRow(a, b row) bool {
	return a.at == b.at && a.input == b.input && a.output == b.output && slices.Equal(a.blocks, b.blocks)
}

func TestReadTraceRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"another format":   "a,b,c\n",
		"one row":          strings.SplitAfter(mooncake, "\n")[0],
		"rows at one time": azure + strings.SplitAfter(azure, "\n")[2],
		"no JSON":          mooncake + "{\n",
		"a duplicate":      mooncake + `{"timestamp":1,"timestamp":2,"input_length":1,"output_length":1}`,
		"no tokens":        mooncake + `{"timestamp":1,"input_length":0,"output_length":1}`,
		"too many tokens":  mooncake + `{"timestamp":1,"input_length":2000000,"output_length":1}`,
		"too long answer":  mooncake + `{"timestamp":1,"input_length":1,"output_length":2000000}`,
		"negative time":    mooncake + `{"timestamp":-1,"input_length":1,"output_length":1}`,
		"other columns":    "TIMESTAMP,Tokens,More\n",
		"no time":          azure + "yesterday,1,1\n",
		"no number":        azure + "2023-11-16 18:15:50.9951690,many,1\n",
		"a missing column": azure + "2023-11-16 18:15:50.9951690,1\n",
		"broken gzip":      "\x1f\x8b\x00",
	} {
		if name == "rows at one time" {
			text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + strings.Repeat("2023-11-16 18:15:46.6805900,374,44\n", 2)
		}
		if rows, err := readTrace(strings.NewReader(text), 1); !errors.Is(err, ErrTrace) {
			t.Errorf("%s: %d rows and %v, want ErrTrace", name, len(rows), err)
		}
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte(mooncake))
	f.Add([]byte(azure))
	f.Add(sampleTrace[:600])
	for _, years := range []string{"0001", "1700", "2100", "9999"} { // further apart than a duration reaches
		f.Add([]byte("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,1,1\n" + years + "-05-10 00:00:00,1,1\n0001-01-01 00:00:00,1,1\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		rows, err := readTrace(bytes.NewReader(text), 1)
		if err != nil {
			if !errors.Is(err, ErrTrace) {
				t.Fatal(err)
			}
			return
		}
		for i, r := range rows {
			if r.at < 0 || i > 0 && r.at < rows[i-1].at || r.input < 1 || r.output < 1 {
				t.Fatalf("row %d: %+v", i, r)
			}
		}
		w := newWorkload(rows, 10, []string{"a"}, []string{"b"}, 1)
		for range len(rows) + 1 {
			if a := w.arrive(); a.at < 0 {
				t.Fatalf("arrival %+v", a)
			}
		}
	})
}

func FuzzReadStream(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n"))
	f.Add([]byte(": comment\n\ndata: {\"error\":{\"message\":\"no\"}}\n\n"))
	f.Add([]byte("data: {\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		calls := 0
		_, begun, err := readStream(bytes.NewReader(text), func() { calls++ })
		if (calls == 1) != begun || calls > 1 {
			t.Fatalf("%d calls for a first token, begun %v", calls, begun)
		}
		if err == nil && !bytes.Contains(text, []byte("data: [DONE]")) {
			t.Fatal("a stream without [DONE] was taken as whole")
		}
	})
}

func TestTheSampleIsRealAndSmall(t *testing.T) {
	if len(sampleTrace) > 200<<10 {
		t.Errorf("the sample has %d bytes, at most 200 KiB", len(sampleTrace))
	}
	rows, err := readTraceFile("", 1)
	if err != nil || len(rows) != 2800 {
		t.Fatalf("%d rows, %v; want 2800", len(rows), err)
	}
	var tokens int
	for _, r := range rows {
		tokens += r.input
	}
	if mean := tokens / len(rows); mean < 12_000 || mean > 15_000 {
		t.Errorf("%d tokens a prompt, want about 13,600", mean)
	}
}

func TestWorkloadKeepsItsRateAndConversations(t *testing.T) {
	rows, err := readTraceFile("", 1)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkload(rows, 40, DefaultModels(), DefaultRegions(), 1)
	again := newWorkload(rows, 40, DefaultModels(), DefaultRegions(), 1)
	places := make(map[uint64]string)
	models, regions := make(map[string]int), make(map[string]int)
	passOf := make(map[uint64]uint64)
	var last arrival
	n := 2 * len(rows)
	for i := range n {
		a := w.arrive()
		if b := again.arrive(); a.at != b.at || a.key != b.key || a.model != b.model {
			t.Fatalf("arrival %d differs between equal workloads", i)
		}
		if a.at < last.at {
			t.Fatalf("arrival %d at %v after %v", i, a.at, last.at)
		}
		place := a.model + a.region
		if p, known := places[a.key]; known && p != place {
			t.Fatalf("a conversation moved from %s to %s", p, place)
		}
		if p, known := passOf[a.key]; known && p != a.pass {
			t.Fatal("a conversation is the same in two passes")
		}
		places[a.key], passOf[a.key] = place, a.pass
		models[a.model]++
		regions[a.region]++
		last = a
	}
	if rate := float64(n) / last.at.Seconds(); !(math.Abs(rate/40-1) <= 0.02) {
		t.Errorf("%.1f requests a second, want 40", rate)
	}
	for _, m := range models {
		if share := float64(m) / float64(n); !(math.Abs(share-0.5) <= 0.05) {
			t.Errorf("models %v, want halves", models)
		}
	}
	for _, r := range regions {
		if share := float64(r) / float64(n); !(math.Abs(share-1./3) <= 0.05) {
			t.Errorf("regions %v, want thirds", regions)
		}
	}
}

func TestPromptsShareTextAsTheTraceSays(t *testing.T) {
	rows, err := readTrace(strings.NewReader(mooncake), 1)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkload(rows, 10, []string{"m"}, []string{"r"}, 1)
	prompts := make(map[int][]byte) // by tokens
	for range rows {
		a := w.arrive()
		prompts[a.input] = a.appendPrompt(nil)
		if len(prompts[a.input]) != 4*a.input {
			t.Errorf("%d bytes for %d tokens", len(prompts[a.input]), a.input)
		}
	}
	const block = 512 * 4
	first, other, later := prompts[1200], prompts[600], prompts[1300]
	if !bytes.Equal(first[:2*block], later[:2*block]) || bytes.Equal(first[2*block:2*block+600], later[2*block:2*block+600]) {
		t.Error("a conversation's next prompt does not begin with its last one, or is equal to it")
	}
	if !bytes.Equal(first[:block], other[:block]) || bytes.Equal(first[block:block+300], other[block:block+300]) {
		t.Error("two conversations share more or less than the first block")
	}
	for range rows {
		a := w.arrive()
		if a.input == 1200 && bytes.Equal(a.appendPrompt(nil), first) {
			t.Error("the second pass repeats the first one's prompts")
		}
	}
}
