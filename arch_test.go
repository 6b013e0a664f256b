// Package headway_test holds the rules of the house that a machine can check:
// which room may import which, what a package and a file look like, and what
// must never be in the repository.
package headway_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "headway"

// room is what one package may import: of ours by directory, of others by
// module. The standard library is open to all, except for what .golangci.yml
// keeps from the rooms that decide.
type room struct {
	ours   []string
	others []string
}

const (
	bbolt     = "go.etcd.io/bbolt"
	bubbletea = "charm.land/bubbletea/v2"
	cobra     = "github.com/spf13/cobra"
	jose      = "github.com/go-jose/go-jose/v4"
	json      = "github.com/go-json-experiment/json"
	lipgloss  = "charm.land/lipgloss/v2"
	metrics   = "github.com/prometheus/client_golang"
	xxhash    = "github.com/cespare/xxhash"
	acme      = "golang.org/x/crypto/acme"
	common    = "github.com/prometheus/common"
	model     = "github.com/prometheus/client_model"
	prom      = "github.com/prometheus/prometheus"
	nats      = "github.com/nats-io/nats.go"
	natsd     = "github.com/nats-io/nats-server/v2"
	oidc      = "github.com/coreos/go-oidc/v3"
	otlp      = "go.opentelemetry.io/proto/slim/otlp"
	pflag     = "github.com/spf13/pflag"
	protobuf  = "google.golang.org/protobuf"
	rapid     = "pgregory.net/rapid"
	redis     = "github.com/redis/go-redis/v9"
	websocket = "github.com/coder/websocket"
	xnet      = "golang.org/x/net"
	xterm     = "golang.org/x/term"
	yaml      = "go.yaml.in/yaml/v3"
)

// anyOfOurs is for the one room that builds everything, and for the program
// that measures everything.
var anyOfOurs = []string{"*"}

