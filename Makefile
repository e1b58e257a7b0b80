# Everything happens in .venv, target, build, dist and site below this directory;
# nothing outside it is changed. `make help` lists what there is.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# rustup puts cargo here; a shell opened before its installation does not know.
export PATH := $(PATH):$(HOME)/.cargo/bin
# An environment the user happens to be in must not be the one that is filled.
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH
export UV_PYTHON_DOWNLOADS := never

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
VPY := $(BIN)/python
DONE := .venv/.done

# Candidates are run, not only looked up: a pyenv shim exists for versions that
# are not active, and Debian splits ensurepip off.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.10 python3 python; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' \
		>/dev/null 2>&1 && { echo "$$p"; break; }; done)

# The other machines that wheels are for: what compiles here may not compile there.
TARGETS := aarch64-unknown-linux-gnu aarch64-unknown-linux-musl x86_64-unknown-linux-musl \
	x86_64-pc-windows-msvc aarch64-apple-darwin

RUST := $(shell find rust -name '*.rs')
PACKAGE := $(shell find python/peakhold -type f ! -name '*.so' ! -name '*.pyd' ! -name '*.pyc')

# uv takes a tenth of pip's time but does not read pip's configuration (a mirror,
# a proxy); where it cannot install, pip does. Groups need pip >= 25.1.
define pip_install
$(VPY) -m uv pip install --quiet $(1) \
	|| { $(VPY) -m pip install --quiet --upgrade pip && $(VPY) -m pip install --quiet $(1); }
endef

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(DONE)/package $(DONE)/extension ## Stream a recording through both sinks into a local monitor (ARGS=--keep leaves it running)
	@$(BIN)/peakhold demo $(ARGS) || { [ $$? -eq 130 ] && echo stopped; }

.PHONY: test
test: test-rust $(DONE)/test $(DONE)/extension ## Run the tests: the Rust core, then Python in two processes, some eight minutes (ARGS goes to pytest)
	$(VPY) -m pytest -n 2 $(ARGS)

.PHONY: test-rust
test-rust: $(DONE)/cargo ## Run the tests of the Rust core alone, no Python involved
	cargo test --locked --quiet

.PHONY: test-loom
test-loom: $(DONE)/cargo ## Model-check the lock-free parts, and see that the models catch their mutants (some minutes)
	$(VPY) scripts/test_loom.py $(ARGS)

.PHONY: test-stress
test-stress: $(DONE)/cargo ## Conserve totals over a hundred million observations by racing threads (OBSERVATIONS=...)
	PEAKHOLD_STRESS_OBSERVATIONS=$(or $(OBSERVATIONS),100000000) cargo test --locked --quiet --test stress -- --nocapture

.PHONY: test-miri
test-miri: $(DONE)/cargo ## Check provenance where windows are freed, with Miri (installs a nightly toolchain; some minutes)
	rustup toolchain install nightly --profile minimal --component miri,rust-src
	MIRIFLAGS="-Zmiri-permissive-provenance -Zmiri-address-reuse-rate=1 -Zmiri-address-reuse-cross-thread-rate=1 -Zmiri-many-seeds=0..16" \
		cargo +nightly miri test --locked --target-dir target/miri --lib rotation

.PHONY: test-valgrind
test-valgrind: $(DONE)/cargo ## Check the memory of a small stress run with valgrind
	$(VPY) scripts/test_valgrind.py $(ARGS)

.PHONY: fuzz
fuzz: $(DONE)/cargo ## Fuzz the column readers, half a minute each (FUZZ_SECONDS=600 for longer; Linux)
	$(VPY) scripts/fuzz.py --seconds $(or $(FUZZ_SECONDS),30) $(ARGS)

.PHONY: test-matrix
test-matrix: $(DONE)/wheel ## Test the wheel under each supported Python, NumPy and supervision
	$(VPY) scripts/test_matrix.py dist

.PHONY: test-hosts
test-hosts: $(DONE)/wheel ## Test the wheel inside three real workflow hosts, the newest in full (16 GB of disk; ARGS=--full, all of them)
	$(VPY) scripts/test_hosts.py dist $(ARGS)

.PHONY: test-faults
test-faults: $(DONE)/faults $(DONE)/extension ## Test every promise of delivery: kills, outages, full disks (some ten minutes)
	$(VPY) -m pytest -c tests/faults/pytest.ini tests/faults $(ARGS)

.PHONY: test-endings
test-endings: $(DONE)/wheel ## Test how processes really end: gevent, eventlet, gunicorn, RQ, billiard, exit handlers (some three minutes)
	$(VPY) scripts/test_endings.py dist $(ARGS)

.PHONY: test-long
test-long: $(DONE)/faults $(DONE)/wheel $(DONE)/extension ## Run what is long in its full form, which .ci/run shortens: every host in full, ten minutes for each fuzz target (two hours)
	PEAKHOLD_TEST_LONG=1 $(MAKE) test-hosts ARGS=--full
	$(MAKE) test-faults test-endings test-loom
	PEAKHOLD_PACE_SECONDS=300 $(VPY) -m pytest -c tests/faults/pytest.ini tests/faults/test_r23_pace.py
	$(MAKE) test-stress OBSERVATIONS=1000000000
	$(MAKE) fuzz FUZZ_SECONDS=600
	PEAKHOLD_TEST_EXAMPLES=10000 $(VPY) -m pytest tests/python/core/test_against_model.py tests/python/outbox/test_sharing_machine.py
	PEAKHOLD_TEST_KILLS=200 $(VPY) -m pytest -c tests/faults/pytest.ini tests/faults/test_r04_shared_windows.py tests/faults/test_r04_shared_over_redis.py

