package cli

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/api"
	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/doctor"
	"headway/internal/freeport"
	"headway/internal/local"
)

var testBuild = Build{Version: "v1", Commit: "0123456"}

// has reports each of the texts that is not printed.
func has(t testing.TB, printed string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(printed, text) {
			t.Errorf("no %q in\n%s", text, printed)
		}
	}
}

// here runs a command in this process.
func here(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), testBuild, args, &out, &errs)
	return code, out.String(), errs.String()
}

// groups calls f for each command that has others.
func groups(f func(path []string, group *cobra.Command)) {
	root := newRoot(testBuild)
	cmdline.Check(root)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() {
			return
		}
		f(strings.Fields(cmd.CommandPath())[1:], cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// The page has each command, and no other.
func TestThePageListsEveryCommand(t *testing.T) {
	text, err := os.ReadFile("../../docs/command-line.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, row := range strings.Split(string(text), "\n") {
		cell, _, isRow := strings.Cut(strings.ReplaceAll(strings.TrimPrefix(row, "| "), `\|`, "\x00"), " |")
		if !isRow || !strings.HasPrefix(cell, "`headway ") {
			continue
		}
		for _, part := range strings.Split(cell, "`") {
			words := strings.Fields(part)
			if len(words) < 2 || words[0] != "headway" {
				continue
			}
			if len(words) == 2 || strings.HasPrefix(words[2], "-") || strings.ContainsAny(words[2], "[") || strings.ToUpper(words[2]) == words[2] {
				listed = append(listed, words[1])
				continue
			}
			for _, sub := range strings.Split(words[2], "\x00") {
				listed = append(listed, words[1]+" "+sub)
			}
		}
	}
	var have []string
	root := newRoot(testBuild)
	root.InitDefaultCompletionCmd("x")
	for _, cmd := range root.Commands() {
		if cmd.Hidden {
			continue
		}
		if !cmd.HasSubCommands() {
			have = append(have, cmd.Name())
		}
		for _, sub := range cmd.Commands() {
			if cmd.Name() == "completion" && sub.Name() == "powershell" {
				continue // a service runs on Linux
			}
			have = append(have, cmd.Name()+" "+sub.Name())
		}
	}
	slices.Sort(listed)
	slices.Sort(have)
	if listed = slices.Compact(listed); !slices.Equal(listed, have) {
		t.Errorf("the table has\n%q\nand there are\n%q", listed, have)
	}
}

// A script whose command does not exist must not go on as if it had been done.
func TestEveryGroupRefusesACommandThatItDoesNotHave(t *testing.T) {
	seen := 0
	groups(func(path []string, group *cobra.Command) {
		seen++
		for _, args := range [][]string{{"nonsense"}, {"nonsense", "x"}, {"nonsense", "--no-such-flag"}} {
			args = append(path[:len(path):len(path)], args...)
			code, out, errs := here(t, args...)
			if code != exitUsage || out != "" || !strings.HasPrefix(errs, `headway: unknown command "nonsense" of "`+group.CommandPath()+`"`) {
				t.Errorf("headway %s: exit %d, printed %q, said %q", strings.Join(args, " "), code, out, errs)
			}
			if group.HasParent() && !strings.Contains(errs, "; it has ") {
				t.Errorf("headway %s: %q; want what there is", strings.Join(args, " "), errs)
			}
		}
		for _, sub := range group.Commands() {
			slip := sub.Name()[:len(sub.Name())-1]
			if len(slip) < 3 || sub.Hidden {
				continue
			}
			code, _, errs := here(t, append(path[:len(path):len(path)], slip)...)
			if code != exitUsage || !strings.Contains(errs, "; did you mean "+sub.Name()+"?") {
				t.Errorf("headway %s %s: exit %d, said %q", strings.Join(path, " "), slip, code, errs)
			}
		}
	})
	if seen < 9 {
		t.Errorf("%d groups", seen)
	}
}

func TestAGroupAloneShowsItsHelp(t *testing.T) {
	groups(func(path []string, group *cobra.Command) {
		code, out, errs := here(t, path...)
		if code != exitOK || errs != "" {
			t.Errorf("headway %s: exit %d, said %q", strings.Join(path, " "), code, errs)
		}
		has(t, out, "Usage:\n  "+group.CommandPath()+" ", "Available Commands:")
	})
}

func TestSlipsAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"decide --modeltype m":             "unknown flag: --modeltype; did you mean --model-type?",
		"heads list --regoin eu":           "unknown flag: --regoin; did you mean --region?",
		"serve --lsten 127.0.0.1:0":        "unknown flag: --lsten; did you mean --listen?",
		"heads lst --region eu":            `unknown command "lst" of "headway heads"; did you mean list?`,
		"policy app policy.yaml":           "did you mean apply?",
		"help heads lst":                   `unknown command "lst" of "headway heads"; did you mean list?`,
		"policy show":                      `unknown command "show" of "headway policy"; did you mean get?`,
		"help policy show":                 "; did you mean get?",
		"heads ls":                         "; did you mean list?",
		"heads delete gpu-7":               "; did you mean remove?",
		"keys rm 0123456789ab":             "; did you mean revoke?",
		"config show":                      "; did you mean print?",
		"state backup":                     "; did you mean export?",
		"audit LIST":                       "; did you mean search?",
		"nodes":                            "; did you mean heads?",
		"tls renew":                        `unknown command "renew" of "headway tls"; it has client, init`,
		"help nonsense":                    `unknown command "nonsense" of "headway"`,
		"heads list --nothing-like-it":     "unknown flag: --nothing-like-it\n",
		"heads drain":                      "headway: ID is missing. Usage: headway heads drain ID... [flags]\nFor example: headway heads drain gpu-7",
		"heads get":                        "headway: ID is missing. Usage: headway heads get ID [flags]",
		"policy apply":                     "headway: FILE is missing. Usage: headway policy apply FILE [flags]\nFor example: headway policy apply policy.yaml",
		"policy apply a b":                 `there is no place for the argument "b". Usage: headway policy apply FILE`,
		"heads list -Q":                    "unknown shorthand flag",
		"demo --speed 0":                   "--speed 0: want more than 0",
		"demo --heads 0":                   "--heads 0: want more than 0",
		"version -o xml":                   `-o "xml": want one of`,
		"version --json -o yaml":           "--json and -o yaml: want one of them",
		"decide":                           "--model-type is missing. Usage: headway decide --model-type NAME",
		"decide --model-type=":             "--model-type is missing",
		"heads register a":                 "--endpoint is missing",
		"keys create --role admin":         "--name is missing",
		"status --server nonsense":         "headway: --server: the URL of a service begins with http:// or https://",
		"demo --server ftp://x":            "--server: ",
		"doctor --server http://x:0":       "--server: ",
		"watch --server http://:80":        "--server: ",
		"state check --server x y":         `there is no place for the argument "y". Usage: headway state check`,
		"audit tail --server http://u:p@x": "--server: ",
		"status --timeout 0s":              "--timeout 0s: want more than 0",
		"status --cert-file x":             "--cert-file and --key-file: want both or neither",

		"completion bash y":                    `there is no place for the argument "y"`,
		"state export a b":                     `there is no place for the argument "b"`,
		"monitoring export m --external-url x": "external_url (flag --external-url)",
		"demo --regions ,":                     "a model type or region without a name",
		"demo --models a,":                     "a model type or region without a name",
		"demo --heads 1001":                    "heads: 1001, want 1 to 1000",
		"demo --rate -1":                       "-1 requests a second, want",
		"demo --duration -1s":                  "a duration of -1s",
		"demo --ports 1-2":                     "ports 1-2: 2, fewer than the heads: 8",
	} {
		code, out, errs := here(t, strings.Fields(args)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("headway %s: exit %d, printed %q, said %q; want %q", args, code, out, errs, want)
		}
	}
}

