package audit_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"headway/internal/audit"
)

// BenchmarkGroupCommit measures durable records of 1 and of 32 writers, and
// beside them, in the same run, what the disk does for a bare line of the same
// length.
func BenchmarkGroupCommit(b *testing.B) {
	b.Run("bare fdatasync", func(b *testing.B) {
		f, err := os.OpenFile(filepath.Join(b.TempDir(), "bare"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		line := make([]byte, 586)
		for b.Loop() {
			if _, err := f.Write(line); err != nil {
				b.Fatal(err)
			}
			if err := audit.Datasync(f); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
	})
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			j, err := audit.Open(audit.Options{Path: filepath.Join(b.TempDir(), "audit.log"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			var done sync.WaitGroup
			b.ResetTimer()
			for range writers {
				done.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := j.Record(context.Background(), audit.Result, change("policy.put")); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			done.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(b.N)/float64(j.Syncs()), "records/sync")
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
