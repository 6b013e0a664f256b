package redisaudit_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"headway/internal/redisaudit"
)

// The common clients subscribe with their defaults, receive what is published,
// and end as they should. Each prints what it was answered.
func TestCommonClients(t *testing.T) {
	t.Run("node", func(t *testing.T) {
		dir := clientsForNode(t)
		for _, client := range []string{"ioredis", "ioredis5", "redis", "redis RESP2", "redis RESP3", "redis4"} {
			t.Run(client, func(t *testing.T) {
				e, _ := serve(t)
				cmd := exec.CommandContext(t.Context(), "node", "subscribe.mjs", client, port(e), redisaudit.Channel)
				cmd.Dir = dir
				try(t, e, cmd, "done PONG 1 2 2 pong 0 PONG")
			})
		}
	})
	t.Run("redis-py", func(t *testing.T) {
		environment := clientForPython(t)
		for _, protocol := range []string{"default", "2", "3"} {
			t.Run(protocol, func(t *testing.T) {
				e, _ := serve(t)
				cmd := exec.CommandContext(t.Context(), "python3", "testdata/clients/subscribe.py", protocol, port(e), redisaudit.Channel)
				cmd.Env = environment
				try(t, e, cmd, "done PONG 1 2 2 0 PONG python")
			})
		}
	})
	for _, protocol := range []int{0, 2, 3} {
		t.Run(fmt.Sprintf("go-redis RESP%d", protocol), func(t *testing.T) { tryGoRedis(t, protocol) })
	}
	for _, options := range [][]string{nil, {"-2"}, {"-3"}} {
		t.Run(strings.Join(append([]string{"redis-cli"}, options...), " "), func(t *testing.T) { tryRedisCLI(t, options) })
	}
}

func port(e *redisaudit.Embedded) string {
	_, port, _ := net.SplitHostPort(e.Addr().String())
	return port
}

// clientsForNode installs the clients for Node and returns where.
func clientsForNode(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is missing; on Debian: apt-get install nodejs npm", name)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/clients")); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in testdata/clients: %v\n%s", err, out)
	}
	return dir
}

// clientForPython installs redis-py and returns the environment that finds it.
func clientForPython(t *testing.T) []string {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "python3", "-m", "pip", "--version").Run(); err != nil {
		t.Skip("python3 with pip is missing; on Debian: apt-get install python3-pip")
	}
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", dir, "--requirement", "testdata/clients/requirements.txt")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("pip install: %v\n%s", err, out)
	}
	return append(os.Environ(), "PYTHONPATH="+dir)
}

// try runs a program that subscribes, publishes for it, and compares its end.
func try(t *testing.T, e *redisaudit.Embedded, cmd *exec.Cmd, want string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		if lines.Text() == "ready" {
			if _, n, err := e.Publish(t.Context(), [][]byte{[]byte("first"), []byte("last")}); n != 1 || err != nil {
				t.Errorf("%d receivers, %v", n, err)
			}
		}
	}
	err = cmd.Wait()
	all := "ready\nmessage " + redisaudit.Channel + " first\nmessage " + redisaudit.Channel + " last\n" + want
	if got := strings.Join(said, "\n"); err != nil || got != all {
		t.Errorf("%v; it printed\n%s\nwant\n%s\n%s", err, got, all, complaints.String())
	}
}

// go-redis with its defaults (0) and with a version of the protocol.
func tryGoRedis(t *testing.T, protocol int) {
	e, _ := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: e.Addr().String(), Protocol: protocol, ClientName: "go", Password: "whatever", Username: "default"})
	defer func() { _ = client.Close() }()
	if got, err := client.Ping(ctx).Result(); got != "PONG" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := client.ClientGetName(ctx).Result(); got != "go" || err != nil {
		t.Errorf("its name is %q, %v", got, err)
	}
	if got, err := client.Info(ctx, "persistence").Result(); !strings.Contains(got, "loading:0") || err != nil {
		t.Errorf("info: %q, %v", got, err)
	}
	if got, err := client.Command(ctx).Result(); got["subscribe"] == nil || err != nil {
		t.Errorf("commands: %v, %v", got, err)
	}
	if got, err := client.ConfigGet(ctx, "*").Result(); len(got) != 0 || err != nil {
		t.Errorf("configuration: %v, %v", got, err)
	}
	if err := client.Do(ctx, "SELECT", 1).Err(); err == nil || !strings.Contains(err.Error(), "out of range") {
		t.Errorf("database 1: %v", err)
	}
	p := client.Subscribe(ctx, redisaudit.Channel, "another")
	defer func() { _ = p.Close() }()
	if err := p.PSubscribe(ctx, "audit:*"); err != nil {
		t.Fatal(err)
	}
	for count := 1; count <= 3; count++ {
		if m, err := p.Receive(ctx); err != nil || m.(*redis.Subscription).Count != count {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if got, err := client.PubSubNumSub(ctx, redisaudit.Channel, "another").Result(); err != nil || got[redisaudit.Channel] != 1 || got["another"] != 0 {
		t.Errorf("subscribers: %v, %v", got, err)
	}
	if _, n, _ := e.Publish(ctx, [][]byte{[]byte("first")}); n != 1 {
		t.Errorf("%d receivers", n)
	}
	for _, pattern := range []string{"audit:*", ""} {
		if m, err := p.ReceiveMessage(ctx); err != nil || m.Payload != "first" || m.Pattern != pattern {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if err := p.Unsubscribe(ctx); err != nil {
		t.Fatal(err)
	}
	for count := 2; count >= 1; count-- {
		if m, err := p.Receive(ctx); err != nil || m.(*redis.Subscription).Kind != "unsubscribe" || m.(*redis.Subscription).Count != count {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if err := client.Do(ctx, "PUBLISH", redisaudit.Channel, "x").Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		t.Errorf("publishing: %v", err)
	}
}

// redis-cli reads commands from its standard input, and answers as they come.
func tryRedisCLI(t *testing.T, options []string) {
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("redis-cli is missing; on Debian: apt-get install redis-tools")
	}
	e, _ := serve(t)
	cmd := exec.CommandContext(t.Context(), cli, append(options, "-p", port(e))...)
	cmd.Stdin = strings.NewReader("PING\nSELECT 0\nCLIENT GETNAME\nGET a\nSUBSCRIBE\nRESET\nPING\n")
	out, err := cmd.CombinedOutput()
	got := strings.Fields(string(out))
	if err != nil || len(got) < 8 || strings.Join(got[:2], " ") != "PONG OK" || !strings.Contains(string(out), "ERR unknown command 'get'") || got[len(got)-1] != "PONG" || got[len(got)-2] != "RESET" {
		t.Errorf("%v: %s", err, out)
	}
	cmd = exec.CommandContext(t.Context(), cli, append(options, "-p", port(e), "SUBSCRIBE", redisaudit.Channel)...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	var said []string
	for len(said) < 6 && lines.Scan() {
		if said = append(said, lines.Text()); len(said) == 3 {
			_, _, _ = e.Publish(t.Context(), [][]byte{[]byte("first")})
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if got, want := strings.Join(said, " "), "subscribe "+redisaudit.Channel+" 1 message "+redisaudit.Channel+" first"; got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
}
