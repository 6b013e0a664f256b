package trail_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"headway/internal/audit"
	"headway/internal/trail"
)

// hostileTrails are files in the place of a trail that no writer of ours makes.
func hostileTrails() map[string][]byte {
	r := audit.Record{Seq: 1, Stage: audit.Result, Prev: strings.Repeat("0", 64)}
	e := change("policy.put")
	r.Category, r.Action, r.Outcome, r.Actor, r.Before = e.Category, e.Action, e.Outcome, e.Actor, e.Before
	sound := string(audit.AppendLine(nil, &r))
	before, tail := sound[:strings.Index(sound, `"before":`)]+`"before":`, sound[strings.Index(sound, `,"prev":`):]
	return map[string][]byte{
		"NULs":                            make([]byte, 8<<20),
		"NULs after a record":             append([]byte(sound), make([]byte, 8<<20)...),
		"one endless line":                bytes.Repeat([]byte("x"), 8<<20),
		"an endless record":               []byte(before + `"` + strings.Repeat("x", 8<<20) + "\n"),
		"an endless line between records": []byte(sound + strings.Repeat("x", 8<<20) + "\n" + sound),
		"empty lines":                     bytes.Repeat([]byte("\n"), 1<<20),
		"deep JSON":                       []byte(before + strings.Repeat("[", 4<<20) + "\n" + sound),
		"deep JSON in a record":           []byte(before + strings.Repeat("[", 7000) + strings.Repeat("]", 7000) + tail),
		"not UTF-8":                       []byte(strings.Replace(sound, "policy.put", "\xff\xfe\x80", 1) + "\xff\xff\n"),
		"a huge sequence":                 []byte(strings.Replace(sound, `"seq":1,`, `"seq":`+strings.Repeat("9", 10_000)+`,`, 1)),
		"carriage returns":                []byte(strings.ReplaceAll(strings.Repeat(sound, 100), "\n", "\r\n")),
		"surrogates":                      []byte(strings.Replace(sound, "policy.put", `\ud800\udfff\u0000`, 1)),
		"escapes":                         []byte(before + `"` + strings.Repeat(`\u0000`, 2000) + `"` + tail),
	}
}

// With anything in the place of a trail, all that reads it ends with an answer or
// an error, and takes memory for lines and not for the file.
func TestHostileTrails(t *testing.T) {
	for what, text := range hostileTrails() {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := trail.Verify(ctx, path, trail.VerifyOptions{}); err != nil {
				t.Errorf("verify: %v", err)
			}
			for _, q := range []trail.Query{{Limit: trail.MaxFound}, {Since: time.Now(), Actor: "x", Limit: 1}, {Cursor: "18446744073709551615"}} {
				if _, _, err := trail.Search(ctx, path, q); err != nil {
					t.Errorf("search %+v: %v", q, err)
				}
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
				t.Errorf("%d MiB were taken to read %d", took>>20, len(text)>>20)
			}
			// The service starts beside it, or refuses to.
			o := newWorld(t).o
			o.Path = path
			if j, err := audit.Open(o); err == nil {
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			} else if strings.Contains(err.Error(), "runtime error") {
				t.Error(err)
			}
		})
	}
}
