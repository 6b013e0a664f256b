package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/client"
	"headway/internal/local"
	"headway/internal/mockhead"
)

const (
	speed    = 20               // times faster than real that mock heads work
	patience = 30 * time.Second // for what is started
)

// againstHead tries a mock head itself: what fails here is no fault of Headway.
func againstHead(ctx context.Context, _, _ string) (*run, error) {
	head, err := mockhead.Start(ctx, mockhead.Options{Models: []string{model}, Speed: speed, Control: true})
	if err != nil {
		return nil, err
	}
	return &run{
		name: "against a mock head", programs: programs,
		env:   []string{"HEADWAY_TEST_BASE_URL=" + head.URL(), "HEADWAY_TEST_FAULTS_URL=" + head.URL() + "/faults"},
		close: func() error { head.Close(); return nil },
	}, nil
}

// The policy of the service: other names of the model, and one that no head can
// take.
const policyText = `default_strategy: least_loaded
aliases: {gpt-4o-mini: ` + model + `, claude-sonnet-4-5: ` + model + `}
caller_may: [strategy, region_mode, region, session, priority]
`

// maxBody is small, so that a test can send more.
const maxBody = 2 << 20

// service is a process of headway with keys.
type service struct {
	dir     string
	url     string
	process *exec.Cmd
	admin   *client.Client
	env     []string // for the programs
}

