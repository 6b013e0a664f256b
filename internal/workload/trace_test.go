package workload

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// readTrace is ReadTraceFile of a text.
func readTrace(r io.Reader, seed uint64) (*Trace, error) {
	trace, err := read(r)
	if err == nil {
		trace.Rows = trace.spread(trace.Rows, seed)
	}
	return trace, err
}

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

// rowsOf reads a trace.
func rowsOf(t *testing.T, text string) []Row {
	t.Helper()
	trace, err := readTrace(strings.NewReader(text), 1)
	if err != nil {
		t.Fatal(err)
	}
	return trace.Rows
}

func TestReadTraceKnowsBothFormats(t *testing.T) {
	rows := rowsOf(t, mooncake)
	if len(rows) != 3 || rows[0].At != 0 || rows[1].At > 3*time.Second || rows[2].At < rows[1].At {
		t.Errorf("rows %+v", rows)
	}
	for _, r := range rows {
		if r.Output < 1 {
			t.Errorf("a request for %d tokens", r.Output)
		}
	}
	rows = rowsOf(t, azure)
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	if got := rows[1]; got.At != 4314579*time.Microsecond || got.Input != 396 || got.Output != 109 || got.Blocks != nil {
		t.Errorf("second row %+v", got)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(azure)); err != nil || z.Close() != nil {
		t.Fatal("gzip failed")
	}
	if again := rowsOf(t, packed.String()); !slices.EqualFunc(rows, again, sameRow) {
		t.Errorf("gzipped: %v", again)
	}
}

func sameRow(a, b Row) bool {
	return a.At == b.At && a.Input == b.Input && a.Output == b.Output && slices.Equal(a.Blocks, b.Blocks)
}

// Traces of others in the same formats: other columns and orders, other forms of time,
// other lengths of blocks.
func TestReadTraceKnowsVariants(t *testing.T) {
	for name, text := range map[string]string{
		"Azure 2024":            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,10,4\n2024-05-10 00:00:02.009930+00:00,20,5\n",
		"Azure 2024, images":    "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\r\n2024-10-15 10:04:58,3,10,4\r\n2024-10-15 10:05:00,0,20,5\r\n",
		"BurstGPT":              "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,10,4,14,Conversation log\n7,GPT-4,20,5,25,API log\n",
		"Vidur":                 "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,4\n2.5,20,5\n",
		"other order, RFC 3339": "\ufeffoutput_tokens,input_tokens,arrival_time\n5,20,2024-01-01T00:00:02Z\n4,10,2024-01-01T00:00:00Z\n",
		"Unix times":            "timestamp,prompt_tokens,completion_tokens\n1700000000.5,10,4\n1700000002.5,20,5\n",
		"lengths as fractions":  "timestamp,prompt_tokens,completion_tokens\n0,10.0,4.0\n2,20.0,5.0\n",
		"names in quotes":       "\ufeff\"timestamp\",\"prompt_tokens\",\"completion_tokens\"\n0,10,4\n2,20,5\n",
		"JSON, marked":          "\ufeff" + `{"timestamp":1.5,"input_length":10.0,"output_length":4.0}` + "\r\n" + `{"timestamp":101.5,"input_length":20,"output_length":5}` + "\r\n",
		"JSON, times in s":      `{"chat_id":1,"timestamp":1.5,"input_length":10,"output_length":4,"hash_ids":[1]}` + "\n\n" + `{"timestamp":101.5,"input_length":20,"output_length":5}` + "\n",
	} {
		rows := rowsOf(t, text)
		want := []Row{{At: 0, Input: 10, Output: 4}, {At: 2 * time.Second, Input: 20, Output: 5}}
		same := func(a, b Row) bool {
			return a.Input == b.Input && a.Output == b.Output && (a.At == b.At || strings.HasPrefix(name, "JSON") && (a.At-50*b.At).Abs() < 3*time.Second)
		}
		if !slices.EqualFunc(rows, want, same) {
			t.Errorf("%s: %+v", name, rows)
		}
	}
}

