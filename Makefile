# What one does with this tree, one word each. `make help` prints the list.
# Variables: JOBS, COMBA_CUDA=ON|OFF, TEXT (demo, diagnostics), SEED THREADS (demo), PREFIX (install), COMBA_FIXTURES (test-fixtures),
# ABLATION_TEXT (ablate), FUZZ_SECONDS (fuzz), TOOLS (gpu-sanitize).

SHELL := bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
ABLATION_TEXT ?= $(shell python3 -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')
FUZZ_SECONDS ?= 60
TOOLS ?= memcheck racecheck initcheck synccheck
build := build/release
cmake_flags := $(if $(COMBA_CUDA),-DCOMBA_CUDA=$(COMBA_CUDA))
cmake := .venv/bin/cmake
python := .venv/bin/python
pytest := $(python) -m pytest -n $(JOBS) --dist loadfile
ctest := .venv/bin/ctest --output-on-failure --no-tests=error --test-dir
sources := git ls-files -- '*.h' '*.cpp' '*.cuh' '*.cu'

.DEFAULT_GOAL := build
.PHONY: help setup build demo mqar ablate diagnostics test test-long test-fixtures require-fixtures format lint asan tsan gpu-test gpu-sanitize bench fuzz install clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what is missing: Debian packages and .venv
	@scripts/setup

# cmake prints its findings only when it fails or when they are new.
define configure
@$(cmake) --preset $(1) $(cmake_flags) $(2) >build/$(1).log 2>&1 || { cat build/$(1).log; exit 1; }
@grep -E 'CUDA: |LibTorch: |Gloo: ' build/$(1).log
endef

build: setup ## compile everything (Release) into build/release
	@mkdir -p build
	$(call configure,release)
	@$(cmake) --build $(build) -j $(JOBS)

demo: setup ## train, evaluate and sample a small model on text of this machine, or on TEXT=path
	@mkdir -p build
	$(call configure,release)
	@$(cmake) --build $(build) -j $(JOBS) --target comba_cli
	@$(python) scripts/demo.py $(if $(TEXT),--text '$(TEXT)') $(if $(SEED),--seed $(SEED)) $(if $(THREADS),--threads $(THREADS))

mqar: setup ## compare mixers in recall, small enough for a CPU; goes on where it was stopped
	@mkdir -p build
	$(call configure,release)
	@$(cmake) --build $(build) -j $(JOBS) --target comba_cli
	@$(build)/bin/comba mqar --out build/mqar $(if $(wildcard build/mqar/results.json),--resume)
	@PYTHONPATH=python $(python) -m comba.plot_mqar build/mqar/results.json

diagnostics: setup ## make control loops fail on purpose in small models; writes docs/science/control-loop.json and pictures
	@mkdir -p build
	$(call configure,release)
	@$(cmake) --build $(build) -j $(JOBS) --target comba_cli
	@$(python) scripts/diagnostics.py $(if $(TEXT),--text '$(TEXT)')

ablate: setup ## the paper's ablations, small enough for a CPU; goes on where it was stopped; ABLATION_TEXT=path
	@mkdir -p build
	$(call configure,release)
	@$(cmake) --build $(build) -j $(JOBS) --target comba_cli
	@[ -d build/ablation/data ] || $(build)/bin/comba data pack $(ABLATION_TEXT) --include '*.py' --exclude 'site-packages/*' --exclude 'dist-packages/*' --out build/ablation/data
	@OMP_WAIT_POLICY=passive $(build)/bin/comba ablate --config configs/ablation-cpu.toml --data build/ablation/data --out build/ablation/results --parallel $(JOBS) --threads 1 $(if $(wildcard build/ablation/results/results.json),--resume)
	@PYTHONPATH=python $(python) -m comba.plot_ablation build/ablation/results/results.json

test: build ## build and run the tests (not the long ones)
	@$(ctest) $(build) -j $(JOBS) -LE '^long$$'
	@$(pytest) -m "not long"

test-long: build ## every test, the long ones included
	@$(ctest) $(build) -j $(JOBS)
	@$(pytest)

test-fixtures: require-fixtures build ## compare with the reference files in COMBA_FIXTURES=DIR
	@$(build)/bin/test_fixtures $(COMBA_FIXTURES)

require-fixtures:
	@: $(if $(COMBA_FIXTURES),,$(error name the folder: make test-fixtures COMBA_FIXTURES=DIR))

format: setup ## rewrite every source file in the house style
	@$(sources) | xargs .venv/bin/clang-format -i

lint: setup ## style of every source file, then clang-tidy
	@$(sources) | xargs .venv/bin/clang-format --dry-run -Werror
	@mkdir -p build
	$(call configure,lint)
	@command -v run-clang-tidy >/dev/null || { echo "make lint: install the Debian package clang-tidy" >&2; exit 1; }
	@run-clang-tidy -quiet -j $(JOBS) -p build/lint '/(src|apps)/'

asan: setup ## the tests under the address and undefined-behaviour sanitizers
	@mkdir -p build
	$(call configure,asan)
	@$(cmake) --build build/asan -j $(JOBS)
	@$(ctest) build/asan -LE '^long$$'

tsan: setup ## the tests below LibTorch under the thread sanitizer
	@mkdir -p build
	$(call configure,tsan)
	@$(cmake) --build build/tsan -j $(JOBS)
	@$(ctest) build/tsan -LE '^long$$'

gpu-test: ## the tests of the GPU code alone; with COMBA_CUDA=ON and no GPU each is skipped by name
	@$(MAKE) --no-print-directory build COMBA_CUDA=ON
	@$(ctest) $(build) -L '^gpu$$'
	@$(python) -m pytest -v -k OnGpu tests/libtorch tests/python
	@$(python) -m pytest -v -k cuda tests/python

# initcheck takes NaN for a value that somebody wrote: for it memory is left as it comes. Neither it nor racecheck sees
# what bulk copies write and who waits for them by an mbarrier, of which the kernels of sm90 consist: these are left out.
gpu-sanitize: ## each GPU kernel once under the four tools of compute-sanitizer (TOOLS=memcheck for one)
	@command -v compute-sanitizer >/dev/null || { echo "make gpu-sanitize: put CUDA's compute-sanitizer on the PATH" >&2; exit 1; }
	@$(MAKE) --no-print-directory build COMBA_CUDA=ON
	@for tool in $(TOOLS); do echo "$$tool"; \
		COMBA_TEST_POISON=$$([ $$tool = initcheck ] && echo 0 || echo 1) compute-sanitizer --tool $$tool \
			$$(case $$tool in initcheck|racecheck) echo --kernel-regex-exclude kns=sm90;; esac) --error-exitcode 1 \
			$(build)/bin/test_delta_rule_cuda --gtest_brief=1 --gtest_filter='CudaEveryKernel.*:Decode.HeadDims:Decode.StatesInBf16*' || exit 1; done

bench: build ## measure operator and training step beside published ones; writes docs/benchmarks.md
	@$(python) scripts/bench.py

fuzz: setup ## feed hostile input to every fuzz target, FUZZ_SECONDS each
	@scripts/fuzz $(FUZZ_SECONDS)

install: build ## copy the library, its headers and the program under PREFIX
	@$(cmake) --install $(build) --prefix $(PREFIX)

clean: ## remove build/ (.venv stays)
	@rm -rf build
