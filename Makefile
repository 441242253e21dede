# SPDX-License-Identifier: Apache-2.0
#
# The front door. Everything real is in `wflp` and in the Makefiles below it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# What a caller may set.
PROFILE ?= quick
OUT ?= out/$(PROFILE)
VARIANT ?= release
TREE ?= build/linux

# The cache holds a Go toolchain where the machine's own is too old.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wflp
export PATH := $(CACHE)/go/bin:$(PATH)
# One toolchain for all: never one that a go.mod line fetches behind our back.
export GOTOOLCHAIN := local
export GOFLAGS := -buildvcs=false

WFLP := build/wflp

##@ Using it

.PHONY: help
help: ## show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVariables: PROFILE=quick|full OUT=DIR VARIANT=release|stock|debug|kasan|fuzz|kcsan|rt TREE=DIR\n'

.PHONY: bootstrap
bootstrap: ## install what is missing: Debian packages (root or sudo), Go
	@tools/bootstrap.sh

.PHONY: evaluate
evaluate: build ## build, boot, patch, check, compare and report into OUT
	@$(WFLP) evaluate -profile $(PROFILE) -out $(OUT)

.PHONY: figures
figures: build ## make figures and report in OUT again from its records
	@$(WFLP) figures -out $(OUT)

.PHONY: realworld
realworld: build ## patch memcached, redis and haproxy under load, in out/realworld
	@$(WFLP) realworld $(FLAGS)

.PHONY: doctor
doctor: build ## say what this machine can do and what it lacks
	@$(WFLP) doctor

##@ Kernel

.PHONY: kernel
kernel: build ## build the kernel VARIANT
	@$(WFLP) kernel build $(VARIANT)

.PHONY: kernel-tree
kernel-tree: build ## make a git tree of the kernel with the series, in TREE
	@$(WFLP) kernel tree $(TREE)

.PHONY: kernel-patches
kernel-patches: build ## write the commits in TREE to kernel/patches
	@$(WFLP) kernel patches $(TREE)

.PHONY: qemu
qemu: build ## build the emulator of our own
	@$(WFLP) qemu build

##@ Trying to break it

# Again: as much more. FLAGS are those of `wflp fuzz run`.
.PHONY: fuzz
fuzz: build ## a fuzzing campaign of ten minutes, or TIME, in out/fuzz
	@$(WFLP) fuzz run -out out/fuzz -more $(or $(TIME),10m) $(FLAGS)

##@ Working on it

.PHONY: build
build: bootstrap ## build the wflp program
	@mkdir -p build && go build -trimpath -o $(WFLP) ./cmd/wflp

# Cheap and telling first.
# What is needed on every change; the rest, by hours, is TEST_FULL_STAGES.
TEST_STAGES := test-lint test-unit test-lib test-vm test-series test-selftest-debug test-selftest-kasan test-lib-guest test-fuzz test-realworld test-evaluate
TEST_FULL_STAGES := $(TEST_STAGES) test-each test-mutants test-patches test-selftest-matrix test-lib-long test-conform-full test-evaluate-quick

.PHONY: test
test: build ## all tests, in order, with a sum at the end
	@tools/test.sh $(TEST_STAGES)

.PHONY: test-full
test-full: build ## those and what takes hours; goes on where it was stopped
	@RESUME=1 tools/test.sh $(TEST_FULL_STAGES)

.PHONY: test-lint
test-lint: bootstrap ## gofmt, vet, staticcheck, licence lines
	@tools/lint.sh

.PHONY: test-unit
test-unit: bootstrap ## Go unit tests with the race detector
	@tools/gotest.sh 'unit tests' -race ./...

.PHONY: test-lib
test-lib: bootstrap ## the C library, plain and under sanitizers
	@$(MAKE) -C kernel/libwflp check

.PHONY: test-vm
test-vm: bootstrap ## boots: runner, agent, determinism, our QEMU, KVM probe (builds what is missing)
	@WFLP_BOOT=1 tools/gotest.sh 'vm tests' -count=1 -timeout=30m -run '^TestBoot' ./vmimages/vm

.PHONY: test-series
test-series: build ## checkpatch --strict and sparse on the patch series; the seeded defects apply
	@$(WFLP) kernel check

