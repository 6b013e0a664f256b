package workload

import (
	"bytes"
	"compress/gzip"
	"errors"
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
	rows, err := ReadTrace(strings.NewReader(mooncake), 1)
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if rows[0].At != 0 || rows[1].At > 3*time.Second || rows[2].At < rows[1].At {
		t.Errorf("times %v, %v, %v", rows[0].At, rows[1].At, rows[2].At)
	}
	for _, r := range rows {
		if r.Output < 1 {
			t.Errorf("a request for %d tokens", r.Output)
		}
	}
	rows, err = ReadTrace(strings.NewReader(azure), 1)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if got := rows[1]; got.At != 4314579*time.Microsecond || got.Input != 396 || got.Output != 109 || got.Blocks != nil {
		t.Errorf("second row %+v", got)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(azure)); err != nil || z.Close() != nil {
		t.Fatal("gzip failed")
	}
	if again, err := ReadTrace(&packed, 1); err != nil || !slices.EqualFunc(rows, again, sameRow) {
		t.Errorf("gzipped: %v, %v", again, err)
	}
}

func sameRow(a, b Row) bool {
	return a.At == b.At && a.Input == b.Input && a.Output == b.Output && slices.Equal(a.Blocks, b.Blocks)
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
		if rows, err := ReadTrace(strings.NewReader(text), 1); !errors.Is(err, ErrTrace) {
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
		rows, err := ReadTrace(bytes.NewReader(text), 1)
		if err != nil {
			if !errors.Is(err, ErrTrace) {
				t.Fatal(err)
			}
			return
		}
		for i, r := range rows {
			if r.At < 0 || i > 0 && r.At < rows[i-1].At || r.Input < 1 || r.Output < 1 {
				t.Fatalf("row %d: %+v", i, r)
			}
		}
		w := play(t, rows, 10)
		for range len(rows) + 1 {
			if a := w.Next(); a.At < 0 {
				t.Fatalf("arrival %+v", a)
			}
		}
	})
}

func TestTheSampleIsRealAndSmall(t *testing.T) {
	if len(sampleTrace) > 200<<10 {
		t.Errorf("the sample has %d bytes, at most 200 KiB", len(sampleTrace))
	}
	rows, err := ReadTraceFile("", 1)
	if err != nil || len(rows) != 2800 {
		t.Fatalf("%d rows, %v; want 2800", len(rows), err)
	}
	var tokens int
	for _, r := range rows {
		tokens += r.Input
	}
	if mean := tokens / len(rows); mean < 12_000 || mean > 15_000 {
		t.Errorf("%d tokens a prompt, want about 13,600", mean)
	}
}
