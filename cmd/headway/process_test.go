package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asHeadway makes the test binary the program itself, so that the tests run
// whole processes without building anything.
const asHeadway = "HEADWAY_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asHeadway) == "" {
		// A process with the race detector sleeps for a second before it exits, and
		// hundreds of commands are run.
		_ = os.Setenv("GORACE", "atexit_sleep_ms=20 "+os.Getenv("GORACE"))
		os.Exit(m.Run())
	}
	main()
}

// here runs a command in this process.
func here(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// The exit codes that the page of the command line promises.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitConflict    = 5
	exitUnavailable = 6
	exitDifferent   = 7
	exitDamage      = 8
)

// process is a headway that runs.
type process struct {
	testing.TB
	cmd     *exec.Cmd
	url     string
	client  *http.Client
	lines   chan string // of standard error, from "listening" on
	exited  chan error
	dataDir string
}

func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asHeadway+"=1")
	return cmd
}

var listening = regexp.MustCompile(`msg=listening addr=(\S+)`)

// serve starts a service on port 0 and returns when it listens. It has no lame duck
// unless the arguments name one.
func serve(t testing.TB, dataDir string, args ...string) *process {
	t.Helper()
	return start(t, dataDir, command(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir, "--audit-file", filepath.Join(dataDir, "audit.log"), "--redis-mode", "off", "--http-lame-duck", "1ms"}, args...)...))
}

// start starts a command that serves, and returns when it listens.
func start(t testing.TB, dataDir string, cmd *exec.Cmd) *process {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{
		TB: t, dataDir: dataDir, cmd: cmd, lines: make(chan string, 1000), exited: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 10 * time.Second},
	}
	addr := make(chan string, 1)
	go func() {
		var before []string
		scan := bufio.NewScanner(stderr)
		for scan.Scan() {
			if m := listening.FindStringSubmatch(scan.Text()); m != nil {
				addr <- m[1]
			}
			before = append(before, scan.Text())
			select {
			case p.lines <- scan.Text():
			default:
			}
		}
		err := cmd.Wait()
		close(addr)
		close(p.lines)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, strings.Join(before[max(0, len(before)-5):], "\n"))
		}
		p.exited <- err
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	host, ok := <-addr
	if !ok {
		t.Fatalf("the service did not start: %v", <-p.exited)
	}
	p.url = "http://" + host
	return p
}

func (p *process) do(method, path, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(p.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

func (p *process) must(want int, method, path, body string) []byte {
	p.Helper()
	status, answer, err := p.do(method, path, body)
	if err != nil || status != want {
		p.Fatalf("%s %s: %d, %v: %s; want %d", method, path, status, err, answer, want)
	}
	return answer
}

func (p *process) signal(s os.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

// stop ends the process by SIGTERM and wants it to end well.
func (p *process) stop() {
	p.Helper()
	p.signal(syscall.SIGTERM)
	if err := <-p.exited; err != nil {
		p.Fatalf("stopping: %v", err)
	}
}

func headBody(id string) string {
	return fmt.Sprintf(`{"id":%q,"endpoint":"http://127.0.0.1:9","model_types":["m"],"region":"us","status":"active"}`, id)
}

func TestServeDecidesAndStopsWell(t *testing.T) {
	p := serve(t, t.TempDir())
	p.must(200, "GET", "/livez", "")
	p.must(200, "GET", "/readyz", "")
	p.must(201, "POST", "/api/v1/heads", headBody("a"))
	var d struct {
		DecisionID string `json:"decision_id"`
		Head       struct{ ID string }
	}
	if err := json.Unmarshal(p.must(200, "POST", "/api/v1/decisions", `{"model_type":"m"}`), &d); err != nil || d.Head.ID != "a" {
		t.Fatalf("decision %+v, %v", d, err)
	}
	p.must(204, "POST", "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"ok"}`)
	metrics := string(p.must(200, "GET", "/metrics", ""))
	if !strings.Contains(metrics, `routing_decisions_total{model_type="m",region="us",strategy="adaptive"} 1`) {
		t.Error("the decision was not counted")
	}
	p.stop()
}

// Nothing that was acknowledged may be lost when the process is killed: heads
// that registered, and policies that the log said are in force.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	writePolicy := func(n int) {
		text := fmt.Sprintf("default_strategy: random\naliases: {round: m%d}\n", n)
		if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	acknowledged := map[string]bool{}
	revision := 0
	for round := range rounds {
		writePolicy(round * 1000)
		p := serve(t, dir, "--policy", policy)
		mustHold(p, acknowledged, revision)

		var mu sync.Mutex
		var wait sync.WaitGroup
		for worker := range 4 {
			wait.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("h-%d-%d-%d", round, worker, i)
					status, _, err := p.do("POST", "/api/v1/heads", headBody(id))
					if err != nil {
						return
					}
					if status == 201 {
						mu.Lock()
						acknowledged[id] = true
						mu.Unlock()
					}
					_, _, _ = p.do("POST", "/api/v1/decisions", `{"model_type":"m"}`)
				}
			})
		}
		wait.Go(func() {
			for i := 1; ; i++ {
				writePolicy(round*1000 + i)
				if p.cmd.Process.Signal(syscall.SIGHUP) != nil {
					return
				}
				r, ok := nextRevision(p)
				if !ok {
					return
				}
				mu.Lock()
				revision = max(revision, r)
				mu.Unlock()
			}
		})
		timer := time.NewTimer(time.Duration(20+rand.IntN(80)) * time.Millisecond)
		<-timer.C
		p.signal(syscall.SIGKILL)
		wait.Wait()
		<-p.exited
	}
	p := serve(t, dir)
	mustHold(p, acknowledged, revision)
	t.Logf("%d heads and policy revision %d were acknowledged over %d kills", len(acknowledged), revision, rounds)
	if len(acknowledged) < rounds || revision < rounds/2 {
		t.Errorf("too little was acknowledged to show anything: %d heads, revision %d", len(acknowledged), revision)
	}
}

