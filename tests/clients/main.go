// Command clients runs the programs of this folder, which use the official
// clients of the API: against a mock head, against Headway in front of mock heads,
// and against Headway in front of llama.cpp's server. With -base-url they run
// against what that names.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// program is a client.
type program struct {
	name    string
	command []string
}

const (
	folder = "tests/clients"
	limit  = 5 * time.Minute // for one program
	model  = "llama-3.1-8b"
)

var (
	programs = []program{
		{"curl", []string{"bash", "curl_client"}},
		{"readme", []string{"python", "readme_client.py"}},
		{"openai", []string{"python", "openai_client.py"}},
		{"anthropic", []string{"python", "anthropic_client.py"}},
		{"litellm", []string{"python", "litellm_client.py"}},
		{"langchain", []string{"python", "langchain_client.py"}},
		{"node", []string{"node", "openai_client.mjs"}},
	}
	engineProgram = program{"engine", []string{"python", "engine_client.py"}}
)

// run is the programs against one thing that is tried.
type run struct {
	name     string
	programs []program
	control  string // URL of what breaks heads; "": nothing does
	env      []string
	close    func() error
}

func main() {
	if err := runAll(); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func runAll() (err error) {
	base := flag.String("base-url", os.Getenv("HEADWAY_TEST_BASE_URL"), "what is tried, such as http://localhost:8080; empty: what this command starts")
	faults := flag.String("faults-url", os.Getenv("HEADWAY_TEST_FAULTS_URL"), "the /faults of the head behind it; empty: checks of faults are skipped")
	only := flag.String("only", "", "programs, with commas between: curl, readme, openai, anthropic, litellm, langchain, node, engine")
	against := flag.String("against", "head,headway,engine", "what is started and tried: a mock head, Headway with mock heads, Headway with llama.cpp")
	cache := flag.String("cache", "bin/clients", "where packages are installed")
	binary := flag.String("headway", "bin/headway", "the binary that is tried")
	install := flag.Bool("install", false, "only install the packages")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := missing(ctx); err != nil {
		return err
	}
	bin, err := filepath.Abs(*cache)
	if err != nil {
		return err
	}
	if err := installAll(ctx, bin); err != nil || *install {
		return err
	}
	var runs []*run
	defer func() {
		for _, r := range runs {
			if r.close != nil {
				err = errors.Join(err, r.close())
			}
		}
	}()
	if *base != "" {
		runs = append(runs, &run{programs: programs, env: []string{"HEADWAY_TEST_BASE_URL=" + *base, "HEADWAY_TEST_FAULTS_URL=" + *faults}})
	} else {
		for name, start := range map[string]func(context.Context, string, string) (*run, error){"head": againstHead, "headway": againstHeadway, "engine": againstEngine} {
			if !slices.Contains(strings.Split(*against, ","), name) {
				continue
			}
			r, err := start(ctx, *binary, bin)
			if r != nil {
				runs = append(runs, r)
			}
			if err != nil {
				return err
			}
		}
	}
	return playAll(ctx, runs, bin, *only)
}

// playAll runs the programs of each run one after the other, and the runs side by
// side.
func playAll(ctx context.Context, runs []*run, bin, only string) error {
	var (
		mu      sync.Mutex
		failed  []string
		started int
		playing sync.WaitGroup
	)
	for _, r := range runs {
		playing.Go(func() {
			for _, p := range r.programs {
				if only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
					continue
				}
				began := time.Now()
				out, err := p.play(ctx, bin, r.env)
				mu.Lock()
				started++
				fmt.Printf("\n== %s %s\n%s", p.name, r.name, out)
				if err != nil {
					fmt.Println("==", err)
					failed = append(failed, p.name+" "+r.name)
				}
				fmt.Printf("== %s %s: %.1f s\n", p.name, r.name, time.Since(began).Seconds())
				mu.Unlock()
			}
		})
	}
	playing.Wait()
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	fmt.Printf("\n%d passed, 0 failed\n", started)
	return nil
}

// play runs a program and returns what it printed.
func (p program) play(ctx context.Context, bin string, env []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	name, args, dir := p.command[0], p.command[1:], folder
	switch name {
	case "python":
		name = filepath.Join(bin, "python/bin/python")
	case "node":
		dir = filepath.Join(bin, "node")
	}
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = dir, append(append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore"), env...)
	return c.CombinedOutput()
}
