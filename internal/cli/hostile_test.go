package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/internal/local"
)

// hostile fills a value so that each string in it is text that a terminal would
// obey.
func hostile(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(obeyed)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		hostile(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			raw, _ := json.Marshal(map[string]string{"reason": obeyed, obeyed: obeyed})
			v.SetBytes(raw)
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		hostile(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		hostile(key)
		hostile(value)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if at, isTime := v.Addr().Interface().(*time.Time); isTime {
			*at = time.Now().UTC()
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				hostile(v.Field(i))
			}
		}
	}
}

func hostileOf[T any]() (v T) {
	hostile(reflect.ValueOf(&v).Elem())
	return v
}

func pageOf[T any]() api.List[T] { return api.List[T]{Data: []T{hostileOf[T]()}} }

// hostileStrategies has one more under the name x.
func hostileStrategies() api.StrategyList {
	list := hostileOf[api.StrategyList]()
	list.Data = append(list.Data, list.Data[0])
	list.Data[0].Name = "x"
	return list
}

// hostileAnswers are what a service answers that another one has taken over, by
// method and path.
var hostileAnswers = map[string]any{
	"GET /api/v1/heads":                            pageOf[api.Head](),
	"GET /api/v1/heads/x":                          hostileOf[api.Head](),
	"POST /api/v1/heads":                           hostileOf[api.RegistrationAnswer](),
	"PATCH /api/v1/heads/x":                        hostileOf[api.Head](),
	"POST /api/v1/heads/x/drain-rehearsal":         hostileOf[api.DrainRehearsal](),
	"POST /api/v1/decisions":                       hostileOf[api.Decision](),
	"GET /api/v1/strategies":                       hostileStrategies(),
	"GET /api/v1/decision-log":                     hostileOf[api.LoggedDecision](),
	"GET /api/v1/policy":                           map[string]any{"default_strategy": obeyed, obeyed: []string{obeyed}},
	"PUT /api/v1/policy":                           map[string]any{"default_strategy": obeyed},
	"POST /api/v1/policy/validate":                 hostileOf[api.PolicyCheck](),
	"GET /api/v1/policy/revisions":                 pageOf[api.PolicyRevision](),
	"GET /api/v1/policy/revisions/1":               hostileOf[api.PolicyRevision](),
	"POST /api/v1/policy/revisions/1/restore":      map[string]any{"default_strategy": obeyed},
	"GET /api/v1/keys":                             pageOf[api.Key](),
	"POST /api/v1/keys":                            hostileOf[api.Key](),
	"GET /api/v1/audit":                            pageOf[api.AuditRecord](),
	"GET /api/v1/queue/dead-letters":               pageOf[api.DeadLetter](),
	"GET /api/v1/queue/dead-letters/1":             hostileOf[api.DeadLetter](),
	"GET /api/v1/state/check":                      api.StateReport{Sound: true, Buckets: []api.StateBucket{{Name: obeyed}}, Faults: []string{obeyed}},
	"GET /readyz":                                  hostileOf[api.Readiness](),
	"GET /prometheus/api/v1/rules":                 json.RawMessage(`{"data":{"groups":[{"file":"` + jsonText(obeyed) + `","rules":[{"name":"` + jsonText(obeyed) + `","state":"firing","health":"err","lastError":"` + jsonText(obeyed) + `","labels":{"severity":"x"}}]}]}}`),
	"GET /console/dashboards/routing-service.json": map[string]any{"title": obeyed, "panels": []string{obeyed}},
}

func jsonText(text string) string {
	raw, _ := json.Marshal(text)
	return strings.Trim(string(raw), `"`)
}