// startService starts headway on a free port. settings are lines of its
// configuration.
func startService(ctx context.Context, binary, settings string) (_ *service, err error) {
	s := &service{}
	if s.dir, err = os.MkdirTemp("", "headway-clients-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	keys := map[string]string{}
	// The first key must be an administrator's.
	for _, flags := range [][]string{{"admin"}, {"viewer"}, {"client"}, {"limited", "--role", "client", "--requests-per-minute", "2"}} {
		name := flags[0]
		file := filepath.Join(s.dir, name+".key")
		args := append([]string{"keys", "create", "--role", name, "--name", name, "--data-dir", s.dir, "--out", file}, flags[1:]...)
		if err := quiet(ctx, "", binary, args...); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		keys[name] = strings.TrimSpace(string(text))
	}
	policy, config, log := filepath.Join(s.dir, "policy.yaml"), filepath.Join(s.dir, "headway.yaml"), filepath.Join(s.dir, "log")
	settings = fmt.Sprintf("policy: %s\nproxy: {max_body_bytes: %d, retry_share: 1}\n%s", policy, maxBody, settings)
	if err := errors.Join(os.WriteFile(policy, []byte(policyText), 0o600), os.WriteFile(config, []byte(settings), 0o600)); err != nil {
		return nil, err
	}
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the process writes to it
	s.process = exec.CommandContext(ctx, binary, "serve", "--config", config, "--listen", "127.0.0.1:0", "--data-dir", s.dir, "--audit-file", filepath.Join(s.dir, "audit.log"))
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	if s.url, err = s.announced(ctx); err != nil {
		text, _ := os.ReadFile(log)
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	if s.admin, err = client.New(s.url, client.WithToken(keys["admin"])); err != nil {
		return nil, err
	}
	s.env = []string{
		"HEADWAY_TEST_BASE_URL=" + s.url, "HEADWAY_TEST_KEY=" + keys["client"],
		"HEADWAY_TEST_VIEWER_KEY=" + keys["viewer"], "HEADWAY_TEST_ADMIN_KEY=" + keys["admin"],
		"HEADWAY_TEST_LIMITED_KEY=" + keys["limited"], "HEADWAY_TEST_ALIAS=gpt-4o-mini", fmt.Sprint("HEADWAY_TEST_MAX_BODY=", maxBody),
	}
	return s, nil
}

// announced is the address that the service says it has.
func (s *service) announced(ctx context.Context) (url string, err error) {
	err = until(ctx, func() error {
		text, err := os.ReadFile(filepath.Join(s.dir, local.File))
		if err != nil {
			return err
		}
		var said local.Service
		err = json.Unmarshal(text, &said)
		url = said.URL
		return err
	})
	return url, err
}

// close stops the service, whose end must be a clean one.
func (s *service) close() error {
	var err error
	if s.process != nil && s.process.Process != nil {
		kill := time.AfterFunc(patience, func() { _ = s.process.Process.Kill() })
		defer kill.Stop()
		err = errors.Join(s.process.Process.Signal(syscall.SIGTERM), s.process.Wait())
		if err != nil {
			err = fmt.Errorf("the service did not end well: %w", err)
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// until tries again until it succeeds.
func until(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting: %w", err)
		}
	}
}

// fleet are the heads behind a service. Its calls come over HTTP from the
// programs, one at a time.
type fleet interface {
	inject(f mockhead.Fault, all bool) error // into all heads, or one
	heal(ctx context.Context) error
	running(ctx context.Context) int // requests at the heads
	kill(ctx context.Context) error  // a head that works, and start it again
}

// control lets programs break the heads of a fleet.
func control(ctx context.Context, f fleet) (url string, stop func() error, err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var mu sync.Mutex
	handle := func(do func(w io.Writer, r *http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if err := do(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
	mux := http.NewServeMux()
	mux.Handle("POST /faults", handle(func(_ io.Writer, r *http.Request) error {
		var fault mockhead.Fault
		return cmp.Or(json.UnmarshalRead(r.Body, &fault, json.RejectUnknownMembers(true)), f.inject(fault, r.URL.Query().Get("heads") == ""))
	}))
	mux.Handle("DELETE /faults", handle(func(_ io.Writer, r *http.Request) error { return f.heal(r.Context()) }))
	mux.Handle("GET /running", handle(func(w io.Writer, r *http.Request) error {
		_, err := fmt.Fprint(w, f.running(r.Context()))
		return err
	}))
	mux.Handle("POST /kill", handle(func(_ io.Writer, r *http.Request) error { return f.kill(r.Context()) }))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	stop = func() error {
		err := server.Close()
		serving.Wait()
		return err
	}
	return "http://" + listener.Addr().String(), stop, nil
}

// againstHeadway tries Headway with two mock heads.
func againstHeadway(ctx context.Context, binary, _ string) (*run, error) {
	s, err := startService(ctx, binary, "")
	if err != nil {
		return nil, err
	}
	f := &mockFleet{service: s}
	for i, region := range []string{"us-east", "eu-west"} {
		m := &mock{place: mockhead.Place{ID: fmt.Sprint("mock-", i+1), Region: region, TakeOver: true}, models: []string{model}}
		f.mocks = append(f.mocks, m)
	}
	// No request can go to this one.
	f.mocks = append(f.mocks, &mock{place: mockhead.Place{ID: "resting", Region: "us-east", TakeOver: true}, models: []string{"resting-model"}})
	r, err := withControl(ctx, s, f, f.close)
	r.name, r.programs = "against Headway and two mock heads", programs
	r.env = append(r.env, "HEADWAY_TEST_FAULTS_URL="+r.control+"/faults")
	for _, m := range f.mocks {
		err = errors.Join(err, f.start(ctx, m))
	}
	if err == nil {
		draining := "draining"
		_, err = s.admin.PatchHead(ctx, "resting", api.HeadPatch{AdminState: &draining})
	}
	return r, err
}

// withControl is a run whose programs can break the fleet.
func withControl(ctx context.Context, s *service, f fleet, closeFleet func() error) (*run, error) {
	url, stop, err := control(ctx, f)
	if err != nil {
		stop = func() error { return nil }
	}
	return &run{
		control: url,
		env:     append(s.env, "HEADWAY_TEST_CONTROL_URL="+url),
		close:   func() error { return errors.Join(stop(), closeFleet(), s.close()) },
	}, err
}

// mockFleet are mock heads that register themselves.
type mockFleet struct {
	service *service
	mocks   []*mock
	pauses  bool // heads may have asked for one by Retry-After
}

type mock struct {
	place  mockhead.Place
	models []string
	head   *mockhead.Head
	quiet  context.CancelFunc
	ended  sync.WaitGroup // the agent
}

func (f *mockFleet) start(ctx context.Context, m *mock) error {
	ctx = context.WithoutCancel(ctx)
	head, err := mockhead.Start(ctx, mockhead.Options{Models: m.models, Speed: speed, StreamInterval: 4})
	if err != nil {
		return err
	}
	agent, err := head.NewAgent(f.service.admin, m.place)
	if err != nil {
		head.Close()
		return err
	}
	ctx, m.quiet = context.WithCancel(ctx)
	m.head = head
	m.ended.Go(func() { agent.Run(ctx) })
	select {
	case <-agent.Ready():
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s did not register", m.place.ID)
	}
}

func (m *mock) stop() {
	if m.head != nil {
		m.quiet()
		m.head.Close()
		m.ended.Wait()
		m.head = nil
	}
}

func (f *mockFleet) inject(fault mockhead.Fault, all bool) error {
	var errs []error
	for i, m := range f.mocks {
		if i > 0 && !all {
			break
		}
		_, err := m.head.Inject(fault)
		errs = append(errs, err)
	}
	if fault.Status == http.StatusTooManyRequests || fault.Status == http.StatusServiceUnavailable {
		f.pauses = true
	}
	return errors.Join(errs...)
}

func (f *mockFleet) heal(ctx context.Context) error {
	for _, m := range f.mocks {
		m.head.Heal()
		// It is no error where the head was not ejected.
		if err := f.service.admin.EndEjection(ctx, m.place.ID); err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
	}
	if f.pauses {
		f.pauses = false
		time.Sleep(1200 * time.Millisecond) // the programs' pauses take a second
	}
	return nil
}

func (f *mockFleet) running(context.Context) (n int) {
	for _, m := range f.mocks {
		l := m.head.Load()
		n += l.Running + l.Waiting
	}
	return n
}

func (f *mockFleet) kill(ctx context.Context) error {
	for _, m := range f.mocks {
		if l := m.head.Load(); l.Running > 0 {
			m.stop()
			return f.start(ctx, m)
		}
	}
	return errors.New("no head works")
}

func (f *mockFleet) close() error {
	for _, m := range f.mocks {
		m.stop()
	}
	return nil
}