// --json is -o json for every command that has that.
func TestJSONIsTheSameAsOutputJSON(t *testing.T) {
	both := 0
	groups(func(_ []string, group *cobra.Command) {
		for _, sub := range group.Commands() {
			hasOutput, hasJSON := sub.Flags().Lookup("output") != nil, sub.Flags().Lookup("json") != nil
			if hasOutput && !hasJSON {
				t.Errorf("%s has -o and not --json", sub.CommandPath())
			}
			if hasOutput {
				both++
			}
		}
	})
	if both < 15 {
		t.Errorf("%d commands", both)
	}
	_, long, _ := here(t, "version", "-o", "json")
	if code, short, errs := here(t, "version", "--json"); code != exitOK || short != long {
		t.Errorf("exit %d, %q and %q: %s", code, short, long, errs)
	}
}

func TestTheVersionIsForProgramsToo(t *testing.T) {
	_, out, _ := here(t, "version")
	has(t, out, "headway ", " (commit ")
	_, out, _ = here(t, "version", "-o", "json")
	has(t, out, `"version": "`, `"commit": "`, `"platform": "`)
	_, out, _ = here(t, "version", "-o", "yaml")
	has(t, out, "\ncommit: ", "\nplatform: ")
}

func TestHelpShowsFlagsPlainly(t *testing.T) {
	_, out, _ := here(t, "serve", "--help")
	has(t, out, "  -h, --help  ")
	if strings.Contains(out, "true|false") {
		t.Errorf("printed %s", out)
	}
}

