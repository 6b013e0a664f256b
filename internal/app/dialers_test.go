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
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"headway/internal/config"
)

// makers are what makes a connection, or a client that makes some, by import
// path.
var makers = map[string][]string{
	"net":                                 {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer"},
	"crypto/tls":                          {"Dial", "DialWithDialer", "Dialer"},
	"net/http":                            {"Client", "Transport", "DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm"},
	"net/smtp":                            {"Dial", "SendMail"},
	"net/rpc":                             {"Dial", "DialHTTP", "DialHTTPPath"},
	"log/syslog":                          {"Dial", "New", "NewLogger"},
	"os/exec":                             {"Command", "CommandContext"},
	"golang.org/x/crypto/acme":            {"Client"},
	"github.com/nats-io/nats.go":          {"Connect", "Options"},
	"github.com/redis/go-redis/v9":        {"NewClient", "NewClusterClient", "NewFailoverClient", "NewFailoverClusterClient", "NewUniversalClient", "NewRing", "NewSentinelClient"},
	"github.com/coder/websocket":          {"Dial"},
	"github.com/coreos/go-oidc/v3/oidc":   {"NewProvider", "NewRemoteKeySet"},
	"headway/internal/outbound":           {"NewClient", "NewTransport", "NewDialer"},
	"google.golang.org/grpc":              {"Dial", "DialContext", "NewClient"},
	"github.com/prometheus/common/config": {"NewClientFromConfig", "NewRoundTripperFromConfig"},
}

// dialers are all places that make connections in the packages of the service,
// by package and what they use, with the service that counts them.
var dialers = map[string]string{
	"internal/outbound net.Dialer":                 "-", // counts for those below
	"internal/outbound net/http.Client":            "-",
	"internal/outbound net/http.Transport":         "-",
	"internal/access outbound.NewClient":           "oidc", // for tests; the app gives its own
	"internal/app outbound.NewClient":              "oidc acme alertmanager webhook",
	"internal/app outbound.NewDialer":              "nats",
	"internal/monitor outbound.NewClient":          "alertmanager webhook", // for tests; the app gives its own
	"internal/natsmq nats.go.Connect":              "nats",                 // with the dialer of the app; else within the process
	"internal/pki golang.org/x/crypto/acme.Client": "acme",                 // with the client of the app
	"internal/redisaudit go-redis/v9.NewClient":    "redis",                // each call is counted
	"internal/webhook net/http.Client":             "webhook",              // each attempt is counted
	"internal/webhook outbound.NewTransport":       "webhook",
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
			t.Errorf("%s makes connections that no service in the list counts", use)
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
	if got := slices.Sorted(maps.Keys(counted)); !slices.Equal(got, services) {
		t.Errorf("the dialers are counted as %v, and the metric has %v", got, services)
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
				if ours, ok := strings.CutPrefix(imported(spec), "headway/"); ok {
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

// uses are the makers that a file uses; a pointer to one as a type is no use.
func uses(f *ast.File) map[string]bool {
	names := map[string]string{} // in the file: import path
	for _, spec := range f.Imports {
		full := imported(spec)
		local := path.Base(full)
		switch {
		case spec.Name != nil:
			local = spec.Name.Name
		case local == "v9":
			local = "redis"
		case local == "nats.go":
			local = "nats"
		}
		names[local] = full
	}
	types := map[ast.Node]bool{}
	found := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if star, ok := n.(*ast.StarExpr); ok {
			types[star.X] = true
		}
		s, ok := n.(*ast.SelectorExpr)
		if !ok || types[s] {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && slices.Contains(makers[names[x.Name]], s.Sel.Name) {
			short := strings.TrimPrefix(names[x.Name], "headway/internal/")
			for _, host := range []string{"github.com/nats-io/", "github.com/redis/"} {
				short = strings.TrimPrefix(short, host)
			}
			found[short+"."+s.Sel.Name] = true
		}
		return true
	})
	return found
}

// What is asked of the authority that issues certificates is counted.
func TestCallsOfTheAuthorityAreCounted(t *testing.T) {
	metrics := prometheus.NewRegistry()
	outside, err := registerOutside(metrics)
	if err != nil {
		t.Fatal(err)
	}
	authority := httptest.NewServer(http.NotFoundHandler())
	defer authority.Close()
	a := &App{outside: outside, log: slog.New(slog.DiscardHandler), config: config.Config{
		DataDir: t.TempDir(), TLS: config.TLS{ACMEHosts: []string{"headway.test"}, ACMEDirectory: authority.URL},
	}}
	if err := a.openCertificates(metrics); err != nil {
		t.Fatal(err)
	}
	hello := &tls.ClientHelloInfo{ServerName: "headway.test", SupportedVersions: []uint16{tls.VersionTLS13}}
	if _, err := a.certs.Config().GetCertificate(hello); err == nil {
		t.Error("there is a certificate")
	}
	var counted dto.Metric
	if err := outside.calls.WithLabelValues("acme", "error").Write(&counted); err != nil || counted.GetCounter().GetValue() != 1 {
		t.Errorf("counted %v errors, want 1; %v", counted.GetCounter().GetValue(), err)
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
}
