# The commands of a contributor. "make help" lists them.

# What the tests run on besides SQLite: "auto" starts a private PostgreSQL
# server, "durable" one whose commits are on the disk, a URL uses that one, empty
# leaves PostgreSQL out.
TEST_POSTGRES ?= auto
# "off" leaves the tests of the console in a browser out.
TEST_CHROMIUM ?= auto
# Empty leaves the race detector out.
TEST_RACE ?= yes
# What "make cluster" needs and is missing is installed, unless this is empty.
CLUSTER_INSTALL ?= yes
export TEST_POSTGRES TEST_CHROMIUM TEST_RACE CLUSTER_INSTALL

# How tests run under the race detector. It slows the embedded SQLite, which is
# no code of ours, some 40 times unless that is left as it is; what we do with
# its connections is watched all the same. -short tells tests to do with less
# data, and go vet has seen everything before.
RACE := -race -short -vet=off -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc/...=-race=false
# Packages that are too slow even so, or have nothing that could race (what
# cmd/simlatch runs is raced where it stands). New
# packages are raced until they are named here.
NO_RACE := ./internal/store/storetest/pgcluster ./cmd/simlatch

# Tools are run by version, each from its own go.mod.
tool = go tool -modfile=tools/$(1)/go.mod $(1)
GO_DIRS = $(wildcard cmd examples internal m2m tools *.go)

.DEFAULT_GOAL := help
.PHONY: help demo cluster test test-ha torture race check fuzz build sbom reproducible bench bench-go generate fmt go-version

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: go-version ## run the demonstration, with nothing to prepare (DEMO_ARGS=--exit ends it after the table)
	go run ./cmd/simlatch demo $(DEMO_ARGS)

cluster: build ## start etcd, Patroni with two PostgreSQL servers, HAProxy and three nodes, to kill parts of; installs what is missing (CLUSTER_ARGS=--check does it by itself)
	@tools/prepare.sh cluster
	go build -o bin/cluster ./tools/cluster
	@exec bin/cluster -simlatch bin/simlatch $(CLUSTER_ARGS)

test: go-version ## run all tests on SQLite and PostgreSQL, then under the race detector; installs what is missing
	@tools/prepare.sh
	go run ./tools/gate -race "$(RACE)" -norace "$(NO_RACE)"

test-ha: go-version ## kill and freeze PostgreSQL's primary under load; a part of "make test"
	@tools/prepare.sh
	go test -count=1 -v -run 'Failover|Standby|Frozen|CommitIs' \
		./internal/store/storetest/pgcluster ./internal/store ./internal/server

torture: TEST_POSTGRES := $(if $(filter auto,$(TEST_POSTGRES)),durable,$(TEST_POSTGRES))
torture: TEST_RACE :=
torture: go-version ## crash the server, simulate its days and mistreat it, for some twenty minutes (TORTURE_ARGS="-only regexp -seed N"; -h lists more)
	@tools/prepare.sh
	CGO_ENABLED=0 go build -trimpath -tags crash -o bin/simlatch-crash ./cmd/simlatch
	go build -o bin/torture ./tools/torture
	bin/torture -simlatch bin/simlatch-crash -postgres "$(TEST_POSTGRES)" -json bin/torture.json $(TORTURE_ARGS)

race: go-version ## run tests under the race detector (PKG=./internal/store selects)
	@tools/prepare.sh
	go test $(RACE) $(or $(PKG),./...)

check: go-version ## run the linters
	@unformatted=$$($(call tool,gofumpt) -l $(GO_DIRS)); test -z "$$unformatted" || \
		{ echo "not formatted, run \"make fmt\":"; echo "$$unformatted"; exit 1; }
	go vet ./...
	$(call tool,staticcheck) ./...
	$(call tool,golangci-lint) run
	go mod tidy -diff
	go mod verify
	go run ./tools/supply vulnerabilities

fuzz: go-version ## attack the whole HTTP surface, then fuzz each decoder (FUZZTIME=1h in all, FUZZ=regexp selects)
	TMPDIR=$$(test -w /dev/shm && echo /dev/shm || echo $${TMPDIR:-/tmp}) go run ./tools/fuzz -time $(or $(FUZZTIME),10m) -run "$(FUZZ)"

fmt: ## format the code
	$(call tool,gofumpt) -w $(GO_DIRS)

build: go-version ## build bin/simlatch, static and reproducible
	CGO_ENABLED=0 go build -trimpath -o bin/simlatch ./cmd/simlatch

sbom: build ## write bin/simlatch.cdx.json, which names what bin/simlatch is made of (CycloneDX)
	go run ./tools/supply sbom bin/simlatch

reproducible: go-version ## build twice, in two directories, compiling everything anew, and compare
	go run ./tools/supply reproduce -anew

bench bench-go: TEST_POSTGRES := $(if $(filter auto,$(TEST_POSTGRES)),durable,$(TEST_POSTGRES))
bench bench-go: TEST_RACE :=
bench bench-go: TEST_CHROMIUM := off
bench: build ## measure the whole server against references: bin/bench.json (BENCH_ARGS="-quick -only regexp"; -h lists more)
	@tools/prepare.sh
	go build -o bin/bench ./tools/bench
	bin/bench -simlatch bin/simlatch -postgres "$(TEST_POSTGRES)" -json bin/bench.json $(BENCH_ARGS)

bench-go: go-version ## run the benchmarks of hot pieces, for benchstat (BENCH=regexp selects, COUNT=10 repeats)
	@tools/prepare.sh
	go test -run '^$$' -bench '$(or $(BENCH),.)' -benchmem -count $(or $(COUNT),1) ./...

screenshots: go-version ## take the pictures of docs/console.md anew
	@tools/prepare.sh
	SCREENSHOTS=$(CURDIR)/docs/console go test -count=1 -run '^TestScreenshots$$' ./internal/console

generate: go-version ## write the generated files anew
	go generate ./...

go-version:
	@tools/go-version.sh