// rooms is the plan of the house; dependencies point inward. A package that is
// not in it has no place yet.
var rooms = map[string]room{
	"cmd/headway": {ours: []string{"internal/cli"}},
	"internal/cli": {
		ours:   []string{"api", "client", "internal/app", "internal/local", "internal/boltstore", "internal/access", "internal/audit", "internal/config", "internal/demo", "internal/fleet", "internal/pki", "grafana", "prometheus", "internal/trail", "internal/policy", "internal/apiv1", "internal/terminal", "internal/doctor", "internal/cmdline", "internal/agent", "internal/engines", "internal/decisionlog", "internal/rehearse", "internal/engine", "internal/plot", "internal/sim", "internal/strategy", "internal/strict", "internal/workload"},
		others: []string{cobra, pflag},
	},
	"bench": {ours: anyOfOurs, others: []string{metrics}},
	"bench/routing": {
		ours:   []string{"bench/routing/peers", "internal/engine", "internal/plot", "internal/routing", "internal/sim", "internal/strategy", "internal/workload"},
		others: []string{"github.com/klauspost/compress"},
	},
	"bench/routing/peers": {ours: []string{"internal/fleet", "internal/strategy", "internal/strict"}},
	"mutants":             {},

	"scripts/suite":        {},
	"tools/mixin":          {others: []string{yaml}},
	"tools/mixin/generate": {ours: []string{"tools/mixin", "internal/config"}, others: []string{yaml, "github.com/grafana/grafana-foundation-sdk/go"}},

	"api":    {},
	"client": {ours: []string{"api", "internal/openai", "internal/prefix"}, others: []string{websocket}},

	"internal/doctor":    {ours: []string{"api", "client", "internal/boltstore", "internal/local", "internal/policy", "internal/terminal", "internal/disk"}},
	"internal/cmdline":   {ours: []string{"internal/strict"}, others: []string{cobra, pflag}},
	"internal/terminal":  {ours: []string{"internal/audit"}, others: []string{lipgloss, xterm, yaml}},
	"internal/local":     {ours: []string{"client", "internal/disk", "internal/pki"}},
	"internal/app":       {ours: anyOfOurs, others: []string{metrics}},
	"internal/strict":    {others: []string{json, yaml}},
	"internal/address":   {},
	"internal/engines":   {ours: []string{"internal/fleet"}, others: []string{common, model, json}},
	"internal/agent":     {ours: []string{"api", "internal/engines", "internal/fleet", "internal/outbound", "internal/registry", "internal/strict"}, others: []string{metrics}},
	"internal/outbound":  {ours: []string{"internal/address"}, others: []string{metrics}},
	"internal/admission": {others: []string{metrics}},
	"internal/upstream":  {ours: []string{"internal/address", "internal/outbound"}, others: []string{metrics, xnet}},
	"internal/healthcheck": {
		ours: []string{"internal/engines", "internal/fleet", "internal/outbound"}, others: []string{metrics},
	},
	"internal/tracing": {ours: []string{"internal/outbound"}, others: []string{metrics, otlp, protobuf}},
	"internal/proxy": {
		ours:   []string{"internal/access", "internal/admission", "internal/audit", "internal/engines", "internal/fleet", "internal/openai", "internal/outbound", "internal/policy", "internal/prefix", "internal/routing", "internal/strategy", "internal/strict", "internal/tracing", "internal/upstream"},
		others: []string{metrics, "golang.org/x/sync"},
	},
	"internal/config": {ours: []string{"internal/strict"}, others: []string{pflag, yaml}},
	"internal/disk":   {},
	"internal/event":  {others: []string{metrics}},
	"internal/feed":   {},
	"internal/audit":  {ours: []string{"internal/disk"}, others: []string{metrics}},
	"internal/trail":  {ours: []string{"internal/audit", "internal/strict", "internal/disk"}, others: []string{metrics}},
	"internal/access": {ours: []string{"internal/address", "internal/audit", "internal/feed", "internal/strict", "internal/disk"}, others: []string{metrics, json, oidc, jose, "golang.org/x/time"}},
	"internal/apiv1": {
		ours:   []string{"api", "internal/access", "internal/audit", "internal/event", "internal/fleet", "internal/openai", "internal/prefix", "internal/registry", "internal/routing", "internal/strict", "internal/trail", "internal/policy", "internal/strategy"},
		others: []string{json},
	},
	"internal/live": {
		ours:   []string{"api", "internal/access", "internal/apiv1", "internal/audit", "internal/event", "internal/fleet", "internal/registry", "internal/routing", "internal/strict"},
		others: []string{metrics, json, websocket, xnet, "golang.org/x/time"},
	},
	"prometheus":     {},
	"grafana":        {},
	"internal/fleet": {ours: []string{"internal/address", "internal/feed", "internal/strict"}},
	"internal/registry": {
		ours:   []string{"internal/event", "internal/feed", "internal/audit", "internal/fleet", "internal/strict"},
		others: []string{metrics, json},
	},
	"internal/prefix": {others: []string{xxhash}},
	"internal/strategy": {
		ours:   []string{"internal/fleet", "internal/prefix", "internal/strict"},
		others: []string{xxhash},
	},
	"internal/policy": {
		ours:   []string{"internal/feed", "internal/fleet", "internal/strategy", "internal/strict", "internal/disk"},
		others: []string{json, metrics},
	},
	"internal/routing": {
		ours:   []string{"internal/event", "internal/feed", "internal/audit", "internal/fleet", "internal/strict", "internal/policy", "internal/strategy"},
		others: []string{metrics, model, json},
	},
	"internal/effectiveness": {
		ours:   []string{"internal/fleet", "internal/routing", "internal/strategy"},
		others: []string{metrics},
	},
	"internal/decisionlog": {
		ours:   []string{"api", "internal/disk", "internal/fleet", "internal/prefix", "internal/routing"},
		others: []string{metrics},
	},
	"internal/httpapi": {
		ours:   []string{"api", "internal/access", "internal/audit", "internal/apiv1", "internal/decisionlog", "internal/effectiveness", "internal/rehearse", "internal/live", "internal/event", "internal/fleet", "internal/registry", "internal/routing", "internal/strict", "internal/trail", "internal/policy", "internal/strategy", "internal/address", "internal/openai", "internal/proxy"},
		others: []string{metrics, json, yaml, websocket, "github.com/klauspost/compress", "golang.org/x/time"},
	},
	"internal/boltstore": {
		ours:   []string{"internal/access", "internal/feed", "internal/fleet", "internal/policy", "internal/disk"},
		others: []string{bbolt, json, metrics},
	},
	"internal/memstore": {ours: []string{"internal/access", "internal/feed", "internal/fleet", "internal/policy"}},
	"internal/natsmq": {
		ours:   []string{"api", "internal/access", "internal/address", "internal/apiv1", "internal/audit", "internal/disk", "internal/event", "internal/outbound", "internal/strict"},
		others: []string{nats, natsd, metrics, json},
	},
	"internal/webhook":    {ours: []string{"api", "internal/address", "internal/apiv1", "internal/event", "internal/outbound", "internal/strict"}, others: []string{metrics, json}},
	"internal/redisaudit": {ours: []string{"internal/outbound", "internal/strict", "internal/trail", "internal/address"}, others: []string{metrics, redis}},
	"internal/console":    {},
	"internal/history":    {ours: []string{"internal/disk"}, others: []string{common, prom}},
	"internal/monitor":    {ours: []string{"internal/history", "internal/outbound", "internal/disk"}, others: []string{metrics, model, common, prom, json}},
	"internal/pki":        {ours: []string{"internal/disk"}, others: []string{metrics, acme}},
	"internal/freeport":   {},
	"internal/openai":     {others: []string{xxhash}},
	"internal/storetest":  {ours: []string{"internal/access", "internal/audit", "internal/event", "internal/feed", "internal/fleet", "internal/registry", "internal/policy", "internal/routing"}, others: []string{metrics, rapid}},
	"internal/scenario":   {ours: []string{"internal/event", "internal/fleet", "internal/registry", "internal/memstore", "internal/routing", "internal/strict", "internal/policy", "internal/strategy"}, others: []string{metrics}},
	"internal/engine":     {},
	"internal/workload":   {ours: []string{"internal/prefix", "internal/strict"}, others: []string{json}},
	"internal/plot":       {others: []string{"golang.org/x/image"}},
	"internal/rehearse":   {ours: []string{"api", "internal/engine", "internal/policy", "internal/sim", "internal/workload"}},
	"internal/sim": {
		ours:   []string{"internal/engine", "internal/event", "internal/fleet", "internal/memstore", "internal/plot", "internal/policy", "internal/registry", "internal/routing", "internal/strategy", "internal/strict", "internal/workload"},
		others: []string{metrics},
	},
	"internal/mockhead": {ours: []string{"api", "client", "internal/engine"}, others: []string{json, metrics, xnet}},
	"tests/clients":     {ours: []string{"api", "client", "internal/local", "internal/mockhead"}, others: []string{json}},
	"internal/demo": {
		ours:   []string{"api", "client", "internal/engine", "internal/mockhead", "internal/workload"},
		others: []string{bubbletea, lipgloss, xterm, json},
	},
}

