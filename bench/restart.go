package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"headway/internal/boltstore"
	"headway/internal/feed"
	"headway/internal/fleet"
)

const restartSection = "restart with 100,000 heads: from the start of the process to readiness"

// Limits of a restart with 100,000 heads.
const (
	restartSeconds = 3
	restartMiB     = 350
)

var listening = regexp.MustCompile(`msg=listening addr=(\S+)`)

// restart starts the program with n confirmed heads, and measures its time to
// readiness and its memory.
func restart(ctx context.Context, n int) (err error) {
	dir, err := os.MkdirTemp("", "headway-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	first, err := seed(ctx, filepath.Join(dir, "headway.db"), n)
	if err != nil {
		return err
	}
	binary, err := build(ctx, dir)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--http-lame-duck", "1ms")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	var url string
	for scan := bufio.NewScanner(stderr); url == "" && scan.Scan(); {
		if m := listening.FindStringSubmatch(scan.Text()); m != nil {
			url = "http://" + m[1]
		}
	}
	if err := untilReady(ctx, url); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	took := time.Since(begin).Seconds()
	mib, err := residentMiB(cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("  ready after %.2f s (to reach: ≤ %d s, %s); resident %d MiB (to reach: ≤ %d MiB, %s)\n",
		took, restartSeconds, mark(took <= restartSeconds), mib, restartMiB, mark(mib <= restartMiB))
	begin = time.Now()
	if err := reportAll(ctx, url, first, n); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	took = time.Since(begin).Seconds()
	if mib, err = residentMiB(cmd.Process.Pid); err != nil {
		return err
	}
	fmt.Printf("  after a report of each head over HTTP, %.0f a second: resident %d MiB (to reach: ≤ %d MiB, %s)\n",
		float64(n)/took, mib, restartMiB, mark(mib <= restartMiB))
	return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
}

func mark(ok bool) string {
	if ok {
		return "reached"
	}
	return "NOT REACHED"
}

const reporters = 16

func reportAll(ctx context.Context, url string, firstEpoch uint64, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: reporters}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	errs := make([]error, reporters)
	var wait sync.WaitGroup
	for worker := range reporters {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[worker] == nil; i = next.Add(1) - 1 {
				errs[worker] = sendReport(ctx, client, url+"/api/v1/heads/"+headID(int(i))+"/status", firstEpoch+uint64(i))
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func sendReport(ctx context.Context, client *http.Client, url string, epoch uint64) error {
	body := fmt.Sprintf(`{"epoch":%d,"status":"active","load":{"in_flight":12,"queued":0,"kv_cache_usage":0.25,"kv_capacity_tokens":400000}}`, epoch)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("report: %s: %s", res.Status, answer)
	}
	return errors.Join(err, res.Body.Close())
}

func headID(i int) string { return fmt.Sprintf("head-%06d", i) }

// seed writes n heads of 20 models in 10 regions and returns the first epoch.
func seed(ctx context.Context, path string, n int) (first uint64, err error) {
	store, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		return 0, err
	}
	if first, err = store.GrantEpochs(ctx, uint64(n)); err != nil {
		return 0, errors.Join(err, store.Close())
	}
	now := time.Now().UTC()
	var batch []feed.Change[fleet.Record]
	for i := range n {
		id := headID(i)
		batch = append(batch, feed.Change[fleet.Record]{ID: id, Value: &fleet.Record{
			Spec: fleet.Spec{
				ID: id, Endpoint: fmt.Sprintf("http://10.%d.%d.%d:8000", i>>16, i>>8&255, i&255),
				ModelTypes: []string{fmt.Sprintf("model-%02d", i%20)}, Region: fmt.Sprintf("region-%d", i%10),
				Zone: "a", Version: "0.11.0", Engine: "vllm", Weight: 1, MaxInFlight: 256,
				Labels: map[string]string{"gpu": "h100"},
			},
			Epoch: first + uint64(i), Confirmed: true, RegisteredAt: now, UpdatedAt: now,
		}})
		if len(batch) == 5000 || i == n-1 {
			if err := store.Save(ctx, batch); err != nil {
				return 0, errors.Join(err, store.Close())
			}
			batch = batch[:0]
		}
	}
	return first, store.Close()
}

func untilReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
		if err != nil {
			return err
		}
		client := http.Client{Timeout: time.Second}
		res, err := client.Do(req)
		if err == nil {
			err = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready within a minute: %w", errors.Join(err, ctx.Err()))
		}
	}
}

func residentMiB(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmRSS in the process's status")
}
