# The front door of dhow: `make help`.

TRIPLE     := $(shell scripts/static-target.sh)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RUNTIME    := $(abspath $(TARGET_DIR))/$(TRIPLE)/release/dhow-runtime
PREFIX     ?= /usr/local
# Where the musl target cannot be had, a static glibc build works the same.
ifneq (,$(findstring gnu,$(TRIPLE)))
STATIC := RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static"
endif
# What `make test` may skip, each with its reason on stderr; one more is a failure.
SKIPS_ALLOWED ?= 2
SKIPS := $(abspath $(TARGET_DIR))/skips

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: demo
demo: build ## builds dhow, makes a busybox bundle and runs containers from it
	scripts/demo.sh $(RUNTIME)

.PHONY: build
build: ## the static release binary dhow-runtime
	$(STATIC) cargo build --release --target $(TRIPLE) -p dhow-runtime

.PHONY: install
install: build ## puts everything below PREFIX (default /usr/local)
	install -D -m 0755 $(RUNTIME) $(DESTDIR)$(PREFIX)/sbin/dhow-runtime
	install -D -m 0644 docs/man/dhow-runtime.8 $(DESTDIR)$(PREFIX)/share/man/man8/dhow-runtime.8

.PHONY: test-deps
test-deps: ## the Debian packages that tests use, and a Debian 13 root with newer peers
	scripts/install-test-deps.sh
	scripts/debian13-root.sh

.PHONY: test
test: test-deps build ## all tests, as root: unit, integration, real callers, a short run on cgroup v2 in a guest
	rm -f $(SKIPS)
	cargo test --workspace --no-fail-fast --exclude dhow-tests
	DHOW_RUNTIME=$(RUNTIME) DHOW_SKIPS=$(SKIPS) cargo test -p dhow-tests --no-fail-fast
	$(MAKE) vm-short
	@touch $(SKIPS); n=$$(wc -l < $(SKIPS)); echo "$$n skipped"; cat $(SKIPS); \
	  if [ $$n -gt $(SKIPS_ALLOWED) ]; then echo "more than the $(SKIPS_ALLOWED) that may be skipped"; exit 1; fi

.PHONY: lint
lint: ## rustfmt, clippy with warnings as errors, the direction of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test -p dhow-tests --test dependencies

.PHONY: conformance
conformance: build ## suites of DHOW_RUNTIME_TOOLS and DHOW_CONTEST (checkouts), beside Debian's runc
	DHOW_RUNTIME=$(RUNTIME) cargo run -q -p dhow-tests --bin conformance -- $(CONFORMANCE_FLAGS)

VM_TESTS       ?= cgroup lifecycle
VM_SHORT_TESTS ?= cgroup
.PHONY: vm
vm: build ## cgroup and lifecycle tests in QEMU guests: cgroup v2, v1, Linux 6.1
	DHOW_RUNTIME=$(RUNTIME) scripts/vm.sh full $(VM_TESTS)

.PHONY: vm-short
vm-short: build ## the cgroup tests in one guest with cgroup v2
	DHOW_RUNTIME=$(RUNTIME) scripts/vm.sh short $(VM_SHORT_TESTS) -- $(VM_FILTER)

.PHONY: crash
crash: build ## SIGKILL at every system call of every verb (hours); `make test` takes a sample
	DHOW_RUNTIME=$(RUNTIME) cargo run -q -p dhow-tests --bin crash -- $(CRASH_FLAGS)

.PHONY: bench
bench: bench-runtime ## all benchmarks

.PHONY: bench-runtime
bench-runtime: build ## dhow-runtime beside crun, runc and the floor (RECORD=1 updates docs/benchmarks.md)
	scripts/install-test-deps.sh
	scripts/debian13-root.sh
	cargo run -q -p dhow-tests --bin bench-runtime -- --runtime $(RUNTIME) \
	  $(if $(RECORD),--record docs/benchmarks.md) $(BENCH_FLAGS)