// forTests may be imported by any test, besides all that some room may import.
var forTests = []string{
	rapid,
	"go.uber.org/goleak",
	"github.com/rs/zerolog", // the logger that toxiproxy wants
	"github.com/santhosh-tekuri/jsonschema/v6",
	"github.com/openai/openai-go/v3",
	"github.com/prometheus/common",
	"github.com/prometheus/client_model",
	"go.opentelemetry.io/collector/pdata", // reads traces as the collector does
	"github.com/rogpeppe/go-internal",
	"github.com/nats-io/jwt/v2", // credentials of a server of somebody else's
	"github.com/nats-io/nkeys",
	"github.com/anishathalye/porcupine", // checks that calls at once are answered as if one after the other
	"github.com/Shopify/toxiproxy/v2",   // faults between a head and the service
	"github.com/miekg/dns",              // a DNS server
	"github.com/gobwas/ws",              // a second WebSocket library, which has to agree with the first
	"golang.org/x/sys",                  // makes a pseudo-terminal
}

// forbiddenNames say what a package is made of, and not what it is about.
var forbiddenNames = []string{
	"base", "common", "core", "helper", "helpers", "lib", "manager", "misc",
	"model", "models", "ports", "service", "services", "shared", "types", "util", "utils",
}

// Sizes in lines and methods. A longer file has a second subject; tests may be
// longer, since tables are.
const (
	maxLines     = 500
	maxTestLines = 1000
	maxMethods   = 4
)

