package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"

	"headway/internal/cli"
)

// serviceAs is the part that is the service itself, with a profile of its processor
// time.
const serviceAs = "service"

// profiled is how many requests of each kind a profile is made of, and streams of a
// tenth of that.
const profiled = 60_000

// profile has the service work on what the data plane and the decision API get most,
// and writes where its processor time goes, for the compiler.
func profile(ctx context.Context, file string, sent int) error {
	made := file + ".new"
	w := &world{parts: map[string]*process{}, names: []string{headway}, profile: made}
	defer func() { _ = os.Remove(made) }()
	defer w.close()
	if err := w.start(ctx); err != nil {
		return err
	}
	for _, of := range []struct {
		request []byte
		n       int
	}{
		{completion(w.key, 300, ""), sent},
		{completion(w.key, 300, fmt.Sprintf("chunks=%d", chunks)), sent / 10},
		{decision(w.key), sent},
	} {
		if err := w.saturated(ctx, results{}, of.request, of.n, 1); err != nil {
			return err
		}
	}
	service := w.parts[headway]
	if service.stop(); !service.cmd.ProcessState.Success() {
		return fmt.Errorf("the service ended with %s", service.cmd.ProcessState)
	}
	return os.Rename(made, file)
}

// decision is a request for a decision.
func decision(key string) []byte {
	body := `{"model_type":"m","region":"us"}`
	return fmt.Appendf(nil, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
}

// serveProfiled runs the service in this process until a signal ends it.
func serveProfiled(file string, args []string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if code := cli.Run(ctx, cli.Build{Version: "profiled", Commit: "unknown"}, args, os.Stdout, os.Stderr); code != 0 {
		return fmt.Errorf("headway %s: exit code %d", strings.Join(args, " "), code)
	}
	return nil
}