// Blocks of 16 tokens become blocks of 512 that are equal where all of theirs are.
func TestShortBlocksAreJoined(t *testing.T) {
	line := func(at, last int) string {
		ids := make([]string, 100)
		for i := range ids {
			ids[i] = strconv.Itoa(i + 7)
		}
		ids[70] = strconv.Itoa(last)
		return fmt.Sprintf(`{"timestamp":%d,"input_length":1600,"output_length":1,"hash_ids":[%s]}`+"\n", at, strings.Join(ids, ","))
	}
	rows := rowsOf(t, line(0, 1)+line(9000, 2))
	a, b := rows[0].Blocks, rows[1].Blocks
	if len(a) != 4 || len(b) != 4 || a[0] != b[0] || a[1] != b[1] || a[2] == b[2] || a[3] == b[3] {
		t.Errorf("blocks %v and %v", a, b)
	}
	if same := rowsOf(t, mooncake); !slices.Equal(same[2].Blocks, []uint64{0, 7, 10}) {
		t.Errorf("blocks of 512 tokens are %v", same[2].Blocks)
	}
}

// What the service logged is played again: each request once, with its session, and
// what it shares by the blocks of the log.
func TestTheDecisionLogIsATrace(t *testing.T) {
	line := func(id, more string) string {
		return `{"at":"2026-11-30T10:00:0` + id + `Z","regret_ms":3,"decision_id":"dec_` + id + `","model_type":"m` + more + "\n"
	}
	trace, err := readTrace(strings.NewReader(
		line("0", `","share":1,"session":"5e55","input_tokens":2000,"prompt_bytes":8000,"blocks":["0a","0b","0c","0d","0e","0f","10","11","12"],"outcome":{"output_tokens":30}`+"}")+
			line("0", `","share":1,"input_tokens":2000,"outcome":{"output_tokens":30}}`)+
			line("2", `2","share":0.5,"input_tokens":1100,"block_tokens":512,"blocks":["0a","1b"],"outcome":{"output_tokens":50}}`)+
			line("4", `","share":1,"input_tokens":7}`)), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := []Row{
		{At: 0, Input: 2000, Output: 30, Session: "5e55", Blocks: []uint64{0x11, 0x12}},
		{At: 2 * time.Second, Input: 1100, Output: 50, Blocks: []uint64{0x0a, 0x1b}},
		{At: 4 * time.Second, Input: 7, Output: 40},
	}
	if !slices.EqualFunc(trace.Rows, want, func(a, b Row) bool { return sameRow(a, b) && a.Session == b.Session }) {
		t.Errorf("rows %+v\nwant %+v", trace.Rows, want)
	}
	if len(trace.Notes) != 2 || !strings.HasPrefix(trace.Notes[0], "requests for 2 model types") || !strings.HasPrefix(trace.Notes[1], "1 lines are of times") {
		t.Errorf("notes %q", trace.Notes)
	}
	if trace.Model != "" {
		t.Errorf("of two model types is played %q", trace.Model)
	}
	a, b := play(t, trace.Rows, 1), ""
	for range 4 {
		if next := a.Next(); next.Input == 2000 {
			if next.Session == b || next.Session == "" {
				t.Errorf("the session is %q, in the pass before %q", next.Session, b)
			}
			b = next.Session
		}
	}
	long, err := readTrace(strings.NewReader(line("0", `","input_tokens":1000000000,"outcome":{"output_tokens":2000000}}`)+line("1", `","input_tokens":9}`)), 1)
	if err != nil || long.Model != "m" || long.Rows[0].Input != maxTokens || long.Rows[0].Output != maxTokens || !slices.Contains(long.Notes, "2 lengths of more than 1048576 tokens count as that") {
		t.Errorf("a request that named a billion tokens: %+v, %v", long, err)
	}
	for more, why := range map[string]string{
		`"}`: "line 1: input_tokens is missing", `","input_tokens":-1}`: "line 1: input_tokens: -1", `","input_tokens":9,"blocks":["x"]}`: `line 1: blocks: "x" is no hash`,
		`","input_tokens":9,"outcome":{"output_tokens":-1}}`: "line 1: output_tokens: -1", "x\",\"input_tokens\":9}\n" + `{"at":"1999-11-30T10:00:00Z","decision_id":"x","input_tokens":9}`: "line 2: at is too far",
	} {
		if _, err := readTrace(strings.NewReader(line("0", more)), 1); !errors.Is(err, ErrTrace) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %s", more, err, why)
		}
	}
}

