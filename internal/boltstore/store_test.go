package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"headway/internal/boltstore"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/storetest"
)

const writerEnv = "HEADWAY_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		writeForever(path)
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	files := 0
	dir := t.TempDir()
	storetest.Run(t, func(t testing.TB) (storetest.Store, func() storetest.Store) {
		files++
		path := filepath.Join(dir, strconv.Itoa(files))
		s := open(t, path)
		return s, func() storetest.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path)
			return s
		}
	})
}

func head(i int) *fleet.Record {
	return &fleet.Record{
		Spec: fleet.Spec{
			ID: fmt.Sprintf("head-%06d", i), Endpoint: fmt.Sprintf("http://10.0.%d.%d:8000", i>>8&255, i&255),
			ModelTypes: []string{"llama-3.1-8b"}, Region: "eu-west", Weight: 1,
		},
		Epoch: uint64(i) + 1, Confirmed: true,
	}
}

// fill makes a file with heads and policies and returns what it holds.
func fill(t testing.TB, path string, n int) (heads []fleet.Record, policies []policy.Stored) {
	t.Helper()
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var changes []feed.Change[fleet.Record]
	for i := range n {
		changes = append(changes, feed.Change[fleet.Record]{ID: head(i).Spec.ID, Value: head(i)})
	}
	_, granted := s.GrantEpochs(t.Context(), 1<<16)
	_, saved := s.SavePolicy(t.Context(), 0, policy.Stored{Document: []byte(`{"default_strategy":"random"}`), Source: "file"})
	err = errors.Join(granted, saved, s.Save(t.Context(), changes))
	for i := range min(n, 4) { // a history, which leaves free pages
		changes[i].Expect = changes[i].Value.Revision
		err = errors.Join(err, s.Save(t.Context(), changes[i:i+1]))
	}
	heads, policies, read := contents(s)
	if err := errors.Join(err, read, s.Close()); err != nil {
		t.Fatal(err)
	}
	return heads, policies
}

func contents(s *boltstore.Store) ([]fleet.Record, []policy.Stored, error) {
	heads, _, err := s.Heads(context.Background())
	policies, perr := s.PolicyRevisions(context.Background(), 1000)
	return heads, policies, errors.Join(err, perr)
}

func TestASecondProcessIsRefused(t *testing.T) {
	t.Parallel() // it waits for the lock
	path := filepath.Join(t.TempDir(), "headway.db")
	open(t, path)
	if _, err := boltstore.Open(path, boltstore.Options{}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("the second got %v", err)
	}
	if report, err := boltstore.Check(path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a check says %v, error %v", report.Faults, err)
	}
}

// A start that a crash ended before anything was written is no damage.
func TestAFileThatNothingWasWrittenToIsNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path).GrantEpochs(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoDamageIsNotCalledSo(t *testing.T) {
	for what, path := range map[string]string{
		"a missing directory": filepath.Join(t.TempDir(), "missing", "headway.db"),
		"a directory":         t.TempDir(),
	} {
		if _, err := boltstore.Open(path, boltstore.Options{}); err == nil || strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := boltstore.Check(path); err == nil {
			t.Errorf("%s: check has nothing to say", what)
		}
	}
}

func TestAFileOfANewerProgramIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 1)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Schema 3 with its checksum, as seal writes it.
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), boltstore.Seal([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 3}))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := boltstore.Open(path, boltstore.Options{}); err == nil || !strings.Contains(err.Error(), "upgrade headway") {
		t.Errorf("got %v", err)
	}
}

func TestANearlyFullDiskTakesNoWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 1)
	s, err := boltstore.Open(path, boltstore.Options{MinFreeBytes: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	err = s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: "x", Value: head(7)}})
	if !errors.Is(err, fleet.ErrStoreUnavailable) || !strings.Contains(err.Error(), "min_free_bytes") {
		t.Errorf("got %v", err)
	}
	if heads, _, err := contents(s); err != nil || len(heads) != 1 {
		t.Errorf("reading: %d heads, error %v", len(heads), err)
	}
}

// TestKilledWriterLosesNothingThatItAcknowledged kills a process that saves
// heads, five times, and looks for each head that it said was saved.
func TestKilledWriterLosesNothingThatItAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	acknowledged := map[string]bool{}
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines, want := newLines(out), 5+rand.IntN(20); want > 0 && lines.Scan(); want-- {
			acknowledged[lines.Text()] = true
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if report, err := boltstore.Check(path); err != nil || len(report.Faults) > 0 {
			t.Fatalf("round %d: %v, %v", round, report.Faults, err)
		}
	}
	s := open(t, path)
	heads, _, err := contents(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		delete(acknowledged, h.Spec.ID)
	}
	if len(acknowledged) > 0 {
		t.Errorf("lost: %v", acknowledged)
	}
}

// writeForever saves heads and names each on standard output once it is saved.
func writeForever(path string) {
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	for i := os.Getpid() * 100_000; ; i++ {
		r := head(i)
		r.Spec.ID = fmt.Sprintf("h%d", i)
		if err := s.Save(context.Background(), []feed.Change[fleet.Record]{{ID: r.Spec.ID, Value: r}}); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString(r.Spec.ID + "\n")
	}
}

// BenchmarkOpen opens a file with 100,000 heads and reads them, which verifies
// each record. BenchmarkSave writes one batch with one sync to the disk.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "headway.db")
	fill(b, path, 100_000)
	for b.Loop() {
		s, err := boltstore.Open(path, boltstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if heads, _, err := s.Heads(b.Context()); err != nil || len(heads) != 100_000 {
			b.Fatal(len(heads), err)
		}
		_ = s.Close()
	}
}

func BenchmarkSave(b *testing.B) {
	for _, batch := range []int{1, 32, 1024} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "headway.db"))
			n := 0
			for b.Loop() {
				changes := make([]feed.Change[fleet.Record], batch)
				for i := range changes {
					n++
					changes[i] = feed.Change[fleet.Record]{ID: head(n).Spec.ID, Value: head(n)}
				}
				if err := s.Save(b.Context(), changes); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "heads/s")
		})
	}
}

// Revisions of the policy beyond those that are kept leave their pages to later
// ones: the file is as large after a thousand as after two hundred.
func TestAThousandPoliciesDoNotGrowTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	revision := uint64(0)
	size := func(upTo uint64) int64 {
		for revision < upTo {
			next, err := s.SavePolicy(t.Context(), revision, policy.Stored{Document: fmt.Appendf(nil, `{"n":%q}`, strings.Repeat("x", 4000+int(revision)%100)), Source: "api"})
			if err != nil {
				t.Fatal(err)
			}
			revision = next
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size(200)
	if after := size(1000); after > before+before/4 {
		t.Errorf("the file has %d bytes after 200 policies and %d after 1,000", before, after)
	}
}