func TestEveryPackageImportsOnlyWhatItsRoomMay(t *testing.T) {
	var everywhere []string
	for _, r := range rooms {
		everywhere = append(everywhere, r.others...)
	}
	everywhere = append(everywhere, forTests...)

	for _, f := range goFiles(t) {
		if f.dir == "." && f.isTest {
			continue // this file
		}
		r, known := rooms[f.dir]
		if !known {
			t.Errorf("%s: package %q is not in the plan of the house; add it to rooms in arch_test.go with what it may import, or put the file into a room that exists", f.path, f.dir)
			continue
		}
		for _, imported := range f.imports() {
			ours, isOurs := strings.CutPrefix(imported, module+"/")
			switch {
			case isOurs && !f.isTest:
				if ours != f.dir && !slices.Contains(r.ours, ours) && !slices.Equal(r.ours, anyOfOurs) {
					t.Errorf("%s: %s may not import %s; it may import %s", f.path, f.dir, ours, list(r.ours))
				}
			case isOurs:
				// Tests join rooms as they need.
			case !strings.Contains(strings.Split(imported, "/")[0], "."):
				// The standard library.
			case f.isTest:
				if !within(imported, everywhere) {
					t.Errorf("%s: tests may not import %s; a library for tests belongs into forTests in arch_test.go", f.path, imported)
				}
			case !within(imported, r.others):
				t.Errorf("%s: %s may not import %s; of other modules it may import %s", f.path, f.dir, imported, list(r.others))
			}
		}
	}
}

// What only measures the product must not be in it: not the rules of other routers.
func TestTheProductHasNoRuleOfAnotherRouter(t *testing.T) {
	imports := map[string][]string{}
	for _, f := range goFiles(t) {
		if !f.isTest {
			imports[f.dir] = append(imports[f.dir], f.imports()...)
		}
	}
	seen := map[string]bool{}
	var visit func(dir string)
	visit = func(dir string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		for _, imported := range imports[dir] {
			if ours, is := strings.CutPrefix(imported, module+"/"); is {
				visit(ours)
			}
		}
	}
	visit("cmd/headway")
	if !seen["internal/strategy"] {
		t.Fatal("the product has no strategies")
	}
	for dir := range seen {
		if strings.HasPrefix(dir, "bench") {
			t.Errorf("cmd/headway has %s in it", dir)
		}
	}
}

func TestPlanNamesOnlyRoomsOfItsOwn(t *testing.T) {
	for dir, r := range rooms {
		for _, ours := range r.ours {
			if _, known := rooms[ours]; !known && ours != "*" {
				t.Errorf("rooms in arch_test.go lets %s import %s, which it does not list", dir, ours)
			}
		}
	}
}

