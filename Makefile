# `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NUMPY2 := .venv-numpy2
AUDIT  := .venv-audit
CORE   := .venv-core
PEERS  := .venv-peers
PIP_INSTALL := install --quiet --disable-pip-version-check
# Words for pip. A build for the CPU alone saves 5 GB: TORCH='torch==2.15.0+cpu --extra-index-url=ADDRESS'
TORCH ?= torch
# The fuzz targets are a crate of their own, which shares the dependencies that were built for this one.
FUZZ    := --manifest-path fuzz/Cargo.toml --target-dir target
FUZZ_TARGETS := $(sort $(filter-out run,$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs fuzz/python/*.py)))))
SECONDS ?= 60
# New inputs are kept apart from the corpus. libFuzzer takes files, or folders that it extends.
FUZZING = -max_total_time=$(SECONDS) -artifact_prefix=fuzz/artifacts/$(TARGET)/ $(or $(INPUT),fuzz/found/$(TARGET) fuzz/corpus/$(TARGET))
# The tests start hundreds of Pythons; to compile the package each time would take a third of their time.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := $(shell find rust -name '*.rs') Cargo.toml Cargo.lock

.DEFAULT_GOAL := help
.PHONY: help build demo picture docs docs-test docs-links wheel sdist try-wheel test test-heavy test-numpy2 test-core test-avxvnni \
        test-aarch64 test-slow faults fuzz fuzz-smoke mutants mutants-rust mutants-python advisories test-peers lint lint-systems \
        format bench bench-audit bench-bags bench-feed bench-loader bench-peers bench-training bench-prefix \
        bench-long bench-whole bench-ray bench-kernels bench-all bench-tables clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: $(VENV)/.built ## .venv with the release extension, MXNet, ONNX Runtime, the developers' tools, and `fasttriplet`

$(VENV)/.tools: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) --version)." \
		     "Run: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || \
		echo "make: without MXNet, whose NumPy 1 has no wheels for $$($(PYTHON) --version)" >&2
	@command -v cargo >/dev/null || { echo "make: no Rust toolchain found; install one from rustup.rs" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(PIP_INSTALL) -c constraints.txt maturin
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	PIP_CONSTRAINT=constraints.txt VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --locked --extras mxnet,onnx,dev
	@touch $@

# What only tests, linters and benches need. Apart from `build`, so that the demo does not wait for gigabytes.
$(VENV)/.torch: constraints.txt | $(VENV)/.built
	$(BIN)/pip $(PIP_INSTALL) -c constraints.txt $(TORCH) torchvision torchdata lightning pytorch-metric-learning ray
	@touch $@

$(VENV)/.docs: constraints.txt | $(VENV)/.torch
	$(BIN)/pip $(PIP_INSTALL) -c constraints.txt sphinx furo myst-parser numpydoc sphinx-click
	@touch $@

# The files of .venv under second names (hard links: no time, no space), with NumPy 2 and without MXNet. The extension
# fits as it is: it is abi3, and knows no NumPy.
$(NUMPY2)/.built: pyproject.toml constraints.txt $(VENV)/.torch
	rm -rf $(NUMPY2)
	$(PYTHON) -m venv --without-pip $(NUMPY2)
	cp --archive --link $(VENV)/lib/. $(NUMPY2)/lib
	$(NUMPY2)/bin/python -m pip uninstall --quiet --yes mxnet
	$(NUMPY2)/bin/python -m pip $(PIP_INSTALL) numpy==2.4.6
	@touch $@

demo: build ## draw a small dataset, train a network on it, mine it, show what was mined
	$(BIN)/fasttriplet demo --overwrite

picture: demo ## the pictures of docs/gallery.md, from what the demo wrote (needs Chromium)
	$(BIN)/python docs/triplets.py
	$(BIN)/python docs/report.py
	$(BIN)/python docs/audit.py

SITE := build/site
docs: build $(VENV)/.docs ## the documentation as a site, for a browser; a warning of Sphinx is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --write-all --jobs 2 -c docs . $(SITE)
	@echo "Open $(CURDIR)/$(SITE)/index.html"

docs-test: docs ## the site in Chromium: on a phone, in the dark, its search without the internet
	$(BIN)/python -m pytest --quiet -m slow tests/test_site.py

docs-links: build $(VENV)/.docs ## whether the links of the pages to other sites lead somewhere (asks the internet)
	$(BIN)/sphinx-build --quiet --builder linkcheck -c docs . build/links

# Zig links against an old glibc, so that the wheel does not need that of this machine; auditwheel looks whether it does.
# uv finds the oldest packages that pyproject.toml allows, for the tests of the wheel.
$(VENV)/.packaging: constraints.txt | $(VENV)/.built
	$(BIN)/pip $(PIP_INSTALL) -c constraints.txt ziglang auditwheel uv
	@touch $@

wheel: $(VENV)/.packaging ## dist/fasttriplet-*.whl, for any Python from 3.11 on, NumPy 1 or 2, and Linux with glibc 2.17 or later
	rm -f dist/fasttriplet-*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --release --locked --zig --compatibility manylinux2014 \
		--interpreter $(BIN)/python --out dist
	$(BIN)/auditwheel show dist/fasttriplet-*.whl

sdist: $(VENV)/.built ## dist/fasttriplet-*.tar.gz, to build from with a Rust toolchain
	rm -f dist/fasttriplet-*.tar.gz
	$(BIN)/maturin sdist --out dist

try-wheel: wheel sdist ## the wheel in clean environments, for each Python, the oldest and newest packages, each extra (fetches packages)
	$(BIN)/python -m pytest -m slow tests/test_wheel.py tests/test_sdist.py

test: build $(VENV)/.torch ## cargo test and pytest; installs PyTorch (5 GB; TORCH=... names a build for the CPU) and Ray
	cargo test --locked --quiet
	cargo test --locked --quiet $(FUZZ)
	$(BIN)/python -m pytest --quiet --numprocesses 3 --dist worksteal -m 'not slow and not heavy'

test-heavy: build $(VENV)/.torch ## the tests that take many seconds: clusters, trainings in several processes, faults at each call
	$(BIN)/python -m pytest --quiet --numprocesses 3 --dist worksteal -m 'heavy and not slow'

# Not with NumPy 2: what is about files, their limits and their damage, kernels, and processes that train together.
NO_NUMPY := $(addprefix dataset/,test_index_file.py test_index_foreign.py test_index_stale.py) \
	$(addprefix dataset/,test_limits.py test_pack_interrupted.py test_unreliable_files.py) \
	$(addprefix mining/,test_adversarial.py test_memory.py test_metrics.py test_picks.py test_references.py) \
	$(addprefix torch/,test_training_processes.py test_group.py)

test-numpy2: build $(NUMPY2)/.built ## with NumPy 2 and without MXNet, the tests of what reads, mines and embeds
	$(NUMPY2)/bin/python -m pytest --quiet --numprocesses 3 --dist worksteal -m 'not slow and not mxnet' \
		$(addprefix --ignore=tests/,$(NO_NUMPY)) $(addprefix tests/,checkpoint dataset mining embedders torch onnx)

# For systems that MXNet has no package for. The command line's tests of pages and of other rooms need a framework.
$(CORE)/.built: pyproject.toml constraints.txt $(SOURCES)
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/pip $(PIP_INSTALL) -c constraints.txt maturin
	PIP_CONSTRAINT=constraints.txt VIRTUAL_ENV=$(CURDIR)/$(CORE) $(CORE)/bin/maturin develop --release --locked --extras dev
	@touch $@

test-core: $(CORE)/.built ## cargo test, and in an environment without frameworks the tests of what reads, mines and writes
	cargo test --locked --quiet
	$(CORE)/bin/python -m pytest --quiet --numprocesses 3 --dist worksteal \
		-m 'not slow and not mxnet and not torch and not onnx and not ray' tests/test_files.py tests/test_systems.py \
		$(addprefix tests/,checkpoint dataset mining embedders run verify auditing cli)

AVXVNNI := target/avxvnni
test-avxvnni: ## the kernels for AVX-VNNI on a CPU without it, whose instructions a handler emulates (3 minutes)
	mkdir -p $(AVXVNNI)
	cc -O2 -Wall -Wextra -Werror -shared -fPIC -o $(AVXVNNI)/emulated.so tests/mining/avxvnni.c
	PROPTEST_CASES=16 RUSTFLAGS='-C target-feature=+avxvnni' \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='env LD_PRELOAD=$(CURDIR)/$(AVXVNNI)/emulated.so' \
		cargo test --locked --quiet --lib --target x86_64-unknown-linux-gnu --target-dir $(AVXVNNI) -- mining simd

AARCH64 := CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU
test-aarch64: ## cargo test on aarch64, emulated by QEMU (9 minutes; needs its compiler, QEMU and `rustup target add`)
	PROPTEST_CASES=16 $(AARCH64)_LINKER=aarch64-linux-gnu-gcc \
		$(AARCH64)_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu' \
		cargo test --locked --quiet --target aarch64-unknown-linux-gnu

test-slow: wheel sdist ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

faults: build ## every fault at every system call of each command that writes files (an hour)
	$(BIN)/python -m pytest -m slow --numprocesses 3 --dist worksteal tests/faults tests/training/test_crashes.py

lint: build ## formatting, clippy, ruff, mypy (also as on macOS), the stub against the extension, and the workflows
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets --all-features --quiet -- -D warnings
	cargo clippy --locked --all-targets --all-features --quiet $(FUZZ) -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin python/fasttriplet
	$(BIN)/stubtest fasttriplet._core
	$(BIN)/zizmor --quiet --offline --no-progress --strict-collection .github/workflows

# Without a linker, and so without what is compiled from C for tests and benches.
lint-systems: ## clippy for Linux on aarch64 and macOS on arm64 (first: rustup target add aarch64-unknown-linux-gnu aarch64-apple-darwin)
	for target in aarch64-unknown-linux-gnu aarch64-apple-darwin; do \
		PYO3_CROSS_PYTHON_VERSION=3.11 cargo clippy --locked --lib --features python,kernels --quiet \
			--target $$target -- -D warnings || exit 1; done

format: build ## format everything in place
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: ## fuzz one target (TARGET=mining SECONDS=60; INPUT=file tries that alone); Rust targets need cargo-fuzz
	@printf '%s\n' $(FUZZ_TARGETS) | grep -qxF -e '$(TARGET)' || { \
		echo "make: '$(TARGET)' is not a fuzz target; run: make fuzz TARGET=NAME, with one of $(FUZZ_TARGETS)" >&2; exit 1; }
	mkdir -p fuzz/found/$(TARGET) fuzz/artifacts/$(TARGET)
ifneq ($(wildcard fuzz/python/$(TARGET).py),)
	@$(MAKE) --no-print-directory $(VENV)/.atheris
	$(BIN)/python fuzz/python/run.py $(TARGET) $(FUZZING)
else
	@command -v cargo-fuzz >/dev/null || { echo "make: cargo-fuzz is missing; run: cargo install cargo-fuzz" >&2; exit 1; }
	RUSTC_BOOTSTRAP=1 cargo fuzz run --features libfuzzer $(TARGET) -- $(FUZZING)
endif

$(VENV)/.atheris: build
	$(BIN)/pip $(PIP_INSTALL) -r fuzz/requirements.txt
	@touch $@

fuzz-smoke: build ## mutations of the corpora on stable Rust and plain Python, SECONDS=60 for each target
	FUZZ_SECONDS=$(SECONDS) cargo test --locked $(FUZZ) -- --nocapture --test-threads 2
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest --quiet -s tests/test_fuzz.py

mutants: $(if $(filter python/%,$(FILE)),,mutants-rust) $(if $(filter rust/%,$(FILE)),,mutants-python) ## changes of the code that no test notices: of what differs from BASE=main, or of FILE=..., or ALL=1

# The difference is that of the working tree to the commit at which it left BASE.
BASE ?= main
MUTANTS := target/mutants
mutants-rust: ## the same of rust/ alone, by the tests beside the code (ALL=1 takes a night); needs cargo-mutants
	@command -v cargo-mutants >/dev/null || { \
		echo "make: cargo-mutants is missing; run: cargo install cargo-mutants --locked" >&2; exit 1; }
	mkdir -p $(MUTANTS)
ifneq ($(FILE),)
	cargo mutants --output $(MUTANTS) --file '$(FILE)'
else ifneq ($(ALL),)
	cargo mutants --output $(MUTANTS)
else
	git diff --merge-base $(BASE) -- rust >$(MUTANTS)/rust.diff
	cargo mutants --output $(MUTANTS) --in-diff $(MUTANTS)/rust.diff
endif

mutants-python: build ## the same of python/, by the tests of the room (SAMPLE=15 takes so many, SEED=2 others; TESTS=...)
	$(BIN)/python tests/mutants.py $(if $(FILE),--file '$(FILE)',$(if $(ALL),--all,--base '$(BASE)')) \
		$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(if $(TESTS),--tests $(TESTS))

advisories: ## known advisories about the locked crates and the pinned Python packages (asks the internet)
	@command -v cargo-audit >/dev/null || { echo "make: cargo-audit is missing; run: cargo install cargo-audit --locked" >&2; exit 1; }
	@$(MAKE) --no-print-directory $(AUDIT)/.built
	cargo audit
	cargo audit --file fuzz/Cargo.lock
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

$(AUDIT)/.built:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip $(PIP_INSTALL) pip-audit==2.10.1
	@touch $@

# Of sentence-transformers, pyarrow and pandas need NumPy 2. Of open-metric-learning, only the miners are imported.
$(PEERS)/.built: $(NUMPY2)/.built
	rm -rf $(PEERS)
	$(PYTHON) -m venv --without-pip $(PEERS)
	cp --archive --link $(NUMPY2)/lib/. $(PEERS)/lib
	$(PEERS)/bin/python -m pip $(PIP_INSTALL) numpy==2.4.6 sentence-transformers==6.2.0 datasets==5.2.0
	$(PEERS)/bin/python -m pip $(PIP_INSTALL) --no-deps open-metric-learning==4.0.0 omegaconf==2.4.0 \
		antlr4-python3-runtime==4.9.3 validators==0.36.0 gdown==6.5.1 beautifulsoup4==4.15.0 soupsieve==4.1.3 pytz
	@touch $@

test-peers: build $(PEERS)/.built ## mining beside the miners of four other libraries, which this installs (0.4 GB)
	$(PEERS)/bin/python -m pytest --quiet tests/mining/peers

bench: build ## the short set of benches, with peers in the same run (BENCH=--save keeps the results)
	for name in demo mine neighbors index feed pipeline cold networks; do $(BIN)/python benches/bench_$$name.py $(BENCH) || exit 1; done

bench-feed: build ## loading beside DALI, which this installs into .venv (a gigabyte)
	$(BIN)/pip $(PIP_INSTALL) nvidia-dali-cuda130==2.4.0
	$(BIN)/python benches/bench_feed.py $(BENCH)

bench-peers: build $(VENV)/.torch ## mining beside pytorch-metric-learning and faiss, which this installs into .venv
	$(BIN)/pip $(PIP_INSTALL) faiss-cpu==1.15.1
	$(BIN)/python benches/bench_peers.py $(BENCH)

bench-loader: build $(VENV)/.torch ## a DataLoader of PyTorch beside InsightFace's dataset (INSIGHTFACE=checkout)
	$(BIN)/python benches/bench_loader.py $(BENCH)

bench-training: build ## what a network learns beside the original (15 min; INSIGHTFACE=checkout)
	$(BIN)/python benches/bench_training.py $(BENCH)

bench-bags: build $(VENV)/.torch ## what a network learns in equal time from bags of similar identities (3 hours)
	$(BIN)/python benches/bench_bags.py $(BENCH)

bench-audit: build $(VENV)/.torch ## what an audit finds of known noise, beside cleanlab, which this installs into .venv
	$(BIN)/pip $(PIP_INSTALL) -c constraints.txt cleanlab==2.9.0
	$(BIN)/python benches/bench_audit.py $(BENCH)

bench-prefix: build ## what a first look at some of the columns would rule out (BENCH=options)
	$(BIN)/python benches/bench_prefix.py $(BENCH)

bench-long: build ## how mining scales (a few minutes, 2 GB)
	$(BIN)/python benches/bench_scaling.py $(BENCH)

bench-whole: build ## a whole dataset at once, up to a million images (20 minutes, 4 GB of disk)
	$(BIN)/python benches/bench_whole.py $(BENCH)

bench-ray: build $(VENV)/.torch ## what Ray costs on one machine (10 minutes)
	$(BIN)/python benches/bench_ray.py $(BENCH)

bench-kernels: build ## the inner kernels, one by one
	$(BIN)/python benches/bench_kernels.py $(BENCH)

# `bench` comes before those that measure one of its benches beside more peers.
bench-all: BENCH := --save
bench-all: build ## every bench but bench_gpu, kept; the page and the chart (6 hours; alone on the machine)
	status=0; $(MAKE) --keep-going BENCH=$(BENCH) bench bench-feed bench-peers bench-loader bench-training bench-audit \
		bench-long bench-kernels bench-prefix bench-whole bench-ray bench-bags || status=$$?; \
		$(MAKE) bench-tables && exit $$status

bench-tables: build ## benches/README.md and docs/numbers.svg, from what --save kept
	$(BIN)/python benches/tables.py
	$(BIN)/python benches/chart.py

clean: ## remove everything that was built
	rm -rf target fuzz/target $(VENV) $(NUMPY2) $(AUDIT) $(CORE) python/fasttriplet/_core*.so demo dist build
