# Bare `make` prints the targets. ARGS reaches the program that a target runs:
#   make run ARGS='--listen 127.0.0.1:9000'

# Debian machines often have Go in /usr/local/go without it being on PATH. The
# checkers call `go` themselves, so PATH gets it too.
GO := $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
export PATH := $(patsubst %/,%,$(dir $(GO))):$(PATH)

ARGS     ?=
PKG      ?= ./...
FUZZTIME ?= 10s
KILLS    ?= 1000
ROOM     ?=
SOAK_TIME ?= 60s

# Both are empty in an unpacked archive, or where git is missing or refuses the
# directory; the binary then says so.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# The version comes in by LDFLAGS. Go's own stamping fails outright where git
# exists but distrusts the directory's owner, as in many containers. The compiler
# optimizes by where the service's processor time goes; tests are built without.
PROFILE    := cmd/headway/serve.pgo
BUILDFLAGS := -trimpath -buildvcs=false -pgo=$(PROFILE) -ldflags '$(LDFLAGS)'

TOOLS := $(addprefix bin/,golangci-lint gofumpt deadcode benchstat typecheck)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## print the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: need-go ## build bin/headway
	@echo 'building bin/headway'
	@$(GO) build $(BUILDFLAGS) -o bin/headway ./cmd/headway

.PHONY: run
run: build ## start the service on 127.0.0.1:8080
	@exec bin/headway serve $(ARGS)

.PHONY: demo
demo: build ## start a small fleet and a stream of requests beside a running service
	@exec bin/headway demo $(ARGS)

.PHONY: test
test: need-go need-cc ## run every test with the race detector (PKG=./internal/fleet/... for a part, ARGS=-short without the long simulations)
	@$(GO) run ./scripts/suite -skips scripts/suite/skips.txt -- -race -timeout 40m $(ARGS) $(PKG)

.PHONY: test-clients
test-clients: build ## run the official clients for Python and Node, litellm, LangChain and curl through Headway (needs python3-venv, npm; ARGS="-against headway -only openai")
	@$(GO) run ./tests/clients $(ARGS)

# Some promises cannot be measured under the race detector: allocations, and
# simulations of millions of requests. Here no test may be skipped.
.PHONY: test-norace
test-norace: need-go ## run the tests that the race detector leaves out
	@$(GO) run ./scripts/suite -strict -- -timeout 10m -run '^(TestADecisionIsOneAllocation|TestNoStrategyMakesAHerd|TestRoutingFigures)' ./internal/routing ./bench/routing

.PHONY: check
check: check-format check-vet check-darwin check-lint check-dead check-modules check-house check-dashboards check-kubernetes ## format, vet, lint, dead code, modules, the rules of the house, dashboards, manifests
	@echo 'make check: all nine checks passed'

.PHONY: bench
bench: need-go ## measure the figures we promise, as ratios within one run
	@$(GO) run ./bench $(ARGS)

.PHONY: bench-routing
bench-routing: need-go ## measure the figures of the strategies on simulated fleets, and write them into docs/strategies.md (ten minutes)
	@$(GO) run ./bench/routing -write docs/strategies.md $(ARGS)

.PHONY: profile
profile: need-go ## write where the service's processor time goes, by which it is compiled (a minute; after changes of the hot paths)
	@CGO_ENABLED=0 $(GO) run -trimpath ./bench -profile $(PROFILE)

.PHONY: kills
kills: need-go ## kill the service 1,000 times during administrative changes (minutes; KILLS=100 for fewer)
	@$(GO) test ./cmd/headway -run '^TestKilledDuringAdministrativeChanges$$' -count 1 -v -timeout 2h -kills $(KILLS)

.PHONY: soak
soak: need-go ## overload, 50,000 flapping heads, full tables, scarce files and memory, strategies on real heads as simulated, ten minutes of mixed use, five of heads that break (SOAK_TIME=20s for a third)
	@$(GO) test ./cmd/headway -run '^TestSoak' -count 1 -v -timeout 2h -soak $(SOAK_TIME)
	@$(GO) test ./internal/httpapi -run '^TestSoak' -count 1 -v -timeout 1h -soak $(SOAK_TIME)

.PHONY: fuzz
fuzz: need-go ## fuzz each target for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME)

.PHONY: mutants
mutants: need-go ## change one thing at a time and see that tests notice it (20 minutes; ROOM=fleet for a part)
	@$(GO) run ./mutants -room '$(ROOM)' $(ARGS)

.PHONY: cover
cover: need-go ## measure test coverage into bin/cover.html
	@mkdir -p bin
	@$(GO) test -coverpkg=./... -coverprofile=bin/cover.out $(PKG)
	@$(GO) tool cover -html=bin/cover.out -o bin/cover.html
	@$(GO) tool cover -func=bin/cover.out | tail -n 1

.PHONY: fmt
fmt: bin/gofumpt ## format the source
	@bin/gofumpt -l -w .

.PHONY: tools
tools: $(TOOLS) bin/dashboard-linter ## build the checkers into bin/ (the other targets do it as needed)

.PHONY: clean
clean: ## remove what make built
	@rm -rf bin

## What is generated and committed

.PHONY: generate
generate: need-go ## write rules, their tests, dashboards and runbooks from tools/mixin
	@$(GO) run ./tools/mixin/generate

