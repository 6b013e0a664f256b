package history

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// logged is a sample that was read from a log.
type logged struct {
	labels string
	at     int64
	bits   uint64
}

// someRecent is a log of some steps, and its samples with where each step ends.
func someRecent(t testing.TB, path string) (all []logged, ends []int64) {
	t.Helper()
	r := &recent{path: path}
	if err := r.begin(time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	ends = append(ends, r.size)
	random := rand.New(rand.NewPCG(1, 2))
	var known []*Series
	for step := range 12 {
		known = append(known, &Series{labels: labels.FromStrings("__name__", fmt.Sprint("m", step), "x", string([]byte{byte(step), 0xff}))})
		var samples []written
		for i, one := range known {
			v := []float64{float64(step), staleNaN, math.Inf(-1), random.NormFloat64(), 0, math.Copysign(0, -1)}[(step+i)%6]
			samples = append(samples, written{one, int64(step) * 1000, v})
			all = append(all, logged{one.labels.String(), int64(step) * 1000, math.Float64bits(v)})
		}
		if err := r.write(samples, time.Unix(int64(step), 0)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, r.size)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	return all, ends
}

func readAll(content []byte) (all []logged, err error) {
	err = decodeRecent(bytes.NewReader(content), func(l labels.Labels, at int64, v float64) {
		all = append(all, logged{l.String(), at, math.Float64bits(v)})
	})
	return all, err
}

// A log is read to where it was torn, at any byte, and what is
// damaged is never taken for a sample.
func TestTheRecentLogIsReadToWhereItIsTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recent")
	want, ends := someRecent(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	steps := func(bytes int) int { // that are whole within so many bytes
		n := 0
		for _, end := range ends[1:] {
			if end <= int64(bytes) {
				n++
			}
		}
		return n * (n + 1) / 2
	}
	for n := range len(whole) + 1 {
		got, err := readAll(whole[:n])
		if (err == nil) != (n >= len(recentMagic)) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if len(got) != steps(n) {
			t.Fatalf("%d bytes have %d samples, want %d", n, len(got), steps(n))
		}
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		got, _ := readAll(damaged)
		if len(got) > steps(i) {
			t.Fatalf("with byte %d damaged there are %d samples, want %d at most", i, len(got), steps(i))
		}
		for k := range got {
			if got[k] != want[k] {
				t.Fatalf("with byte %d damaged sample %d is %v, want %v", i, k, got[k], want[k])
			}
		}
	}
	got, err := readAll(whole)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%d samples, %v; want %d", len(got), err, len(want))
	}
}

// The log is synced when the time has come, not at each step, and a snapshot
// empties it.
func TestTheRecentLogIsSyncedAndEmptied(t *testing.T) {
	r := &recent{path: filepath.Join(t.TempDir(), "recent")}
	at := time.Unix(1000, 0)
	if err := r.begin(at); err != nil {
		t.Fatal(err)
	}
	one := &Series{labels: labels.FromStrings("__name__", "m")}
	for i := range 31 {
		if err := r.write([]written{{one, int64(i), 1}}, at.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
		if want := at.Add(time.Duration(i) / 15 * 15 * time.Second); !r.synced.Equal(want) {
			t.Fatalf("after %d s it was synced at %s, want %s", i, r.synced, want)
		}
	}
	if err := r.begin(at); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(r.path); err != nil || info.Size() != int64(len(recentMagic)) || r.size != info.Size() {
		t.Errorf("after a snapshot it has %d bytes and %v, %v", r.size, info, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if err := r.write([]written{{one, 99, 1}}, at); err != nil {
		t.Errorf("a log that is closed is written: %v", err)
	}
}

func FuzzRecentLog(f *testing.F) {
	path := filepath.Join(f.TempDir(), "recent")
	someRecent(f, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(recentMagic))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _ = readAll(content)
		// Payloads whose sum is right are read by the same decoder.
		d := &decoder{each: func(l labels.Labels, _ int64, _ float64) { _ = l.Hash() }}
		_ = d.frame(content)
		_ = d.frame(content)
	})
}