// What real traces have is played, and what cannot be is said.
func TestReadTraceSaysWhatItLeavesOut(t *testing.T) {
	trace, err := readTrace(strings.NewReader(azure+"2023-11-16 18:15:40,0,4\n2023-11-16 18:15:45,5,0\n2023-11-16 18:15:45,6,1\n"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"1 rows without a prompt are left out", "1 answers of 0 tokens count as 1"}; !slices.Equal(trace.Notes, want) {
		t.Errorf("notes %q, want %q", trace.Notes, want)
	}
	first := trace.Rows[:2]
	if len(trace.Rows) != 4 || first[0].At != 0 || first[1].At != 0 || first[0].Input != 5 || first[0].Output != 1 || first[1].Input != 6 {
		t.Errorf("rows %+v; want the two of one time first, in the order of the file", trace.Rows)
	}
}

// Requests of one time come at different times, and before those of the next time that
// the trace has.
func TestRequestsOfOneTimeAreSpread(t *testing.T) {
	var text strings.Builder
	for at := range 3 {
		for range 20 {
			fmt.Fprintf(&text, `{"timestamp":%d,"input_length":%d,"output_length":1}`+"\n", at*400, at+1)
		}
	}
	times := map[time.Duration]bool{}
	for i, r := range rowsOf(t, text.String()) {
		if r.Input != i/20+1 {
			t.Fatalf("request %d is one of those that stand at %d ms", i, (r.Input-1)*400)
		}
		times[r.At] = true
	}
	if len(times) < 50 {
		t.Errorf("60 requests come at %d times", len(times))
	}
}

// However long a file is, so many of its rows are read, and that is said.
func TestTheRowsOfATraceAreBounded(t *testing.T) {
	logged := `{"at":"2026-11-30T10:00:00Z","decision_id":"%d","model_type":"m","input_tokens":5}` + "\n"
	for name, c := range map[string]struct {
		read reader
		text string
	}{
		"Mooncake":         {readMooncake, mooncake + mooncake},
		"Azure":            {readAzure, azure + strings.Join(strings.SplitAfter(azure, "\n")[1:], "")},
		"the decision log": {readDecisionLog, fmt.Sprintf(logged+logged+logged+logged, 1, 2, 3, 4)},
	} {
		for most, want := range map[int]int{3: 3, 100: strings.Count(c.text, "\n") - strings.Count(c.text, "TIMESTAMP")} {
			left := leftOut{most: most}
			rows, err := c.read(bufio.NewReader(strings.NewReader(c.text)), &left)
			if err != nil || len(rows) != want {
				t.Errorf("%s: of at most %d rows %d are read, want %d, %v", name, most, len(rows), want, err)
			}
			if said := slices.Contains(left.notes(), "only the first 3 rows are read"); said != (most == 3) {
				t.Errorf("%s: of at most %d rows is noted %q", name, most, left.notes())
			}
		}
	}
}

func TestReadTraceRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, why string }{
		"nothing":           {"", "it begins with"},
		"another format":    {"a,b,c\n", "line 1: there is no column TIMESTAMP among"},
		"no trace":          {"hello\n", `it begins with "hello"`},
		"one row":           {strings.SplitAfter(mooncake, "\n")[0], "1 rows with a prompt, want at least 2"},
		"rows at one time":  {"TIMESTAMP,ContextTokens,GeneratedTokens\n" + strings.Repeat("2023-11-16 18:15:46.6805900,374,44\n", 2), "all rows have the same time"},
		"no JSON":           {mooncake + "{\n", "line 4: "},
		"a duplicate":       {mooncake + `{"timestamp":1,"timestamp":2,"input_length":1,"output_length":1}`, "line 4: "},
		"no time in JSON":   {mooncake + `{"input_length":1,"output_length":1}`, "line 4: timestamp is missing"},
		"no input":          {mooncake + `{"timestamp":1,"output_length":1}`, "line 4: input_length is missing"},
		"no output":         {mooncake + `{"timestamp":1,"input_length":1}`, "line 4: output_length is missing"},
		"too many tokens":   {mooncake + `{"timestamp":1,"input_length":2000000,"output_length":1}`, "line 4: input_length: 2000000, want 0 to"},
		"negative tokens":   {mooncake + `{"timestamp":1,"input_length":-2,"output_length":1}`, "line 4: input_length: -2"},
		"too long answer":   {mooncake + `{"timestamp":1,"input_length":1,"output_length":2000000}`, "line 4: output_length: 2000000"},
		"negative time":     {mooncake + `{"timestamp":-1,"input_length":1,"output_length":1}`, "line 4: timestamp: -1"},
		"too long a trace":  {mooncake + `{"timestamp":9e12,"input_length":1,"output_length":1}`, "timestamp: from first to last"},
		"other columns":     {"TIMESTAMP,Tokens,More\n", "line 1: there is no column ContextTokens"},
		"no time":           {azure + "yesterday,1,1\n", `line 4: TIMESTAMP: "yesterday" is neither`},
		"too far a time":    {azure + "1700-11-16 18:15:46,1,1\n", "line 4: TIMESTAMP: "},
		"no number":         {azure + "2023-11-16 18:15:50.9951690,many,1\n", `line 4: ContextTokens: "many" is no whole number`},
		"no number at last": {azure + "2023-11-16 18:15:50.9951690,1,1.5\n", `line 4: GeneratedTokens: 1.5 is no whole number`},
		"not a number":      {azure + "2023-11-16 18:15:50.9951690,NaN,1\n", `line 4: ContextTokens: NaN is no whole number`},
		"a part of a token": {mooncake + `{"timestamp":1,"input_length":1.5,"output_length":1}`, "line 4: input_length: 1.5 is no whole number"},
		"a line too long":   {mooncake + `{"hash_ids":[` + strings.Repeat("1,", maxLine), "line 4: "},
		"a missing column":  {azure + "2023-11-16 18:15:50.9951690,1\n", "record on line 4: wrong number of fields"},
		"broken gzip":       {"\x1f\x8b\x00", "EOF"},
	} {
		if _, err := readTrace(strings.NewReader(c.text), 1); !errors.Is(err, ErrTrace) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %s", name, err, c.why)
		}
	}
}