// After heads came and went under decisions of which some ended twice and some
// never, every place is free again.
func TestNothingStaysInFlightAfterChaos(t *testing.T) {
	p := serve(t, t.TempDir(), "--decisions-reservation-ttl", "1s")
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 150 {
				id := fmt.Sprintf("h%d", random.IntN(10))
				_, _, _ = p.do("POST", "/api/v1/heads", fmt.Sprintf(
					`{"id":%q,"endpoint":"http://127.0.0.1:9","model_type":"m","region":"us","status":"active","capacity":{"max_in_flight":20}}`, id))
				for range random.IntN(6) {
					_, body, _ := p.do("POST", "/api/v1/decisions", `{"model_type":"m"}`)
					var d struct {
						DecisionID string `json:"decision_id"`
					}
					if json.Unmarshal(body, &d) != nil || d.DecisionID == "" {
						continue
					}
					for range random.IntN(3) {
						_, _, _ = p.do("POST", "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"cancelled"}`)
					}
				}
				if random.IntN(4) == 0 {
					_, _, _ = p.do("DELETE", "/api/v1/heads/"+id, "")
				}
			}
		})
	}
	wait.Wait()
	p.until(patience, "headway_reservations_open 0")
	places := regexp.MustCompile(`(?m)^headway_head_in_flight\{head="([^"]+)"\} (\S+)$`)
	heads := places.FindAllStringSubmatch(string(p.must(200, "GET", "/metrics", "")), -1)
	if len(heads) < 2 {
		t.Fatalf("in-flight counts of %d heads", len(heads))
	}
	for _, h := range heads {
		if h[2] != "0" {
			t.Errorf("%s has %s in flight, and nothing is open", h[1], h[2])
		}
	}
	p.stop()
}

var inForce = regexp.MustCompile(`msg="policy in force".* revision=(\d+)`)

// nextRevision waits until the log says that a policy is in force.
func nextRevision(p *process) (revision int, ok bool) {
	for line := range p.lines {
		if m := inForce.FindStringSubmatch(line); m != nil {
			_, err := fmt.Sscan(m[1], &revision)
			return revision, err == nil
		}
	}
	return 0, false
}