func TestAServiceThatIsAwayIsHelped(t *testing.T) {
	code, _, errs := here(t, "status", "--server", "http://"+freeport.Address(t), "--timeout", "1s")
	if code != exitUnavailable {
		t.Errorf("exit code %d", code)
	}
	has(t, errs, "connection refused", "start the service with 'headway serve'")
}

func TestADecisionIsExplainedOnce(t *testing.T) {
	e := &api.Event{Type: "decision.made", Data: []byte(`{"decision_id":"dec_1","strategy":"least_loaded","reason":"least_loaded: cost 1, of 2 candidates"}`)}
	if got, want := aboutEvent(e), "dec_1 by least_loaded: cost 1, of 2 candidates"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestEveryCommandWithAnArgumentHasAnExample(t *testing.T) {
	groups(func(path []string, group *cobra.Command) {
		for _, sub := range group.Commands() {
			_, use, _ := strings.Cut(sub.Use, " ")
			if use == "" || strings.HasPrefix(use, "[") || strings.Contains(use, "-") {
				continue
			}
			code, _, errs := here(t, append(path[:len(path):len(path)], sub.Name())...)
			if command := "\nFor example: " + sub.CommandPath() + " "; code != exitUsage || !strings.Contains(errs, command) || strings.Contains(errs, command+"\n") {
				t.Errorf("exit %d, said %q", code, errs)
			}
		}
	})
}

// Where no connection comes about, what helps is named.
func TestConnectionsThatFailSayWhatHelps(t *testing.T) {
	t.Chdir(t.TempDir())
	handler := http.NotFoundHandler()
	secure, plain := httptest.NewUnstartedServer(handler), httptest.NewServer(handler)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	defer plain.Close()
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	go func() {
		for {
			c, err := foreign.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("-ERR unknown command\r\n"))
			_ = c.Close()
		}
	}()
	for server, help := range map[string]string{
		secure.URL: "name its certificate with --ca-file",
		strings.Replace(plain.URL, "http:", "https:", 1): "does not speak TLS",
		"http://" + foreign.Addr().String():              "does not answer as a service does",
		"http://127.0.0.1:1":                             "Nothing listens there",
	} {
		code, _, errs := here(t, "status", "--server", server, "--timeout", "2s")
		if code != exitUnavailable {
			t.Errorf("exit code %d", code)
		}
		has(t, errs, help)
	}
	if help := local.Help(fmt.Errorf("%w: %w", client.ErrUnavailable, x509.HostnameError{Host: "a", Certificate: new(x509.Certificate)})); !strings.Contains(help, "other names") {
		t.Errorf("help is %q", help)
	}
	code, out, _ := here(t, "doctor", "-o", "json", "--server", "http://127.0.0.1:1", "--timeout", "1s")
	var found []doctor.Finding
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitError {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	states := map[string]int{}
	for _, f := range found {
		states[f.State]++
	}
	if states["fault"] != 1 || states["not asked"] != 2 {
		t.Errorf("of a service that is away: %+v", found)
	}
}

func TestEqualExamplesAreOneRow(t *testing.T) {
	a := api.ReplayedDecision{ModelType: "m", StrategyBefore: "random", HeadBefore: "x", StrategyAfter: "random", HeadAfter: "y"}
	b := a
	b.HeadAfter = "z"
	var page strings.Builder
	if err := exampleTable([]api.ReplayedDecision{b, a, a}).Write(&page, false); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(page.String()), "\n")
	if len(rows) != 3 || !strings.HasSuffix(rows[1], "y          2") || !strings.HasSuffix(rows[2], "z          1") {
		t.Errorf("printed\n%s", page.String())
	}
}

