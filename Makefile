# Everything a contributor runs. `make` alone lists it. PYTHON=python3.12 picks the interpreter for .venv.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
BUILD := build/dev
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
export EDGELLM_HOME ?= $(CURDIR)/.cache/models
# pip's own output is only of interest when something fails; CMake finds the environment's tools first.
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
# include/edgellm.h is left out: its columns are set by hand, to be read as a table.
C_FILES = $(shell find csrc cross examples tests/c tests/fuzz src -name '*.[ch]' -o -name '*.cpp' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help tools build models lint format test test-c test-python test-cross test-arm parity sanitize fuzz bench wheel \
  cross-all sdist clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# Debian packages only when their program is missing. The emulator is wanted for the tests without AVX, not needed.
tools:
	@missing=""; \
	command -v cc >/dev/null && command -v c++ >/dev/null || missing="$$missing build-essential"; \
	if [ "$$(uname -m)" = x86_64 ]; then \
	  command -v qemu-x86_64-static >/dev/null || command -v qemu-x86_64 >/dev/null || missing="$$missing qemu-user-static qemu-user"; fi; \
	"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; \
	  elif [ "$$missing" = " qemu-user-static qemu-user" ]; then \
	    echo "qemu-user is not installed: the tests on emulated CPUs are left out (apt-get install qemu-user-static)"; \
	  else echo "missing:$$missing. Run"; echo "  sudo apt-get install$$missing"; exit 1; fi; fi

# The packages that pyproject.toml asks for at build time, installed once, so that pip needs no second environment;
# CMake and Ninja from the index unless a new enough one is installed.
$(VENV)/.ready: pyproject.toml
	@$(MAKE) --no-print-directory tools
	test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet "scikit-build-core>=0.11" "cffi>=1.15" "pybind11>=2.12" "setuptools-scm>=8"
	@cmake -P cmake/require_version.cmake >/dev/null 2>&1 || $(PY) -m pip install --quiet cmake
	@command -v ninja >/dev/null || $(PY) -m pip install --quiet ninja
	@touch $@

# One build folder for the wheel and the C tests: ggml is compiled once.
build: $(VENV)/.ready ## install edgellm and what its tests need into .venv, build the C tests
	$(PY) -m pip install --quiet --no-build-isolation --config-settings=build-dir=$(BUILD) \
	  --config-settings=cmake.define.EDGELLM_DEVELOPER=ON ".[dev]"

models: build ## pull the two models of the end-to-end tests into .cache/models (350 MB, once)
	$(VENV)/bin/edgellm pull smollm2
	$(VENV)/bin/edgellm pull gemma3:270m

lint: $(VENV)/.ready ## ruff, mypy, clang-format
	@test -x $(VENV)/bin/ruff || $(MAKE) --no-print-directory build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(C_FILES)

format: ## let the tools format everything
	$(VENV)/bin/ruff check --fix --select I .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(C_FILES)

test-c: build ## C tests alone
	ctest --test-dir $(BUILD) --output-on-failure --parallel $(JOBS)

test-python: models ## Python tests alone; ARGS='-k name' passes options on
	$(PY) -m pytest -m "not cross" $(ARGS)

# -rs: what cannot be had here (compiler, emulator, Debian's packages) is said; with EDGELLM_REQUIRE_CROSS=1 it fails.
test-cross: build ## wheels for ARM and a flashed device's root, run under emulation (first time some minutes)
	$(PY) -m pytest -m cross -rs --durations=8 --durations-min=5 tests/cross

test: build lint test-c models test-python test-cross ## everything: build, lint, C tests, Python tests with real models

# Debian's cross compiler and emulator. QEMU itself runs each test on the oldest CPU that has its instruction set; the
# whole of test_kernels on one that has them all would say nothing new.
test-arm: build ## cross-build for 64-bit ARM, run C tests and models on emulated CPUs (first time some minutes)
	@missing=""; \
	command -v aarch64-linux-gnu-g++ >/dev/null || missing="$$missing g++-aarch64-linux-gnu libc6-dev-arm64-cross"; \
	command -v qemu-aarch64-static >/dev/null || command -v qemu-aarch64 >/dev/null || missing="$$missing qemu-user-static"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; \
	  else echo "missing:$$missing. Run"; echo "  sudo apt-get install$$missing"; exit 1; fi; fi
	cmake -S . -B build/arm64 -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DEDGELLM_DEVELOPER=ON \
	  -DEDGELLM_IN_SOURCE=OFF -DPython_EXECUTABLE=$(CURDIR)/$(PY)
	cmake --build build/arm64
	ctest --test-dir build/arm64 --output-on-failure --parallel $(JOBS) --exclude-regex '^test_kernels$$'
	$(PY) -m tools.arm_logits $(BUILD)/lib/print_logits build/arm64/lib/print_logits

# WRITE= leaves docs/models.md alone; ARGS='--dir DIR --only REGEX' looks at others.
WRITE ?= --write docs/models.md
parity: build ## every family's logits beside recorded ones; renews the tables in docs/models.md
	$(PY) -m tools.parity $(WRITE) $(ARGS)

sanitize: build ## the suite under the address, undefined-behaviour and thread sanitizers (KINDS=thread)
	JOBS=$(JOBS) PYTHON=$(PY) tools/sanitize.sh $(KINDS)

fuzz: $(VENV)/.ready ## each fuzz target for FUZZ_SECONDS=60 (needs clang)
	CC=clang CXX=clang++ cmake -S . -B build/fuzz -G Ninja -DEDGELLM_FUZZ=ON -DEDGELLM_SANITIZE=address,undefined \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE=$(CURDIR)/$(PY)
	cmake --build build/fuzz
	@for target in build/fuzz/lib/fuzz_*; do \
	  name=$${target##*/fuzz_}; mkdir -p build/fuzz/found_$$name tests/fuzz/corpus_$$name; \
	  echo "$$name"; $$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 \
	    -artifact_prefix=build/fuzz/found_$$name/ build/fuzz/found_$$name tests/fuzz/corpus_$$name || exit 1; done

# BENCH=all is every model at every type of the ruler, some hours; RECORD= leaves bench/RESULTS.md alone.
BENCH ?= smollm2 gemma3 1b:Q4_K_M
RECORD ?= --record
bench: models ## edgellm beside llama.cpp and ik_llama.cpp on a quiet machine (about an hour; BENCH="smollm2" for less)
	$(PY) -m bench.compare $(BENCH) $(RECORD)

wheel: $(VENV)/.ready ## dist/*.whl for this Python (EDGELLM_LEAN=1: every Python); TARGET=rpi-aarch64: that machine's
	@if [ -n "$(TARGET)" ]; then $(PY) cross/build.py $(TARGET) --prove --out dist; \
	else $(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .; fi

cross-all: $(VENV)/.ready ## wheels of every target, proven as far as possible here; renews docs/platforms.md
	$(PY) cross/build.py all --out dist

sdist: $(VENV)/.ready ## dist/*.tar.gz with ggml's sources inside, for machines without a package index
	cmake -DPython_EXECUTABLE=$(CURDIR)/$(PY) -P cmake/vendor_ggml.cmake
	$(PY) -m pip install --quiet "build>=1"
	$(PY) -m build --sdist --no-isolation --outdir dist .

clean: ## everything that can be made again, but the models
	rm -rf build dist .venv third_party src/edgellm/lib src/edgellm/_edgellm_*.py src/edgellm/tensors/*.so \
	  .mypy_cache .ruff_cache .pytest_cache