// The manual shows the rooms that exist, and the plan lists them.
func TestTheManualShowsTheRooms(t *testing.T) {
	page, _, _ := strings.Cut(string(read(t, "docs/architecture.md")), "\n## A decision")
	var shown []string
	for line := range strings.Lines(page) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				shown = append(shown, m[1])
			}
		}
	}
	for dir := range rooms {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("rooms in arch_test.go lists %s, which does not exist", dir)
		}
		if !slices.Contains(shown, dir) {
			t.Errorf("docs/architecture.md has no row for %s, which rooms in arch_test.go lists", dir)
		}
	}
	for _, dir := range shown {
		if _, known := rooms[dir]; !known && dir != "release" { // release has modules of its own
			t.Errorf("docs/architecture.md has a row for %s, which rooms in arch_test.go does not list", dir)
		}
	}
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	comments := make(map[string][]string)
	for _, f := range goFiles(t) {
		if f.isTest {
			continue
		}
		if _, seen := comments[f.dir]; !seen {
			comments[f.dir] = nil
		}
		if f.syntax.Doc == nil {
			continue
		}
		comments[f.dir] = append(comments[f.dir], f.path)
		want := "Package " + f.syntax.Name.Name + " "
		if f.syntax.Name.Name == "main" {
			want = "Command " + path.Base(f.dir) + " "
		}
		if text := f.syntax.Doc.Text(); !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment must begin with %q", f.path, want)
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s: the package has %d package comments, want 1 %s", dir, len(files), list(files))
		}
	}
}

func TestNoPackageIsNamedForWhatItIsMadeOf(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, name := range append(strings.Split(f.dir, "/"), f.syntax.Name.Name) {
			if slices.Contains(forbiddenNames, name) {
				t.Errorf("%s: %q says nothing about the subject; name the package after a noun of the domain or the technology that it adapts", f.path, name)
				break
			}
		}
	}
}

func TestNoFileIsTooLong(t *testing.T) {
	for _, f := range goFiles(t) {
		longest := maxLines
		if f.isTest {
			longest = maxTestLines
		}
		if lines := bytes.Count(f.text, []byte("\n")); lines > longest {
			t.Errorf("%s: %d lines, at most %d; find its second subject and give that a file", f.path, lines, longest)
		}
	}
}

func TestInterfacesAreSmall(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.isTest {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok {
				// An embedded interface counts once: it was counted where it stands.
				if methods := i.Methods.NumFields(); methods > maxMethods {
					t.Errorf("%s: interface %s has %d methods, at most %d", f.path, spec.Name.Name, methods, maxMethods)
				}
			}
			return true
		})
	}
}

// Inside a synctest bubble, also by fakeTime, time.Sleep moves the clock and waits for
// nothing.
func TestNoTestSleeps(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.isTest || slices.Contains(f.imports(), "testing/synctest") || bytes.Contains(f.text, []byte("\tfakeTime(t, func(")) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: a test that sleeps is slow or wrong; wait for the event, or use testing/synctest", f.at(s))
				}
			}
			return true
		})
	}
}

// unfit is what a repository must not hold. The patterns are written so that
// they don't match themselves.
var unfit = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{
		regexp.MustCompile(`(^|[^\w./-])/(root|work|Users/\w+|home/\w+)/`),
		"the path of somebody's machine",
	},
	{
		regexp.MustCompile(`(?i)\b(GOPROXY|npm_config_registry|pip_index_url)\b["']?\s*[:=]\s*["']?http`),
		"the address of somebody's package registry",
	},
	{
		regexp.MustCompile(`(?i)\bhttps?://[\w.-]*(artifactory|[n]exus|goproxy|verdaccio)`),
		"the address of somebody's package registry",
	},
	{
		regexp.MustCompile(`\b(TO[D]O|FIX[M]E|X[X]X)\b|(?i)\bfor [n]ow\b|\bnot [i]mplemented yet\b`),
		"unfinished work; finish it, or open an issue",
	},
}

