package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"headway/internal/mockhead"
)

// engineFleet are two processes of llama.cpp's server, with a model that was made
// here. The configuration of the service names them.
type engineFleet struct {
	service *service
	python  string
	dir     string // of the model and the logs
	ports   [2]int
	servers [2]*exec.Cmd
	http    http.Client
}

// againstEngine tries Headway with an engine that is not ours.
func againstEngine(ctx context.Context, binary, bin string) (*run, error) {
	f := &engineFleet{python: filepath.Join(bin, "python/bin/python"), http: http.Client{Timeout: 5 * time.Second}}
	var err error
	if f.dir, err = os.MkdirTemp("", "headway-engine-"); err != nil {
		return nil, err
	}
	if err := quiet(ctx, folder, f.python, "llamacpp_model.py", filepath.Join(f.dir, "tiny.gguf")); err != nil {
		return nil, errors.Join(err, f.close())
	}
	settings := "heads:\n"
	for i := range f.servers {
		if f.ports[i], err = freePort(ctx); err != nil {
			return nil, errors.Join(err, f.close())
		}
		if err := f.start(ctx, i); err != nil {
			return nil, errors.Join(err, f.close())
		}
		settings += fmt.Sprintf("- {endpoint: 'http://127.0.0.1:%d', engine: llamacpp, region: here}\n", f.ports[i])
	}
	if f.service, err = startService(ctx, binary, settings); err != nil {
		return nil, errors.Join(err, f.close())
	}
	r, err := withControl(ctx, f.service, f, f.close)
	r.name, r.programs = "against Headway and two servers of llama.cpp", []program{engineProgram}
	r.env = append(r.env, "HEADWAY_TEST_MODEL=tiny")
	return r, errors.Join(err, f.routable(ctx))
}

// freePort is a port that nothing listens on now.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close() //nolint:errcheck // it is only asked for its port
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

func (f *engineFleet) start(ctx context.Context, i int) error {
	log, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprint("log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process writes to it
	c := exec.CommandContext(context.WithoutCancel(ctx), f.python, "llamacpp_server.py", filepath.Join(f.dir, "tiny.gguf"), strconv.Itoa(f.ports[i]))
	c.Dir, c.Stdout, c.Stderr = folder, log, log
	if err := c.Start(); err != nil {
		return err
	}
	f.servers[i] = c
	if err := until(ctx, func() error { _, err := f.get(ctx, i, "/health"); return err }); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("llama.cpp's server: %w: %s", err, text)
	}
	return nil
}

func (f *engineFleet) get(ctx context.Context, i int, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", f.ports[i], path), http.NoBody) //nolint:gosec // the server that this program started
	if err != nil {
		return "", err
	}
	res, err := f.http.Do(r) //nolint:gosec // as above
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(text), err
}

// routable waits until requests can go to each head.
func (f *engineFleet) routable(ctx context.Context) error {
	return until(ctx, func() error {
		for _, port := range f.ports {
			h, err := f.service.admin.Head(ctx, fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				return err
			}
			if !h.Routable {
				return fmt.Errorf("%s is %s", h.ID, h.Health.State)
			}
		}
		return nil
	})
}

func (f *engineFleet) inject(mockhead.Fault, bool) error {
	return errors.New("an engine has no faults to order")
}

func (f *engineFleet) heal(context.Context) error { return nil }

// busy is the number of requests at a server.
func (f *engineFleet) busy(ctx context.Context, i int) int {
	text, err := f.get(ctx, i, "/metrics")
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(text) {
		for _, name := range []string{"llamacpp:requests_processing ", "llamacpp:requests_deferred "} {
			if value, ok := strings.CutPrefix(line, name); ok {
				v, _ := strconv.Atoi(strings.TrimSpace(value))
				n += v
			}
		}
	}
	return n
}

func (f *engineFleet) running(ctx context.Context) (n int) {
	for i := range f.servers {
		n += f.busy(ctx, i)
	}
	return n
}

func (f *engineFleet) kill(ctx context.Context) error {
	for i, c := range f.servers {
		if f.busy(ctx, i) > 0 {
			_ = c.Process.Kill()
			_ = c.Wait()
			return f.start(ctx, i)
		}
	}
	return errors.New("no server works")
}

func (f *engineFleet) close() error {
	for _, c := range f.servers {
		if c != nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	return os.RemoveAll(f.dir)
}