// A row counts examples; what is no example is counted below the table.
func TestDecisionsThatAreNoExampleAreCounted(t *testing.T) {
	var page strings.Builder
	c := &call{Command: new(cobra.Command), args: []string{"policy.yaml"}, format: "table", w: &page}
	example := api.ReplayedDecision{ModelType: "m", StrategyBefore: "random", HeadBefore: "x", StrategyAfter: "random", HeadAfter: "y"}
	if err := c.printCheck(&api.PolicyCheck{Valid: true, Replay: &api.PolicyReplay{Decisions: 50, Moved: 30, Failed: 2, Examples: []api.ReplayedDecision{example, example}}}); err != nil {
		t.Fatal(err)
	}
	has(t, page.String(), "30 would go elsewhere, and 2 would find no head", "EXAMPLES\n", "the newest 2 are shown, 30 more are not\n")
	if strings.Contains(page.String(), "slo") {
		t.Errorf("it has refusals of a strategy that places nothing\n%s", page.String())
	}
}

// What the strategy slo would refuse is not known of decisions without their prompts.
func TestValidateSaysThatItCannotJudgeRefusals(t *testing.T) {
	var page strings.Builder
	c := &call{Command: new(cobra.Command), args: []string{"policy.yaml"}, format: "table", w: &page}
	if err := c.printCheck(&api.PolicyCheck{Valid: true, Replay: &api.PolicyReplay{Decisions: 50, Unjudged: 40}}); err != nil {
		t.Fatal(err)
	}
	has(t, page.String(), "40 of them", "may refuse some", "headway decisions what-if --policy policy.yaml")
}

// A file to read that is not there is not found, of every command.
func TestAMissingFileIsNotFound(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "trail.log", "")
	for _, args := range []string{
		"policy check no", "policy diff no", "policy validate no", "policy apply no", "state import no", "state check --data-dir no", "state export --data-dir no",
		"audit verify --file no", "audit export --file no", "audit verify --file trail.log --checkpoint no", "audit verify --file trail.log --public-key no",
	} {
		code, _, errs := here(t, strings.Fields(args)...)
		if code != exitNotFound || !strings.Contains(errs, "no such file") {
			t.Errorf("headway %s: exit %d, said %q", args, code, errs)
		}
	}
}

// Of a damaged file is said once that it is damaged, and how it is replaced.
func TestADamagedStateFileIsExplained(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, filepath.Join("data", local.StateFile), strings.Repeat("x", 8192))
	code, out, errs := here(t, "state", "check", "--data-dir", "data")
	if code != exitDamage {
		t.Errorf("exit code %d", code)
	}
	has(t, out, "fault      it is damaged: ")
	has(t, errs, "'headway state import FILE --data-dir data'")
	_, out, _ = here(t, "doctor", "--data-dir", "data", "--timeout", "1s")
	has(t, out, "'headway state import FILE --data-dir data'")
}

// Arguments are visible to every user of the machine: no flag takes a secret,
// only files with one.
func TestNoFlagTakesASecret(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			words := strings.Split(f.Name, "-")
			for _, secret := range []string{"token", "password", "secret", "key"} {
				if slices.Contains(words, secret) && !strings.HasSuffix(f.Name, "-file") && f.Name != "public-key" && f.Name != "access-requests-per-key" {
					t.Errorf("%s --%s", cmd.CommandPath(), f.Name)
				}
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(testBuild))
}