func TestNoFileHoldsWhatIsUnfit(t *testing.T) {
	for _, name := range files(t) {
		if path.Base(name) == "go.sum" || path.Base(name) == "LICENSE" || strings.Contains(name, "testdata/fuzz/") {
			continue
		}
		text := read(t, name)
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			continue // an image
		}
		for _, u := range unfit {
			if found := u.pattern.FindIndex(text); found != nil {
				line := 1 + bytes.Count(text[:found[0]], []byte("\n"))
				t.Errorf("%s:%d: %s: %q", name, line, u.why, text[found[0]:found[1]])
			}
		}
	}
}

var (
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):.*## `)
	makeCommand = regexp.MustCompile(`^\s*(?:\$ )?make ([a-z][a-z-]*)`)
	makeInline  = regexp.MustCompile("`make ([a-z][a-z-]*)[^`]*`")
)

func TestDocumentedCommandsAreTargets(t *testing.T) {
	var targets []string
	for _, m := range makeTarget.FindAllSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, string(m[1]))
	}
	for _, name := range files(t) {
		if path.Ext(name) != ".md" {
			continue
		}
		fenced := false
		for n, line := range strings.Split(string(read(t, name)), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
				continue
			}
			command := makeInline
			if fenced {
				command = makeCommand
			}
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(targets, m[1]) {
					t.Errorf("%s:%d: make %s is not a target of the Makefile; there are %s", name, n+1, m[1], list(targets))
				}
			}
		}
	}
}

var localLink = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

func TestDocumentedFilesExist(t *testing.T) {
	for _, name := range files(t) {
		if path.Ext(name) != ".md" {
			continue
		}
		for _, m := range localLink.FindAllSubmatch(read(t, name), -1) {
			target := path.Join(path.Dir(name), string(m[1]))
			if _, err := os.Stat(filepath.FromSlash(target)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, m[1])
			}
		}
	}
}

// .ci/run takes the command from the README, so that what a newcomer types and
// what guards the main branch can't part.
func TestReadmeHasOneTestCommand(t *testing.T) {
	_, section, found := strings.Cut(string(read(t, "README.md")), "\n## Tests\n")
	section, _, _ = strings.Cut(section, "\n## ")
	parts := strings.Split(section, "\n```")
	if !found || len(parts) < 3 {
		t.Fatal(`README.md has no section "## Tests" with a fenced block`)
	}
	// After the opening fence comes the rest of its line, the language.
	_, block, _ := strings.Cut(parts[1], "\n")
	if got, want := strings.TrimSpace(block), "make test"; got != want {
		t.Errorf("README.md: the first block of \"## Tests\" is %q, want %q", got, want)
	}
}

// banned are words and phrases that are no plain technical English. They are
// matched in lower case, in identifiers too ("nobodysKey" reads "nobodys key").
// The comment names the usual word.
var banned = regexp.MustCompile(`\b(?:` + strings.Join([]string{
	`whoever|whomever|somebody|anybody|everybody|nobody|nobodys`,                            // caller, client, operator, user, no one
	`whatever|whichever|wherever`,                                                           // any, whether, where
	`anew|shall|upon|hereby|thereof|whence|hence|ought`,                                     // again, must, on
	`bury|buried|burial|mends?|mended|mending`,                                              // dead letter, drop, repair
	`guests?|strangers?`,                                                                    // caller, unauthenticated client, other host
	`(?:is|are|was|were|be|been|being|not) told|told (?:of|by|to|when|about)`,               // is notified, is given
	`tells? (?:of|that|who|what|whom|whether|about|itself|nothing|its|it|them|one another)`, // publishes, reports, posts
	`tell(?:s)? (?:people|clients|callers|heads|subscribers|operators|everyone)`,
	`(?:its|their|his|our) own word|operator's word|has a say|have a say`, // as it reports
	`sees? to it|as one likes|it is how|what there is|may be had|to be had|can be had`,
	`comes? to nothing|has to tell|have to tell|goes by the|believed|believes|believe`, // trusted, known as
	`is of use|are of use|of no use|of some use|no leave|without leave|gives? leave`,   // permission
	`is let in|are let in|be let in|lets in|was let in|let somebody in`,                // admitted
	`by and by|in vain|there and then|forthwith|lest|amidst|amongst|whilst`,
}, "|") + `)\b`)

