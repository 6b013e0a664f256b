package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that is measured from outside.
type process struct {
	cmd  *exec.Cmd
	addr string
}

// as is the flag that makes this program a part of the set-up of a measurement.
const as = "-as"

// startSelf starts this program as a part, which says on its first line where it
// listens.
func startSelf(ctx context.Context, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s does not listen: %w", args, err), cmd.Wait())
	}
	return &process{cmd, strings.TrimSpace(line)}, nil
}

// build makes the program that is measured.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "headway")
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-pgo=cmd/headway/serve.pgo", "-o", binary, "./cmd/headway").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return binary, nil
}

// startHeadway starts the service and returns when it listens.
func startHeadway(ctx context.Context, program []string, dir string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, program[0], append(append(program[1:len(program):len(program)], "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--http-lame-duck", "1ms"), args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd}
	var said bytes.Buffer
	scan := bufio.NewScanner(stderr)
	for p.addr == "" && scan.Scan() {
		said.Write(scan.Bytes())
		if m := listening.FindStringSubmatch(scan.Text()); m != nil {
			p.addr = m[1]
		}
	}
	if p.addr == "" {
		return nil, errors.Join(fmt.Errorf("the service did not start: %s", said.Bytes()), cmd.Wait())
	}
	go func() { // its log must not fill the pipe
		for scan.Scan() {
			continue
		}
	}()
	return p, nil
}

// stop ends the process, and waits.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	late.Stop()
}

// cpu is the processor time that the process and its children have used.
func (p *process) cpu() (total time.Duration) {
	for _, pid := range p.family() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			raw, _ := os.ReadFile(task)
			used, _, _ := strings.Cut(string(raw), " ")
			n, _ := strconv.ParseInt(used, 10, 64)
			total += time.Duration(n)
		}
	}
	return total
}

// family are the process and those that it started, such as nginx's workers.
func (p *process) family() []int {
	family := []int{p.cmd.Process.Pid}
	for i := 0; i < len(family); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", family[i]))
		for _, task := range tasks {
			raw, _ := os.ReadFile(task)
			for _, child := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(child); err == nil {
					family = append(family, pid)
				}
			}
		}
	}
	return family
}

// memory is a line of the process's status, such as VmRSS or VmHWM, in KiB.
func (p *process) memory(name string) (int, error) { return statusKiB(p.cmd.Process.Pid, name) }

func statusKiB(pid int, name string) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", name)
}
