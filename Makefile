# The same commands for a person and for CI (.ci/run). Everything is idempotent: what is up to date is not done again.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check
PYTEST := $(PY) -m pytest -q -ra

METADATA := setup.py pyproject.toml VERSION
CORE_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.def' \
  -o -name CMakeLists.txt -o -name "*.cmake")
CXX_FILES = $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.hpp' 'csrc/*.inl' 'tests/*.cpp' 'tests/*.h' 'tests/*.c' 'examples/*.c' 'examples/*.cpp' 'benchmarks/*.cpp')
FIND_ENGINE := import sys; from onceover.runtime.session import engine_library as find; print(find(sys.argv[1]))
ENGINES_FOR_TESTS = ONCEOVER_TEST_ORT=$$($(PY) -c '$(FIND_ENGINE)' onnxruntime) \
  && ONCEOVER_TEST_OPENVINO=$$($(PY) -c '$(FIND_ENGINE)' openvino) \
  && export ONCEOVER_TEST_ORT ONCEOVER_TEST_OPENVINO ONCEOVER_TEST_GRAPH="$(CURDIR)/build/tests/tiny.onnx"
# Emulated CPUs. ARM: neither dotprod nor i8mm, dotprod, both. x86: CPU=the best instruction set it must offer (qemu 7.2
# has no AVX-512; -feature: what it cannot emulate and would warn of).
ARM_CPUS := cortex-a53 cortex-a76 max
X86_LEVELS := Nehalem=scalar Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid=avx2
X86_LEVEL_TESTS := $(patsubst tests/%.cpp,%,$(wildcard tests/test_kernels.cpp tests/test_memory_bank.cpp \
  tests/test_metrics.cpp tests/test_session.cpp))
# $(call needs,program,packages) ends a recipe where the program is missing: fails with CI=true, else says SKIPPED.
needs = command -v $(1) >/dev/null || { echo "$@: no $(1) here; install it: apt-get install $(2)"; \
  test "$$CI" != true && echo "$@: SKIPPED"; exit; }
# Sessions and searches on several threads, for TSan; the C ABI for valgrind, which knows no AVX-512.
THREAD_TESTS := host_package test_c_api_threads test_c_api test_session test_parallel
VALGRIND_TESTS := test_c_api_session test_c_api_session_refusals test_c_api_threads
space := $(subst ,, )
# How long `make fuzz` runs.
FUZZ_SECONDS := 60
PY_FILES := setup.py python export tests $(wildcard benchmarks)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check test-cpp test-python test-arm test-x86-levels test-sanitizers test-slow fuzz bench bench-compare \
  bench-smoke clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.core ## install what runs onceover and show it on a small drawn data set
	@echo "demo: fitting, evaluating and drawing a contact sheet"
	@$(VENV)/bin/onceover demo

test: check test-cpp test-python ## lint, types, C++ tests, Python tests

check: $(VENV)/.installed-dev ## lint, format, types, one version everywhere
	@echo "check: ruff"
	@$(PY) -m ruff check --quiet $(PY_FILES)
	@$(PY) -m ruff format --quiet --check $(PY_FILES) || { $(PY) -m ruff format --check $(PY_FILES); exit 1; }
	@echo "check: mypy"
	@# mypy follows no import hooks, so it is shown the package as it is installed: export/ inside onceover/
	@rm -rf build/types && mkdir -p build/types/onceover
	@ln -s $(CURDIR)/python/onceover/* $(CURDIR)/export build/types/onceover/
	@cd build/types && ../../$(PY) -m mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p onceover
	@echo "check: clang-format"
	@$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)
	@echo "check: version"
	@test "$$(cat VERSION)" = "$$($(PY) -c 'import importlib.metadata as m; print(m.version("onceover"))')" \
	  || { echo "check: VERSION and the installed metadata disagree; run make clean, then make check"; exit 1; }

test-cpp: build/tests/CMakeCache.txt build/tests/tiny.onnx ## C++ tests, warnings are errors
	@echo "test-cpp: building and running the C++ tests"
	@cmake --build build/tests --parallel $(JOBS) -- --no-print-directory -s
	@$(ENGINES_FOR_TESTS) && ctest --test-dir build/tests --output-on-failure --no-tests=error

build/tests/CMakeCache.txt: csrc/CMakeLists.txt tests/tests.cmake VERSION
	@cmake -S csrc -B build/tests -DCMAKE_RULE_MESSAGES=OFF -DONCEOVER_BUILD_TESTS=ON -DONCEOVER_WERROR=ON >/dev/null
	@touch $@

# What test_engines loads and runs; without it, that test only says that it was skipped.
build/tests/tiny.onnx: tests/tiny_package.py $(VENV)/.installed-dev
	@mkdir -p $(@D) && $(PY) tests/tiny_package.py $@

test-arm: ## C++ tests that need no engine, cross-built for ARM, on emulated CPUs
	@$(call needs,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu qemu-user-static); \
	$(call needs,qemu-aarch64-static,g++-aarch64-linux-gnu qemu-user-static); \
	echo "test-arm: building the C++ tests for aarch64" \
	&& cmake -S csrc -B build/arm64 -DCMAKE_TOOLCHAIN_FILE="$(CURDIR)/csrc/arm64.cmake" -DCMAKE_RULE_MESSAGES=OFF \
	  -DONCEOVER_BUILD_TESTS=ON -DONCEOVER_WERROR=ON >/dev/null \
	&& cmake --build build/arm64 --parallel $(JOBS) -- --no-print-directory -s \
	&& all= && for cpu in $(ARM_CPUS); do \
	  echo "test-arm: running them on an emulated $$cpu$$all"; \
	  QEMU_CPU=$$cpu ONCEOVER_QEMU=1 ctest --test-dir build/arm64 --parallel $(JOBS) --exclude-regex '^engines$$' \
	    $${all:+--label-exclude '^any_cpu$$'} --output-on-failure --no-tests=error || exit 1; \
	  all=', but for those of no kernel'; \
	done

test-x86-levels: build/tests/CMakeCache.txt ## kernel tests on emulated x86 CPUs without AVX, and without AVX-512
	@test "$$(uname -sm)" = "Linux x86_64" || { echo "$@: SKIPPED, this is not x86-64 Linux"; exit; }; \
	$(call needs,qemu-x86_64-static,qemu-user-static); \
	cmake --build build/tests --parallel $(JOBS) --target $(X86_LEVEL_TESTS) -- --no-print-directory -s \
	&& for level in $(X86_LEVELS); do for test in $(X86_LEVEL_TESTS); do \
	  echo "test-x86-levels: running $$test on an emulated $${level%%[,=]*} ($${level##*=})"; \
	  QEMU_CPU=$${level%=*} ONCEOVER_ISA=$${level##*=} ONCEOVER_QEMU=1 qemu-x86_64-static build/tests/$$test || exit 1; \
	done; done

test-sanitizers: build/tests/tiny.onnx build/tests/CMakeCache.txt ## C++ tests under ASan and UBSan; sessions under TSan and valgrind
	@echo "test-sanitizers: building and running the C++ tests with sanitizers"
	@cmake -S csrc -B build/sanitizers -DCMAKE_RULE_MESSAGES=OFF -DONCEOVER_BUILD_TESTS=ON -DONCEOVER_WERROR=ON \
	  -DONCEOVER_SANITIZE=address,undefined >/dev/null
	@cmake --build build/sanitizers --parallel $(JOBS) -- --no-print-directory -s
	@# OpenVINO's TBB would open a library of its own in a way that sanitizers refuse
	@$(ENGINES_FOR_TESTS) && TBB_ENABLE_SANITIZERS=1 ctest --test-dir build/sanitizers --output-on-failure --no-tests=error
	@echo "test-sanitizers: threads"
	@cmake -S csrc -B build/threads -DCMAKE_RULE_MESSAGES=OFF -DONCEOVER_BUILD_TESTS=ON -DONCEOVER_WERROR=ON \
	  -DONCEOVER_SANITIZE=thread >/dev/null
	@cmake --build build/threads --parallel $(JOBS) --target $(THREAD_TESTS) -- --no-print-directory -s
	@ctest --test-dir build/threads -R '^($(subst $(space),|,$(THREAD_TESTS:test_%=%)))$$' --output-on-failure \
	  --no-tests=error
	@$(call needs,valgrind,valgrind); \
	echo "test-sanitizers: valgrind" \
	&& cmake --build build/tests --parallel $(JOBS) --target $(VALGRIND_TESTS) host_package -- --no-print-directory -s \
	&& build/tests/host_package build/tests/host.onceover && for test in $(VALGRIND_TESTS); do \
	  ONCEOVER_ISA=avx2 valgrind --quiet --leak-check=full --errors-for-leak-kinds=all --error-exitcode=9 \
	    build/tests/$$test build/tests/host.onceover || exit 1; \
	done

fuzz: $(VENV)/.installed-dev $(VENV)/.core ## libFuzzer on the package reader for FUZZ_SECONDS=60
	@$(call needs,clang++,clang libclang-rt-14-dev); \
	echo "fuzz: building the package reader with sanitizers" \
	&& cmake -S csrc -B build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_RULE_MESSAGES=OFF -DONCEOVER_BUILD_FUZZERS=ON \
	  -DONCEOVER_SANITIZE=address,undefined >/dev/null \
	&& cmake --build build/fuzz --parallel $(JOBS) --target fuzz_package -- --no-print-directory -s \
	&& $(PY) tests/fuzz_seeds.py build/fuzz/seeds && mkdir -p build/fuzz/corpus \
	&& echo "fuzz: reading hostile packages for $(FUZZ_SECONDS) s; what ends it is kept in build/fuzz/" \
	&& build/fuzz/fuzz_package -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -rss_limit_mb=2048 -timeout=10 \
	  -artifact_prefix=build/fuzz/ -verbosity=0 -print_funcs=0 -print_final_stats=1 build/fuzz/corpus build/fuzz/seeds

test-python: $(VENV)/.installed-dev $(VENV)/.core ## Python tests
	@echo "test-python: running pytest in $(JOBS) processes"
	@$(PYTEST) --numprocesses $(JOBS) --dist loadfile tests

test-slow: $(VENV)/.installed-dev $(VENV)/.core ## what builds wheels and fresh environments
	@echo "test-slow: running the slow tests"
	@$(PYTEST) -m slow tests

# Words: names of benchmarks, none for all; PASSES=n; PARTIAL=1 writes tables that lack what was skipped.
SUITE = $(PY) benchmarks/run_suite.py $(ONLY) $(if $(PASSES),--passes $(PASSES))

bench: $(VENV)/.installed-bench $(VENV)/.core ## benchmarks: the tables of benchmarks/README.md; ONLY="image metrics"
	@$(SUITE) $(if $(PARTIAL),--partial)

bench-compare: $(VENV)/.installed-bench $(VENV)/.core ## which numbers of a fresh run agree with the last one of `make bench`
	@$(SUITE) --compare

bench-smoke: $(VENV)/.installed-dev $(VENV)/.core ## that every benchmark runs, in less than a minute; nothing is timed
	@$(SUITE) --short

# Setuptools, wheel and pybind11 live in the environment, so that the editable build needs no isolated copy of them.
$(PY):
	@echo "install: creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install "setuptools>=77" wheel "pybind11>=2.13"

$(VENV)/.installed-run: $(METADATA) | $(PY)
	@echo "install: onceover and what it needs at run time (compiles the core)"
	@$(PIP) install --no-build-isolation -e .
	@touch $@

# torch comes first and exact: nothing that follows may pull another build of it.
$(VENV)/.installed-dev: $(METADATA) | $(PY)
	@echo "install: torch 2.13.0"
	@$(PIP) install torch==2.13.0
	@echo "install: onceover with the extras train and dev (compiles the core)"
	@$(PIP) install --no-build-isolation -e '.[train,dev]'
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "install: what the benchmarks compare with"
	@$(PIP) install --no-build-isolation -e '.[train,dev,bench]'
	@# Their metrics need none of what they demand: a second OpenCV in the place of ours, lightning, kornia and more.
	@$(PIP) install --no-deps adeval==1.1.0 anomalib==2.7.0
	@touch $@

$(VENV)/.core: $(CORE_SOURCES) $(VENV)/.installed-run
	@echo "build: the compiled core"
	@mkdir -p build && $(PY) setup.py --quiet build_ext --inplace >build/core.log 2>&1 || { cat build/core.log; exit 1; }
	@touch $@

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist python/*.egg-info python/onceover/_core*.so .mypy_cache .ruff_cache .pytest_cache