.PHONY: test-selftest-debug test-selftest-kasan
test-selftest-debug: build ## selftests of the series in a debug kernel
test-selftest-kasan: build ## and in a KASAN kernel
# What takes minutes under emulation is left to test-selftest-matrix.
test-selftest-debug test-selftest-kasan:
	@$(WFLP) selftest -variant $(@:test-selftest-%=%) -cpus 4 -skip 'huge|reclaim'

.PHONY: test-lib-guest
test-lib-guest: build ## the library's tests in a debug kernel, where views are real
	@$(WFLP) selftest -suite lib -variant debug -cpus 4

.PHONY: test-fuzz
test-fuzz: build ## a short campaign; findings on seeded defects again, byte for byte, in a second checkout
	@WFLP_BOOT=1 tools/gotest.sh 'fuzzing' -count=1 -timeout=65m -run '^TestFuzz' ./cmd/wflp

.PHONY: test-realworld
test-realworld: build ## memcached takes a fix under load, in a guest (builds it if it is missing)
	@rm -rf build/realworld
	@$(WFLP) realworld -out build/realworld -strategies none,waitfree -rounds 1 memcached CVE-2023-46852

.PHONY: test-lib-long
test-lib-long: build ## threads in different code for hours of guest time, which passes quickly
	@$(WFLP) selftest -suite lib-long -variant release -mode deterministic -test-timeout 5h

.PHONY: test-conform
test-conform: build ## some of the kernel's mm selftests and of stress-ng, outside and inside of views
	@$(WFLP) conform -subset quick -out build/conform-quick

.PHONY: test-conform-full
test-conform-full: build ## all of them, in half an hour; makes the table of docs/conformance.md
	@$(WFLP) conform -out build/conform

.PHONY: test-patches
test-patches: build ## redis, memcached and haproxy, built without and with each fix: what becomes a patch and what is refused
	@WFLP_PATCH_CACHE=$(CACHE) tools/gotest.sh 'known fixes' -count=1 -timeout=2h -run '^TestKnownFixes$$' ./realworld/program

.PHONY: test-evaluate
test-evaluate: build ## a short evaluation, killed once and gone on with, and its summary
	@WFLP_BOOT=1 tools/gotest.sh 'short evaluation' -count=1 -timeout=40m -run '^TestBoot' ./cmd/wflp

.PHONY: test-each
test-each: build ## the series builds and boots after each of its patches
	@$(WFLP) kernel each

.PHONY: test-mutants
test-mutants: build ## the defects of kernel/mutants compile, without a warning
	@$(WFLP) kernel mutants debug

# Other machines than those of the stages above.
.PHONY: test-selftest-matrix
test-selftest-matrix: build ## selftests with 1 and 2 processors, huge pages, page-table isolation, PREEMPT_RT, KCSAN
	@$(WFLP) selftest -variant debug -cpus 4 -run 'huge|reclaim'
	@$(WFLP) selftest -variant kasan -cpus 4 -run 'huge|reclaim'
	@$(WFLP) selftest -variant debug -cpus 2 -levels 5 -skip 'huge|reclaim'
	@$(WFLP) selftest -variant debug -cpus 1
	@$(WFLP) selftest -variant debug -cpus 2 -append 'transparent_hugepage=always'
	@$(WFLP) selftest -variant debug -cpus 2 -append 'transparent_hugepage=never pti=on'
	@$(WFLP) selftest -variant release -cpus 2
	@$(WFLP) selftest -variant rt -cpus 4 -skip 'huge|reclaim'
	@$(WFLP) selftest -variant kcsan -cpus 4 -skip 'huge|reclaim'
	@$(WFLP) selftest -variant debug -cpus 2 -mode deterministic

.PHONY: test-evaluate-quick
test-evaluate-quick: build ## the quick evaluation, whose violations and complaints are failures
	@$(WFLP) evaluate -profile quick -out build/evaluate-quick/$$(git rev-parse --short HEAD)
	@echo 'quick evaluation: 1 passed, 0 failed, 0 skipped'

.PHONY: clean
clean: ## remove build/ (kernels and other slow things stay in the cache)
	rm -rf build