// A file that cannot be read is not taken for one of an unknown format.
func TestReadTraceSaysWhatCannotBeRead(t *testing.T) {
	if _, err := ReadTraceFile(t.TempDir(), 1); err == nil || strings.Contains(err.Error(), "begins") {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte(mooncake))
	f.Add([]byte(azure))
	f.Add(sampleTrace[:600])
	f.Add([]byte("time,input_tokens,output_tokens\n1e9,1,1\n3,2,2\n"))
	for _, years := range []string{"0001", "1700", "2100", "9999"} { // further apart than a duration reaches
		f.Add([]byte("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,1,1\n" + years + "-05-10 00:00:00,1,1\n0001-01-01 00:00:00,1,1\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		trace, err := readTrace(bytes.NewReader(text), 1)
		if err != nil {
			if !errors.Is(err, ErrTrace) {
				t.Fatal(err)
			}
			return
		}
		for i, r := range trace.Rows {
			if r.At < 0 || i > 0 && r.At < trace.Rows[i-1].At || r.Input < 1 || r.Output < 1 {
				t.Fatalf("row %d: %+v", i, r)
			}
		}
		w := play(t, trace.Rows, 10)
		for range len(trace.Rows) + 1 {
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
	trace, err := ReadTraceFile("", 1)
	if err != nil || len(trace.Rows) != 2800 {
		t.Fatalf("%+v, %v; want 2800 rows", trace, err)
	}
	var tokens int
	for _, r := range trace.Rows {
		tokens += r.Input
	}
	if mean := tokens / len(trace.Rows); mean < 12_000 || mean > 15_000 {
		t.Errorf("%d tokens a prompt, want about 13,600", mean)
	}
}
