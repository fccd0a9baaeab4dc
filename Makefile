# Everything starts from what the system has; what is missing is installed with apt first.

# For `make run`, for example: make run ARGS="--http 127.0.0.1:9090"
ARGS ?=

# How long `make soak` lets things fail.
SOAK_MINUTES ?= 30

# Rust may have been installed without the shell knowing yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help install run test soak lint bench bench-quick bench-large bench-peers clients check-deploy fuzz fuzz-quick

help: ## Say what there is to make
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

install: ## Install PostgreSQL, nats-server and a linker where they are missing
	@scripts/install-servers.sh

run: install ## Build and run the whole service, with servers of its own
	cargo build --release
	target/release/rollcall up $(ARGS)

test: install ## Run every test, against real servers
	cargo test --workspace

soak: export SOAK_MINUTES := $(SOAK_MINUTES)
soak: install ## Let everything fail at random for long (SOAK_MINUTES=30), and see that broken guards are noticed
	cargo test --workspace --test log -- --nocapture any_interleaving
	cargo test --workspace --test soak -- --nocapture
	scripts/broken-guards.sh

lint: ## Check format and lints
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings

# Where each benchmark leaves its figures, and what puts them together.
BENCHED := target/bench
ASSEMBLE = cargo bench --bench speed -- assemble $(BENCHED)

bench: install ## Measure everything beside its baselines, into benches/RESULTS.md (about an hour)
	BENCH_OUT=$(BENCHED)/speed cargo bench --bench speed
	BENCH_OUT=$(BENCHED)/operating cargo bench --bench operating
	BENCH_OUT=$(BENCHED)/log BENCH_ROUNDS=3 cargo bench --bench log
	$(ASSEMBLE)

bench-quick: install ## Measure speed alone, with 10,000 users and short, in under three minutes
	BENCH_OUT=$(BENCHED)/quick BENCH_USERS=10000 BENCH_SECONDS=1 BENCH_ROUNDS=3 cargo bench --bench speed

bench-large: install ## Measure how cost grows to 10 million users, into benches/RESULTS.md (half an hour, 30 GB)
	BENCH_OUT=$(BENCHED)/large BENCH_USERS=10000,10000000 cargo bench --bench speed -- reads create update
	$(ASSEMBLE)

bench-peers: install ## Measure speed beside Directus and the Python library eventsourcing
	cargo build --release
	scripts/bench-peers.sh

clients: install ## Run every example of docs/clients.md
	cargo build
	scripts/clients.sh

check-deploy: ## Check what deploy/ holds, as far as that goes without an engine
	scripts/check-deploy.sh

fuzz: install ## Hold the service against its description and the parsers against anything, for long
	@scripts/install-tools.sh python3 venv
	scripts/fuzz.sh

fuzz-quick: install ## The same for a minute or two, always alike
	@scripts/install-tools.sh python3 venv
	scripts/fuzz.sh quick
