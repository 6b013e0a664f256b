package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// peer is a proxy that a user would run in Headway's place. It is measured if it is
// installed. In its arguments and its file PORT, METRICS (another port), HEAD and DIR stand for what they say.
type peer struct {
	name   string
	args   string // with the program first
	file   string // DIR/peer.conf; "": it needs none
	faster bool   // Headway need not be ahead of it
	slow   int    // by how much less is sent
}

var peers = []peer{
	{name: "litellm", args: "litellm --config DIR/peer.conf --host 127.0.0.1 --port PORT --num_workers 1", slow: 20, file: `model_list:
  - model_name: m
    litellm_params: {model: openai/m, api_base: "http://HEAD/v1", api_key: none}
litellm_settings: {telemetry: false}
`},
	{name: "smg", args: "smg launch --worker-urls http://HEAD --host 127.0.0.1 --port PORT --policy round_robin --log-level error --prometheus-port METRICS"},
	{name: "vllm-router", args: "vllm-router --worker-urls http://HEAD --host 127.0.0.1 --port PORT --policy round_robin --log-level error --prometheus-port METRICS"},
	{name: "sglang-router", args: "sglang-router launch --worker-urls http://HEAD --host 127.0.0.1 --port PORT --policy round_robin --log-level error --prometheus-port METRICS"},
	{name: "caddy", args: "caddy run --adapter caddyfile --config DIR/peer.conf", file: `{
	admin off
	auto_https off
	log {
		output discard
	}
}
http://:PORT {
	bind 127.0.0.1
	reverse_proxy HEAD {
		transport http {
			keepalive_idle_conns_per_host 1024
		}
	}
}
`},
	{name: "nginx", args: "nginx -p DIR -c DIR/peer.conf", faster: true, file: `daemon off;
pid nginx.pid;
error_log stderr crit;
worker_processes 2;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	keepalive_requests 1000000;
	upstream head { server HEAD; keepalive 512; keepalive_requests 1000000; }
	server {
		listen 127.0.0.1:PORT;
		location / { proxy_pass http://head; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
	}
}
`},
	{name: "haproxy", args: "haproxy -f DIR/peer.conf", faster: true, file: `global
	nbthread 2
defaults
	mode http
	timeout connect 2s
	timeout client 60s
	timeout server 60s
	http-reuse always
frontend in
	bind 127.0.0.1:PORT
	default_backend heads
backend heads
	server head HEAD
`},
}

// peerOf is the peer of a name in the list.
func peerOf(name string) *peer {
	return &peers[slices.IndexFunc(peers, func(p peer) bool { return p.name == name })]
}

// beside is the section that measures them all through one head.
func beside(s scale) section {
	all := section{
		name: "Beside what would be used instead, a small completion through one mock head; what is installed, found by PATH",
		run: func(ctx context.Context, w *world, got results) error {
			w.names = []string{headway}
			for i := range peers {
				if err := w.startPeer(ctx, &peers[i]); err != nil {
					return err
				}
			}
			return w.saturated(ctx, got, completion(w.key, 300, ""), s.whole, 1)
		},
		figures: []figure{{what: "Headway: processor time", bench: headway, unit: cpu, scale: 1e-3, shown: "µs"}},
	}
	for _, p := range peers {
		ahead := figure{what: "Headway over " + p.name + ": processor time", bench: headway, base: p.name, unit: cpu, scale: 1, shown: "× base", limit: 1, may: true}
		more := figure{what: "Headway over " + p.name + ": requests a second", bench: headway, base: p.name, unit: rate, scale: 1, shown: "× base", limit: 1, least: true, may: true}
		if p.faster {
			ahead.limit, more.limit = 0, 0
		}
		all.figures = append(all.figures, figure{what: p.name + ": processor time", bench: p.name, unit: cpu, scale: 1e-3, shown: "µs", may: true}, ahead, more)
	}
	return all
}

// startPeer starts a peer that is installed, and returns when it answers.
func (w *world) startPeer(ctx context.Context, p *peer) error {
	if w.parts[p.name] != nil {
		w.names = append(w.names, p.name)
		return nil
	}
	args := strings.Fields(p.args)
	program, err := exec.LookPath(args[0])
	if err != nil {
		return nil //nolint:nilerr // it is not installed
	}
	dir := filepath.Join(w.dir, p.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	addr, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	metrics, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	fill := strings.NewReplacer("METRICS", port(metrics), "PORT", port(addr), "HEAD", w.parts[direct].addr, "DIR", dir)
	if err := os.WriteFile(filepath.Join(dir, "peer.conf"), []byte(fill.Replace(p.file)), 0o600); err != nil {
		return err
	}
	for i := range args {
		args[i] = fill.Replace(args[i])
	}
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Env = append(os.Environ(), "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true")
	if err := errors.Join(cmd.Start(), said.Close()); err != nil {
		return err
	}
	w.parts[p.name] = &process{cmd, addr}
	w.names = append(w.names, p.name)
	request := completion(w.key, 300, "")
	for range 300 {
		time.Sleep(200 * time.Millisecond)
		if _, err = pace(ctx, addr, request, 1, 0); err == nil {
			return nil
		}
	}
	text, _ := os.ReadFile(filepath.Join(dir, "said"))
	return fmt.Errorf("%s does not answer within a minute: %w\n%s", p.name, err, text[max(0, len(text)-1000):])
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// freeAddress is an address that is free now.
func freeAddress(ctx context.Context) (string, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// slowness is by how much less is sent to a program.
func slowness(name string) int {
	for _, p := range peers {
		if p.name == name {
			return max(p.slow, 1)
		}
	}
	return 1
}
