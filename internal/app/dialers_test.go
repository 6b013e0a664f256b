package app

import (
	"crypto/tls"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/config"
	"headway/internal/outbound"
)

// module is what the import paths of ours begin with.
var module = strings.TrimSuffix(reflect.TypeFor[App]().PkgPath(), "internal/app")

// makers are what makes a connection, or a client that makes some, by import
// path.
var makers = map[string][]string{
	"net":                                 {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer", "Resolver", "DefaultResolver"},
	"crypto/tls":                          {"Dial", "DialWithDialer", "Dialer"},
	"net/http":                            {"Client", "Transport", "DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm"},
	"net/smtp":                            {"Dial", "SendMail"},
	"net/rpc":                             {"Dial", "DialHTTP", "DialHTTPPath"},
	"log/syslog":                          {"Dial", "New", "NewLogger"},
	"os/exec":                             {"Command", "CommandContext", "Cmd"},
	"syscall":                             {"Connect", "Sendto"},
	"golang.org/x/crypto/acme":            {"Client"},
	"golang.org/x/crypto/acme/autocert":   {"Manager"},
	"github.com/nats-io/nats.go":          {"Connect", "Options"},
	"github.com/redis/go-redis/v9":        {"NewClient", "NewClusterClient", "NewFailoverClient", "NewFailoverClusterClient", "NewUniversalClient", "NewRing", "NewSentinelClient"},
	"github.com/coder/websocket":          {"Dial"},
	"github.com/coreos/go-oidc/v3/oidc":   {"NewProvider", "NewRemoteKeySet"},
	module + "internal/outbound":          {"NewClient", "NewTransport", "NewDialer"},
	"google.golang.org/grpc":              {"Dial", "DialContext", "NewClient"},
	"github.com/prometheus/common/config": {"NewClientFromConfig", "NewRoundTripperFromConfig"},
}

// silent are the packages of other modules that connect to nothing by themselves,
// as we use them. The embedded NATS server has no routes, gateways or leaf nodes.
var silent = []string{
	"github.com/cespare/xxhash/v2", "github.com/go-jose/go-jose/v4", "github.com/go-json-experiment/json", "github.com/klauspost/compress/gzhttp", "github.com/nats-io/nats-server/v2/server",
	"github.com/nats-io/nats.go/jetstream", "github.com/nats-io/nats.go/micro", "github.com/prometheus/client_golang/prometheus",
	"github.com/prometheus/client_model/go", "github.com/prometheus/common/expfmt", "github.com/prometheus/common/model", "github.com/prometheus/prometheus",
	"github.com/spf13/pflag", "go.etcd.io/bbolt", "go.opentelemetry.io/proto/slim/otlp", "go.yaml.in/yaml/v3", "golang.org/x/image/font", "golang.org/x/image/math/fixed",
	"golang.org/x/image/vector", "golang.org/x/net/http/httpguts", "golang.org/x/sync/semaphore", "golang.org/x/time/rate",
	"google.golang.org/protobuf/proto",
}

// dialers are all places that make connections in the packages of the service,
// by package and what they use, with the service that counts them.
var dialers = map[string]string{
	"internal/outbound net.Dialer":                           "-", // counts for those below
	"internal/outbound net/http.Client":                      "-",
	"internal/outbound net/http.Transport":                   "-",
	"client net.Dialer":                                      "-", // in the commands only, not in the service
	"client net/http.Client":                                 "-",
	"client net/http.Transport":                              "-",
	"client github.com/coder/websocket.Dial":                 "-",
	"internal/local net.Dialer":                              "-",
	"internal/local net/http.Client":                         "-",
	"internal/local net/http.Transport":                      "-",
	"internal/agent net/http.Client":                         "head_probe",
	"internal/agent outbound.NewTransport":                   "head_probe",
	"internal/agent net.Resolver":                            "dns",
	"internal/agent outbound.NewDialer":                      "dns", // each lookup is counted
	"internal/healthcheck net/http.Client":                   "head_probe",
	"internal/healthcheck outbound.NewTransport":             "head_probe",
	"internal/app net.DefaultResolver":                       "dns",
	"internal/app outbound.NewClient":                        "oidc acme alertmanager otlp webhook",
	"internal/app outbound.NewDialer":                        "nats",    // and for redis, where each call is counted
	"internal/natsmq nats.go.Connect":                        "nats",    // with the dialer of the app; else within the process
	"internal/natsmq nats.go.Options":                        "nats",    // to check the credentials, without a connection
	"internal/pki golang.org/x/crypto/acme.Client":           "acme",    // with the client of the app
	"internal/pki golang.org/x/crypto/acme/autocert.Manager": "acme",    // with that client
	"internal/redisaudit go-redis/v9.NewClient":              "redis",   // each call is counted
	"internal/upstream outbound.NewDialer":                   "head",    // the proxy counts each exchange
	"internal/webhook net/http.Client":                       "webhook", // each attempt is counted
	"internal/webhook outbound.NewTransport":                 "webhook",
}

// Every place of the service that can reach beyond the process is listed, with
// the service under which external_service_calls_total counts it.
func TestEveryDialerIsCounted(t *testing.T) {
	found := map[string]bool{}
	for dir := range ofTheService(t) {
		for _, f := range parse(t, dir) {
			for use := range uses(f) {
				found[dir+" "+use] = true
			}
		}
	}
	for use := range found {
		if dialers[use] == "" {
			t.Errorf("%s makes connections, or may do so, and no service in the list counts them", use)
		}
	}
	counted := map[string]bool{}
	for use, names := range dialers {
		if !found[use] {
			t.Errorf("%s is listed and does not exist", use)
		}
		for _, name := range strings.Fields(names) {
			counted[name] = true
		}
	}
	delete(counted, "-")
	metrics := prometheus.NewRegistry()
	outbound.NewCalls(metrics)
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	services := map[string]bool{}
	for _, m := range families[0].GetMetric() {
		services[m.GetLabel()[0].GetValue()] = true
	}
	if !maps.Equal(counted, services) {
		t.Errorf("the dialers are counted as %v, and the metric has %v", counted, services)
	}
}

// A dialer that is added is found, however the source writes it; what only names a
// type is none.
func TestTheWalkFindsEachDialer(t *testing.T) {
	for source, want := range map[string]string{
		`import "net"; var c, _ = net.Dial("tcp", "a:1")`:                                          "net.Dial",
		`import n "net"; func f() { var d n.Dialer; _ = d }`:                                       "net.Dialer",
		`import . "net"; var c, _ = Dial("tcp", "a:1")`:                                            "net, imported with a dot",
		`import "crypto/tls"; var d = &tls.Dialer{}`:                                               "crypto/tls.Dialer",
		`import "net/http"; var c = new(http.Client)`:                                              "net/http.Client",
		`import "net/http"; var c = []*http.Client{{}}`:                                            "net/http.Client",
		`import "net/http"; type c struct{ http.Transport }`:                                       "net/http.Transport",
		`import "net/http"; var get = http.Get`:                                                    "net/http.Get",
		`import "net/http"; var c = *http.DefaultClient`:                                           "net/http.DefaultClient",
		`import "github.com/nats-io/nats.go"; var c, _ = nats.Connect("")`:                         "nats.go.Connect",
		`import "github.com/redis/go-redis/v9"; var c = redis.NewRing(nil)`:                        "go-redis/v9.NewRing",
		`import "github.com/coreos/go-oidc/v3/oidc"; var k = oidc.NewRemoteKeySet`:                 "github.com/coreos/go-oidc/v3/oidc.NewRemoteKeySet",
		`import "` + module + `internal/outbound"; var c = outbound.NewClient(outbound.Options{})`: "outbound.NewClient",
		`import "os/exec"; var c = exec.Command("curl")`:                                           "os/exec.Command",
		`import "github.com/segmentio/kafka-go"; var w = kafka.Writer{}`:                           "github.com/segmentio/kafka-go, which no list has",
		`import _ "github.com/lib/pq"`:                                                             "github.com/lib/pq, which no list has",
		`import "net/http"; func f(c *http.Client) { _ = []*http.Client{c} }`:                      "",
		`import "net"; var l, _ = net.Listen("tcp", "a:1")`:                                        "",
		`import "github.com/prometheus/prometheus/promql"; var e promql.Engine`:                    "",
		`type net struct{ Dial func() }; func f(n net) { n.Dial() }`:                               "",
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "a.go", "package a; "+source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(uses(f))), ", "); got != want {
			t.Errorf("in %s the walk finds %q, want %q", source, got, want)
		}
	}
}