// The text of a program and of its manual is plain technical English. Exempt
// are test data, what tests quote as input, and the notes of past releases.
func TestTheLanguageIsPlain(t *testing.T) {
	plain := make(map[string]bool) // identifiers
	check := func(file string, line int, text string) {
		if found := banned.FindString(strings.ToLower(text)); found != "" {
			t.Errorf("%s:%d: %q is not plain technical English; see house rule 7 in CONTRIBUTING.md", file, line, found)
		}
	}
	for _, f := range goFiles(t) {
		if f.path == "arch_test.go" {
			continue // it has the list
		}
		for _, group := range f.syntax.Comments {
			check(f.path, f.at(group).Line, strings.Join(strings.Fields(group.Text()), " "))
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if _, known := plain[n.Name]; !known {
					plain[n.Name] = !banned.MatchString(strings.ToLower(camel.ReplaceAllString(n.Name, "$1 $2")))
				}
				if !plain[n.Name] {
					check(f.path, f.at(n).Line, camel.ReplaceAllString(n.Name, "$1 $2"))
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && !f.isTest {
					check(f.path, f.at(n).Line, n.Value)
				}
			}
			return true
		})
	}
	prose := []string{".md", ".yaml", ".yml", ".sh", ".txt", ".service", ".svg", ""}
	for _, name := range files(t) {
		if !slices.Contains(prose, path.Ext(name)) || strings.Contains("/"+name, "/testdata/") || path.Base(name) == "LICENSE" {
			continue
		}
		text := string(read(t, name))
		if name == "CHANGELOG.md" {
			_, text, _ = strings.Cut(text, "\n## Unreleased")
			text, _, _ = strings.Cut(text, "\n## ")
		}
		if !utf8.ValidString(text) {
			continue
		}
		for n, line := range strings.Split(text, "\n") {
			check(name, n+1, line)
		}
	}
}

var camel = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// goFile is one parsed source file of the module.
type goFile struct {
	path   string // from the root, with slashes
	dir    string // the package's directory; "." for the root
	isTest bool
	text   []byte
	syntax *ast.File
	set    *token.FileSet
}

func (f *goFile) imports() []string {
	paths := make([]string, 0, len(f.syntax.Imports))
	for _, spec := range f.syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser took it
		}
		paths = append(paths, imported)
	}
	return paths
}

func (f *goFile) at(n ast.Node) token.Position { return f.set.Position(n.Pos()) }

// sources are what goFiles parsed, once for all tests.
var sources []*goFile

// goFiles returns every source file, those for other systems included.
func goFiles(t *testing.T) []*goFile {
	t.Helper()
	if sources != nil {
		return sources
	}
	set := token.NewFileSet()
	// What the tools need stays in modules of their own.
	var modules []string
	for _, name := range files(t) {
		if dir, file := path.Split(name); file == "go.mod" && dir != "" {
			modules = append(modules, dir)
		}
	}
	for _, name := range files(t) {
		inside := func(dir string) bool { return strings.HasPrefix(name, dir) }
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") || slices.ContainsFunc(modules, inside) {
			continue
		}
		text := read(t, name)
		syntax, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, &goFile{
			path: name, dir: path.Dir(name), isTest: strings.HasSuffix(name, "_test.go"),
			text: text, syntax: syntax, set: set,
		})
	}
	return sources
}