// hostileService answers every request with text that a terminal would obey, as
// the status says.
func hostileService(t *testing.T, status int) string {
	t.Helper()
	problem := hostileOf[api.Problem]()
	problem.Status = status
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"1"`)
		if status != http.StatusOK {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(problem)
			return
		}
		switch answer, known := hostileAnswers[r.Method+" "+r.URL.Path]; {
		case r.URL.Path == "/api/v1/events":
			w.Header().Set("Content-Type", "text/event-stream")
			event, snapshot := hostileOf[api.Event](), hostileOf[api.Snapshot]()
			for name, v := range map[string]any{"snapshot": snapshot, "head.registered": event, "lost": hostileOf[api.Lost]()} {
				raw, _ := json.Marshal(v)
				fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, raw)
			}
		case r.URL.Path == "/metrics":
			fmt.Fprintf(w, "headway_audit_up 1\nx{name=%q} 1\n%s 1\n", obeyed, obeyed)
		case r.URL.Path == "/api/v1/state/export", r.URL.Path == "/api/v1/decision-log" && r.URL.Query().Get("order") == "": // copies are escaped at a terminal
			fmt.Fprintln(w, `{}`)
		case known:
			if r.Method == http.MethodPost && (r.URL.Path == "/api/v1/heads" || r.URL.Path == "/api/v1/keys") {
				w.WriteHeader(http.StatusCreated)
			}
			_ = json.NewEncoder(w).Encode(answer)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// calls are every command that prints what others have written, with arguments
// that it takes; local are those that print only what is of this machine, and
// where they are tried.
var (
	hostileCalls = map[string]string{
		"status": "", "doctor": "", "watch": "--count 1", "decide": "--model-type m --explain", "decisions worst": "", "decisions export": "",
		"heads list": "", "heads watch": "", "heads get": "x", "heads register": "x --endpoint http://127.0.0.1:1 --model-type m --region r",
		"heads drain": "x --rehearse", "heads undrain": "x", "heads maintenance": "x", "heads remove": "x", "heads reinstate": "x",
		"policy get": "", "policy diff": "policy.yaml", "policy validate": "policy.yaml", "policy apply": "policy.yaml", "policy history": "", "policy restore": "1",
		"strategies list": "", "strategies show": "x", "strategies compare": "",
		"keys create": "--role viewer --name x", "keys list": "", "keys set": "x --weight 2", "keys revoke": "x --yes",
		"audit tail": "", "audit search": "", "queue ls": "", "queue peek": "1", "queue retry": "1", "queue purge": "1",
		"state check": "", "state export": "",
	}
	localCalls = map[string]string{
		"serve": "prints no answers; the log has a test of its own", "agent": "prints no answers; its log quotes, as that of serve", "demo": "internal/demo has a test of its own",
		"simulate":          "TestATerminalObeysNoFile",
		"decisions what-if": "plays only model types whose names the registry takes; TestAnotherPolicyIsPlayed",
		"policy check":      "TestATerminalObeysNoFile", "audit verify": "TestATerminalObeysNoFile", "audit export": "TestATerminalObeysNoFile", "state import": "TestATerminalObeysNoFile",
		"tls init": "prints names of files that its flags give", "tls client": "prints names of files that its flags give",
		"monitoring export": "prints its own arguments",
		"config print":      "prints its own flags and files", "man": "prints nothing", "version": "prints what the build gave it",
	}
)

// forAWhile runs a command in this process, and ends one that has no end.
func forAWhile(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if slices.Contains(args, "watch") {
		defer time.AfterFunc(time.Second, cancel).Stop()
	}
	var out, errs bytes.Buffer
	code = Run(ctx, testBuild, args, &out, &errs)
	return code, out.String(), errs.String()
}

func writeFile(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// No answer of a service, and no text in it, makes a command send a
// terminal what it would obey.
func TestATerminalObeysNoAnswer(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	writeFile(t, policy, "default_strategy: random\n")
	t.Chdir(dir)
	tried := 0
	groups(func(path []string, group *cobra.Command) {
		for _, sub := range group.Commands() {
			name := strings.Join(append(path[:len(path):len(path)], sub.Name()), " ")
			args, called := hostileCalls[name]
			if sub.HasSubCommands() || sub.Hidden || sub.Name() == "help" || strings.HasPrefix(name, "completion") {
				continue
			}
			if reason := localCalls[name]; called == (reason != "") {
				t.Errorf("headway %s is in both lists or in neither", name)
			}
			if !called {
				continue
			}
			formats := []string{""}
			if sub.Flags().Lookup("output") != nil {
				formats = []string{"-o table", "-o wide", "-o json", "-o yaml"}
			}
			for _, status := range []int{http.StatusOK, http.StatusUnprocessableEntity} {
				for _, format := range formats {
					line := strings.Fields(name + " " + args + " " + format + " --timeout 5s --server " + hostileService(t, status))
					code, out, errs := forAWhile(t, line...)
					noneObeyed(t, strings.Join(line, " ")+" on standard output", out)
					noneObeyed(t, strings.Join(line, " ")+" on standard error", errs)
					if code == exitUsage || out+errs == "" {
						t.Errorf("headway %s: exit %d, printed %q, said %q", strings.Join(line, " "), code, out, errs)
					}
					if tried++; status == http.StatusOK && format == "-o table" && code != exitOK && name != "doctor" && name != "status" && name != "policy diff" && name != "policy validate" {
						t.Errorf("headway %s: exit %d: %s", strings.Join(line, " "), code, errs)
					}
				}
			}
		}
	})
	if tried < 100 {
		t.Errorf("%d calls were tried", tried)
	}
}

// Nor does one read what it would obey from a file.
func TestATerminalObeysNoFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeFile(t, "policy.yaml", "default_strategy: \""+strings.ReplaceAll(obeyed, "\n", "")+"\"\naliases: {\""+strings.ReplaceAll(obeyed, "\n", "")+"\": x}\n")
	line := `{"v":1,"seq":1,"time":"2026-01-01T00:00:00Z","action":"` + jsonText(obeyed) + "\u009b" + `","actor":{"type":"\u009b","id":"\u202e"},"prev":"","hash":""}` + "\n"
	writeFile(t, "trail.log", line)
	writeFile(t, "state.jsonl", `{"format":"headway-state","version":1,"`+"\u009b"+`":1}`+"\n")
	writeFile(t, filepath.Join("data", local.File), fmt.Sprintf(`{"url":"http://127.0.0.1:1/%s","pid":%d}`, jsonText(obeyed), os.Getpid()))
	for _, args := range []string{
		"policy check policy.yaml", "audit verify --file trail.log", "audit search --file trail.log", "audit tail --file trail.log",
		"state import state.jsonl --data-dir new", "simulate --trace trail.log", "simulate --trace sample: --requests 10 --rate 1 --policy policy.yaml", "heads list --data-dir data --timeout 1s", "doctor --data-dir data --timeout 1s",
		"audit export --file trail.log --format ocsf",
	} {
		_, out, errs := here(t, strings.Fields(args)...)
		noneObeyed(t, args, out+errs)
	}
}