.PHONY: console
console: ## build the web console's assets into internal/console/dist (needs npm)
	@command -v npm >/dev/null || { echo 'make: npm is missing; get it with: apt-get install -y nodejs npm' >&2; exit 1; }
	@cd internal/console/web && npm ci --silent --no-audit --no-fund && npm run --silent check && npm run --silent build

.PHONY: screenshots
screenshots: build ## take the pictures of docs/images in Chromium under load, and let axe look (5 minutes)
	@scripts/screenshots/run

## Packaging

# All of it is of the one static binary that release/build makes, and all
# of it goes to bin/dist. ARCH is that of Go: amd64 or arm64.
ARCH ?= amd64

.PHONY: dist
dist: need-go ## make the archives for Linux, with their bills of materials, in bin/dist
	@release/dist

.PHONY: image
image: need-go ## build the container image without docker (ARCH=arm64 for the other)
	@release/image $(ARCH)

.PHONY: deb
deb: need-go bin/nfpm ## build the Debian package (ARCH=arm64 for the other)
	@release/deb $(ARCH)

.PHONY: sbom
sbom: need-go ## write the bill of materials, bin/dist/headway-ARCH.cdx.json
	@release/build $(ARCH) bin/dist/headway-$(ARCH)
	@release/sbom bin/dist/headway-$(ARCH) bin/dist/headway-$(ARCH).cdx.json

.PHONY: reproducible
reproducible: need-go bin/nfpm ## build binary, package and image twice and compare the hashes
	@release/reproducible

# The packager has a module of its own: in tools/lint/go.mod it would lift versions
# that the linters pin.
bin/nfpm: release/packaging/go.mod release/packaging/go.sum | need-go
	@echo 'building $@'
	@$(GO) -C release/packaging build -trimpath -buildvcs=false -o '$(CURDIR)/$@' github.com/goreleaser/nfpm/v2/cmd/nfpm
	@touch $@

# One check each, so that one can be run alone.
.PHONY: check-format check-vet check-darwin check-lint check-dead check-modules check-house check-dashboards check-kubernetes

check-format: bin/gofumpt
	@diff="$$(bin/gofumpt -d .)" && [ -z "$$diff" ] || { printf '%s\n' "$$diff"; echo 'make check: the source is not formatted; run: make fmt' >&2; exit 1; }

check-vet: need-go
	@$(GO) vet ./...

# What is not for Linux, tests included; the releases are for Linux. The tool is
# tried on planted faults.
check-darwin: bin/typecheck
	@$(GO) -C tools/lint test ./typecheck
	@bin/typecheck . darwin

check-lint: bin/golangci-lint
	@bin/golangci-lint run ./...

check-dead: bin/deadcode
	@scripts/deadcode

# tidy -diff changes nothing; it fails and prints what a tidy would change.
check-modules: need-go
	@$(GO) mod tidy -diff
	@$(GO) mod verify
	@$(GO) -C tools/lint mod verify

check-house: need-go
	@$(GO) test .

# Grafana's linter, strict; tools/dashboards/lint.yml lists what is excluded, and
# why.
check-dashboards: bin/dashboard-linter
	@for f in grafana/dashboards/*.json; do \
		said="$$(bin/dashboard-linter lint --strict -c tools/dashboards/lint.yml "$$f" 2>&1)" || { printf '%s\n' "$$said"; echo "make check: Grafana's linter refuses $$f" >&2; exit 1; }; \
	done

# The manifests, built by kustomize, against the types of Kubernetes and of the
# operator of Prometheus, in a module of its own.
check-kubernetes: need-go
	@$(GO) -C tools/manifests vet ./...
	@$(GO) -C tools/manifests test ./...
	@$(GO) -C tools/manifests mod verify

# The linter has a module of its own, as it needs a whole Prometheus.
bin/dashboard-linter: tools/dashboards/go.mod tools/dashboards/go.sum | need-go
	@echo 'building $@'
	@$(GO) -C tools/dashboards build -trimpath -buildvcs=false -o '$(CURDIR)/$@' github.com/grafana/dashboard-linter
	@touch $@

bin/golangci-lint: PACKAGE := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/gofumpt:       PACKAGE := mvdan.cc/gofumpt
bin/deadcode:      PACKAGE := golang.org/x/tools/cmd/deadcode
bin/benchstat:     PACKAGE := golang.org/x/perf/cmd/benchstat
bin/typecheck:     PACKAGE := ./typecheck
bin/typecheck: tools/lint/typecheck/main.go tools/lint/typecheck/suite.go

# The touch is for a rebuild that finds nothing to do: go build then leaves the
# file's old time, and make would come back each time.
$(TOOLS): tools/lint/go.mod tools/lint/go.sum | need-go
	@echo 'building $@'
	@$(GO) -C tools/lint build -trimpath -buildvcs=false -o '$(CURDIR)/$@' $(PACKAGE)
	@touch $@

# What a machine lacks is said in one line, before anything else runs.
.PHONY: need-go need-cc

need-go:
	@command -v $(GO) >/dev/null || { echo 'make: Go is missing; get it from https://go.dev/dl/ and unpack it to /usr/local/go' >&2; exit 1; }

need-cc:
	@[ "$$($(GO) env CGO_ENABLED)" = 1 ] && printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $$($(GO) env CC) -x c - -o /dev/null 2>/dev/null || \
		{ echo 'make test: the race detector needs a C compiler and cgo (CGO_ENABLED=1); get one with: apt-get install -y gcc libc6-dev' >&2; exit 1; }