.PHONY: install
install: $(DONE)/package $(DONE)/extension ## Put the package and its monitor into .venv

.PHONY: dev
dev: install $(DONE)/test $(DONE)/lint $(DONE)/docs ## Put everything needed to work on the package into .venv

.PHONY: build
build: $(DONE)/extension ## Compile the extension into python/peakhold

.PHONY: wheel
wheel: $(DONE)/wheel ## Build the wheel and the sdist into dist, and try both in clean environments

.PHONY: lint
lint: $(DONE)/lint $(DONE)/targets ## Check style (ruff, rustfmt, clippy), and that other machines can compile the extension
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path benches/rust/Cargo.toml
	cargo clippy --locked --quiet --all-targets -- -D warnings
	cargo clippy --locked --quiet --all-targets --manifest-path benches/rust/Cargo.toml --target-dir target/benches -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(VPY) cargo clippy --locked --quiet --all-targets --features python,abi3 -- -D warnings
	cargo clippy --locked --quiet --manifest-path fuzz/Cargo.toml --no-default-features --target-dir target/fuzz -- -D warnings
	RUSTFLAGS="-D warnings -C target-feature=-crt-static" cargo check --locked --quiet --lib --features python,abi3 $(addprefix --target ,$(TARGETS)) # an extension for musl is linked to it dynamically

.PHONY: format
format: $(DONE)/lint ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path benches/rust/Cargo.toml

.PHONY: typecheck
typecheck: $(DONE)/lint $(DONE)/package $(DONE)/extension ## Check types, and the stub against the compiled module
	$(BIN)/mypy
	$(VPY) -m mypy.stubtest --mypy-config-file pyproject.toml peakhold._peakhold

.PHONY: bench
bench: $(DONE)/wheel ## Time the wheel beside the reference blocks and judge the targets (ARGS=--quick shows that it works)
	$(VPY) scripts/bench.py dist $(ARGS)

.PHONY: bench-rust
bench-rust: $(DONE)/cargo ## Time the core without Python, threads included
	$(VPY) scripts/bench_rust.py $(ARGS)

.PHONY: bench-check
bench-check: $(DONE)/cargo ## Count the instructions of the hot paths; fails if one grew by more than 5 % (needs valgrind)
	$(VPY) scripts/bench_check.py $(ARGS)

.PHONY: benchmarks
benchmarks: $(DONE)/wheel ## Measure everything and write BENCHMARKS.md anew (12 minutes on an idle machine)
	$(VPY) scripts/bench.py dist --results benches/results --plot docs/benchmarks.svg $(ARGS)
	$(VPY) scripts/bench_rust.py --results benches/results $(ARGS)
	$(VPY) scripts/write_benchmarks.py

.PHONY: docs
docs: $(DONE)/docs $(DONE)/package $(DONE)/extension ## Build the documentation into site, warnings being errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: clean
clean: ## Remove everything that was built, .venv included
	rm -rf .venv target build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/peakhold/_peakhold*.so python/peakhold/_peakhold*.pyd
	find python tests scripts benches examples -name __pycache__ -type d -prune -exec rm -rf {} +

# What follows is done once, and again when what it depends on has changed.

$(DONE)/cargo: | $(DONE)/venv
	@cargo --version >/dev/null 2>&1 \
		|| { echo "peakhold: no Rust toolchain found; install one from https://rustup.rs" >&2; exit 1; }
	@touch $@

$(DONE)/targets: Makefile | $(DONE)/cargo
	@rustup target add $(TARGETS)
	@touch $@

$(DONE)/venv:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
		|| { echo "peakhold: no Python >= 3.10 with venv found; install one (Debian: python3 python3-venv) or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@$(VPY) -m pip install --quiet uv || echo "peakhold: uv is not to be had here; pip takes its place" >&2
	@mkdir -p $(DONE) && touch $@

$(DONE)/build-tools: pyproject.toml | $(DONE)/venv
	@$(call pip_install,--group build)
	@touch $@

$(DONE)/extension: $(RUST) Cargo.toml Cargo.lock | $(DONE)/cargo $(DONE)/build-tools
	$(BIN)/maturin develop --release --locked --skip-install
	@touch $@

$(DONE)/package: Cargo.toml pyproject.toml | $(DONE)/extension
	@$(call pip_install,--no-build-isolation --editable '.[monitor]')
	@touch $@

$(DONE)/test $(DONE)/faults $(DONE)/lint $(DONE)/docs: pyproject.toml | $(DONE)/package
	@$(call pip_install,--group $(@F))
	@touch $@

$(DONE)/wheel: $(RUST) $(PACKAGE) Cargo.toml Cargo.lock pyproject.toml README.md LICENSE scripts/build_wheel.py | $(DONE)/cargo $(DONE)/build-tools
	@$(call pip_install,--group wheel)
	$(VPY) scripts/build_wheel.py dist
	@touch $@