// files lists the repository's files with slashes. It needs no git, and leaves
// out what .gitignore names.
func files(t *testing.T) []string {
	t.Helper()
	outside := []string{".git", ".idea", ".vscode", "bin", "data", "node_modules"}
	var all []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(outside, filepath.ToSlash(name)), entry.IsDir() && entry.Name() == "node_modules":
			return filepath.SkipDir
		case entry.Type().IsRegular() && name != ".git": // a worktree's is a file
			all = append(all, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// within says whether an import is of one of the modules.
func within(imported string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return imported == m || strings.HasPrefix(imported, m+"/")
	})
}

func list(names []string) string {
	if len(names) == 0 {
		return "(none)"
	}
	return "(" + strings.Join(slices.Sorted(slices.Values(names)), ", ") + ")"
}

// hardCoded are the forms of what must be made where it is used, and never be in
// the repository: everybody who has the program would have it.
var hardCoded = map[string]*regexp.Regexp{
	"an API key":                regexp.MustCompile(`hw_[0-9a-f]{12}_[A-Za-z0-9_-]{43}`),
	"a local credential":        regexp.MustCompile(`hwlocal_[A-Z2-7]{26}`),
	"a private key":             regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]`),
	"a private key without PEM": regexp.MustCompile(`\bMC4CAQAwBQYDK2VwBCIEI[A-Za-z0-9+/]{20}|\bMIGHAgEAMBMGByqGSM49[A-Za-z0-9+/]{20}`),
	"a seed of NATS":            regexp.MustCompile(`\bS[ACOPUNX][A-Z2-7]{56}\b`),
	"a password in a URL":       regexp.MustCompile(`\b(?:nats|rediss?)://[^\s/:@"'$<>{}%]+:[^\s/:@"'$<>{}%]{4,}@`),
}

// No key is the same for two installations: none stands in the repository, in
// code, tests or what users copy.
func TestNoKeyIsHardCoded(t *testing.T) {
	for _, name := range files(t) {
		text := read(t, name)
		for what, form := range hardCoded {
			if found := form.Find(text); found != nil {
				t.Errorf("%s has %s: %.40q", name, what, found)
			}
		}
	}
	examples := map[string]string{
		"an API key":                "hw_" + strings.Repeat("0a", 6) + "_" + strings.Repeat("_-aZ", 11),
		"a local credential":        "hwlocal_" + strings.Repeat("A2", 13),
		"a private key without PEM": "MC4CAQAwBQYDK2VwBCIEI" + strings.Repeat("Ab+/", 5),
		"a private key":             "-----BEGIN EC " + "PRIVATE KEY-----\nMHc",
		"a seed of NATS":            "SU" + strings.Repeat("A7", 28),
		"a password in a URL":       "redis" + "://me:letmein@host",
	}
	for what, form := range hardCoded {
		if example := examples[what]; !form.MatchString(example) {
			t.Errorf("%s as %q is not recognised", what, example)
		}
	}
}

// attacks are those that others of its kind fell to, by words of the page.
var attacks = []string{
	"administrative interface without authentication",
	"route outside the authenticated prefix",
	"Tricks with the path",
	"Tricks with the Host header",
	"makes a wider or longer key",
	"second header with the same key",
	"SSRF by a registered address",
	"False load reports",
	"Series without bound",
	"Secrets in arguments",
	"Hard-coded keys",
	"another site's page",
}

// The page of threats names all attacks, with tests that exist.
func TestTheThreatsAreTried(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range goFiles(t) {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.isTest && fn.Recv == nil {
				have[fn.Name.Name] = true
			}
		}
	}
	for _, attack := range attacks {
		if !regexp.MustCompile(`(?m)^\| [^|]*` + regexp.QuoteMeta(attack) + "[^|]*\\|[^|]*\\| `(?:Test|Fuzz)").Match(page) {
			t.Errorf("docs/security.md has no line for %q with a test", attack)
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 30 {
		t.Fatalf("the page names %d tests", len(named))
	}
	for _, n := range named {
		if !have[n[1]] {
			t.Errorf("docs/security.md names %s, which is no test", n[1])
		}
	}
}