func mustHold(p *process, heads map[string]bool, revision int) {
	p.Helper()
	have := map[string]bool{}
	cursor := ""
	for {
		var page struct {
			Data       []struct{ ID string }
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(p.must(200, "GET", "/api/v1/heads?limit=1000&cursor="+cursor, ""), &page); err != nil {
			p.Fatal(err)
		}
		for _, h := range page.Data {
			have[h.ID] = true
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	for id := range heads {
		if !have[id] {
			p.Fatalf("head %s was acknowledged and is lost", id)
		}
	}
	var now int
	if _, err := fmt.Sscan(gauge(p, "headway_policy_revision"), &now); err != nil || now < revision {
		p.Fatalf("policy revision %d was acknowledged, the service has %d (%v)", revision, now, err)
	}
}

func gauge(p *process, name string) string {
	p.Helper()
	for line := range bytes.Lines(p.must(200, "GET", "/metrics", "")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(string(line)), name+" "); ok {
			return value
		}
	}
	p.Fatalf("no metric %s", name)
	return ""
}

// A restart under load loses no request: the lame duck lets clients move on.
func TestRestartLosesNoRequest(t *testing.T) {
	p := serve(t, t.TempDir(), "--http-lame-duck", "1s")
	p.must(201, "POST", "/api/v1/heads", headBody("a"))
	leave := make(chan struct{})
	var failed, done int
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for {
				select {
				case <-leave:
					return
				default:
				}
				status, _, err := p.do("POST", "/api/v1/decisions", `{"model_type":"m"}`)
				mu.Lock()
				if done++; err != nil || status != 200 {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	p.signal(syscall.SIGTERM)
	for { // a client moves on when readiness fails
		status, _, err := p.do("GET", "/readyz", "")
		if err != nil {
			t.Fatalf("readiness was not published before the listener closed: %v", err)
		}
		if status == http.StatusServiceUnavailable {
			break
		}
	}
	close(leave)
	wait.Wait()
	if err := <-p.exited; err != nil {
		t.Fatal(err)
	}
	if failed > 0 || done == 0 {
		t.Errorf("%d of %d requests failed during the stop", failed, done)
	}
}

func TestOtherAddressesThanLoopbackAreRefused(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:80", "example.com:80", "nonsense"} {
		out, err := command(t, "serve", "--listen", addr, "--data-dir", t.TempDir(), "--audit-file", filepath.Join(t.TempDir(), "audit.log")).CombinedOutput()
		if code := exitCode(err); code == 0 || !strings.Contains(string(out), "--listen") {
			t.Errorf("--listen %s: exit %d: %s", addr, code, out)
		}
	}
}

func TestADamagedStateFileIsRefusedWithAWayOut(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir)
	p.must(201, "POST", "/api/v1/heads", headBody("a"))
	p.stop()
	backup := filepath.Join(t.TempDir(), "backup.jsonl")
	if out, err := command(t, "state", "export", "--data-dir", dir, backup).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "headway.db")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte("127.0.0.1"))
	if at < 0 {
		t.Fatal("the head's endpoint is not in the file")
	}
	for i := at; i >= 0; {
		data[i] ^= 0x20
		next := bytes.Index(data[i+1:], []byte("127.0.0.1"))
		if next < 0 {
			break
		}
		i += 1 + next
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--audit-file", filepath.Join(dir, "audit.log")).CombinedOutput()
	if exitCode(err) != 1 || !strings.Contains(string(out), "headway state") {
		t.Errorf("serve on a damaged file: %v: %s", err, out)
	}
	if out, err := command(t, "state", "check", "--data-dir", dir).CombinedOutput(); exitCode(err) != exitDamage {
		t.Errorf("state check: %v: %s", err, out)
	}
	if err := os.Rename(file, file+".damaged"); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "state", "import", "--data-dir", dir, backup).CombinedOutput(); err != nil {
		t.Fatalf("state import: %v: %s", err, out)
	}
	p = serve(t, dir)
	p.must(200, "GET", "/api/v1/heads/a", "")
	p.stop()
}

func TestWrongUseIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"serve", "--no-such-flag"}, {"serve", "extra"}, {"state", "import"}, {"config", "print", "--listen", ""},
	} {
		out, err := command(t, args...).CombinedOutput()
		if code := exitCode(err); code == 0 || !strings.HasPrefix(string(out), "headway: ") {
			t.Errorf("headway %s: exit %d: %s", strings.Join(args, " "), code, out)
		}
	}
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