// ofTheService are the directories of the packages that the app is made of.
func ofTheService(t *testing.T) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	var visit func(dir string)
	visit = func(dir string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		for _, f := range parse(t, dir) {
			for _, spec := range f.Imports {
				if ours, ok := strings.CutPrefix(imported(spec), module); ok {
					visit(ours)
				}
			}
		}
	}
	visit("internal/app")
	if len(seen) < 15 {
		t.Fatalf("found only the packages %v", slices.Sorted(maps.Keys(seen)))
	}
	return seen
}

func imported(spec *ast.ImportSpec) string {
	name, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser took it
	}
	return name
}

// parse reads the files of a package that are no tests.
func parse(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("../..", dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	return files
}

// uses are the makers that a file uses, and the packages that nothing is known of.
// A pointer to a maker as a type is no use.
func uses(f *ast.File) map[string]bool {
	found := map[string]bool{}
	names := map[string]string{} // in the file: import path
	for _, spec := range f.Imports {
		full := imported(spec)
		switch {
		case makers[full] == nil && strings.Contains(full, ".") && !strings.HasPrefix(full, module) && !isSilent(full):
			found[full+", which no list has"] = true
		case spec.Name != nil && spec.Name.Name == "." && makers[full] != nil:
			found[full+", imported with a dot"] = true
		case spec.Name != nil:
			names[spec.Name.Name] = full
		default:
			names[nameOf(full)] = full
		}
	}
	types := map[ast.Node]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StarExpr:
			if s, ok := n.X.(*ast.SelectorExpr); ok && !strings.HasPrefix(s.Sel.Name, "Default") && !types[n] {
				types[s] = true
			}
		case *ast.CompositeLit: // of pointers, whose elements may leave out the type
			if list, ok := n.Type.(*ast.ArrayType); ok && slices.ContainsFunc(n.Elts, isBare) {
				types[list.Elt] = true
			}
			if list, ok := n.Type.(*ast.MapType); ok && slices.ContainsFunc(n.Elts, isBare) {
				types[list.Value] = true
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && !types[n] && slices.Contains(makers[names[x.Name]], n.Sel.Name) {
				short := strings.TrimPrefix(names[x.Name], module+"internal/")
				for _, host := range []string{"github.com/nats-io/", "github.com/redis/"} {
					short = strings.TrimPrefix(short, host)
				}
				found[short+"."+n.Sel.Name] = true
			}
		}
		return true
	})
	return found
}

