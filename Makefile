# make demo   the main job, shown on throwaway PostgreSQL servers
# make test   vet, staticcheck, every test of every module with the race detector, and fuzz
# make quick  the tests that need no PostgreSQL, but for the slowest one: some seconds
# make bench  what it costs beside bare drivers, wrappers and pools, into bench/RESULTS.md; takes some 20 minutes, FLAGS=-quick three
# make check  known vulnerabilities, which are asked of vuln.go.dev
# make race   what it does beside them when a server dies, into bench/RACE.md; takes an hour, FLAGS=-quick some minutes
# make overload  what it gets done beside them under more load than there is capacity for, into bench/OVERLOAD.md; takes a quarter of an hour
# make fuzz   the DSN parser and the reader of statements, for 30 seconds each
# make failover  what losing a server costs the application, 20 times in each way; takes an hour, FLAGS=-quick minutes
# make harm   every fault against the bare drivers and against us, of which we must never be the worse one; takes some minutes
# make suites pgx's, lib/pq's and database/sql's own tests against the bare drivers and against us; takes five to ten minutes
# make sim    10,000 random loads of the pool, and of the whole driver over a simulated server, in fake time
# make ledger every promise about lost and doubled writes, under fire, for 10 minutes
# make night  all of these but the measurements, again and again, three at a time, for two hours, and a page of what fell out; FLAGS='-for 8h'

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.7.0
MODULES := $(sort $(dir $(wildcard go.mod */go.mod */*/go.mod)))

.PHONY: quick harm overload suites sim night demo test check bench race fuzz failover ledger

# What fails isn't hidden by the tee after it.
SHELL := bash
.SHELLFLAGS := -o pipefail -c

demo:
	@.ci/prepare
	@echo "== A pool: examples/quickstart"
	@go run ./examples/quickstart
	@printf '\n== Leaked connections: examples/leak\n'
	@go run ./examples/leak
	@printf '\n== A failover: examples/failover\n'
	@go run ./examples/failover
	@printf '\n== A switchover without an error: examples/switchover\n'
	@go run ./examples/switchover
	@printf '\n== Reads on standbys: examples/reads\n'
	@go run ./examples/reads
	@printf '\nA page to watch all that on, with metrics beside it: go run ./examples/dashboard\n'
	@printf 'Six symptoms that one is called for, and what tells the cause: go run ./examples/trouble\n'

test:
	@.ci/prepare chromium pgbouncer haproxy patroni etcd-server postgresql-18
	@set -e; for module in $(MODULES); do \
		echo "== $$module"; \
		(cd $$module && go vet ./... && $(STATICCHECK) ./... && go test -race -timeout 20m ./...); \
	done
	@go test ./internal/single ./internal/conn ./leak ./stats # internal/single is another one for the race detector
	@$(MAKE) --no-print-directory fuzz

quick:
	@go test -skip TestMillionStacks $$(go list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... | \
		grep ' [a-z]' | grep -v '/internal/pgtest\|/internal/sim ' | cut -d' ' -f1)
	@go test -run 'Imports|Grown|Links|Readme|EveryMessage|Contributing|PageShows' .

bench:
	@.ci/prepare
	@cd bench && go run . $(FLAGS) | tee RESULTS.md
	@cd bench && go run . -quote

race:
	@.ci/prepare
	@cd bench && go run ./race $(FLAGS) | tee RACE.md

overload:
	@.ci/prepare
	@cd bench && go run ./overload $(FLAGS) | tee OVERLOAD.md

failover:
	@.ci/prepare
	@cd integration && go run ./failover $(FLAGS)

fuzz:
	@go test -run - -fuzz FuzzParseDSN -fuzztime 30s -fuzzminimizetime 1s .
	@go test -run - -fuzz FuzzText -fuzztime 30s -fuzzminimizetime 1s ./internal/sqltext

check:
	@go run golang.org/x/vuln/cmd/govulncheck@latest ./...

harm:
	@.ci/prepare
	@cd integration && go run ./harm $(FLAGS)

suites:
	@.ci/prepare
	@cd integration && go run ./suites $(FLAGS)

sim:
	@go test -timeout 60m -run TestSimulation ./internal/pool -seeds 10000 $(FLAGS)
	@go test -count=1 -timeout 60m -run TestSeeds ./internal/sim -seeds 10000 $(FLAGS)

night:
	@.ci/prepare chromium pgbouncer haproxy patroni etcd-server postgresql-18
	@cd integration && go run ./night $(FLAGS)

ledger:
	@.ci/prepare
	@cd integration && go run ./ledger