func isSilent(full string) bool {
	return slices.ContainsFunc(silent, func(s string) bool { return full == s || strings.HasPrefix(full, s+"/") })
}

// isBare reports whether an element of a composite literal has no type of its own.
func isBare(e ast.Expr) bool {
	if pair, ok := e.(*ast.KeyValueExpr); ok {
		e = pair.Value
	}
	literal, ok := e.(*ast.CompositeLit)
	return ok && literal.Type == nil
}

// nameOf is the name of a package by its import path: without the version, and as
// Go modules are named by habit.
func nameOf(full string) string {
	name := path.Base(full)
	if version.MatchString(name) {
		name = path.Base(path.Dir(full))
	}
	return strings.TrimPrefix(strings.TrimSuffix(name, ".go"), "go-")
}

var version = regexp.MustCompile(`^v[0-9]+$`)

// What is asked of the authority that issues certificates is counted.
func TestCallsOfTheAuthorityAreCounted(t *testing.T) {
	metrics := prometheus.NewRegistry()
	calls := outbound.NewCalls(metrics)
	authority := httptest.NewServer(http.NotFoundHandler())
	defer authority.Close()
	a := &App{calls: calls, metrics: metrics, log: slog.New(slog.DiscardHandler), config: config.Config{
		DataDir: t.TempDir(), TLS: config.TLS{ACMEHosts: []string{"headway.test"}, ACMEDirectory: authority.URL},
	}}
	if err := a.openCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	hello := &tls.ClientHelloInfo{ServerName: "headway.test", SupportedVersions: []uint16{tls.VersionTLS13}}
	if _, err := a.certs.Config().GetCertificate(hello); err == nil {
		t.Error("there is a certificate")
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	failed := 0.0
	for _, m := range families[0].GetMetric() {
		if l := m.GetLabel(); families[0].GetName() == "external_service_calls_total" && l[0].GetValue() == "acme" && l[1].GetValue() == "error" {
			failed = m.GetCounter().GetValue()
		}
	}
	if failed != 1 {
		t.Errorf("counted %v errors, want 1", failed)
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
}
