# The one front door. `make` alone lists what there is.
#
#   make demo [AGENT=fake-claude]  build, run the main job and show it
#   make test                  every test but those of the vendors' programs
#
# Where the programs are built follows cargo: CARGO_TARGET_DIR and .cargo/config.toml hold.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
AGENT ?= fake
# Tests mostly wait for processes, so that more of them than CPUs run at once.
TEST_THREADS ?= 4
# They wait for their services mostly, too, but need more of a CPU.
VENDOR_THREADS ?= 3
# Seconds for each fuzz target.
TIME ?= 60
TARGET = $(shell cargo metadata --format-version 1 --no-deps 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
PROGRAMS = conductord conductorctl conductor-shim conductor-rest-agent
FAILPOINTS = --features conductor-tests/failpoints

.PHONY: help demo test lint bench fuzz install test-vendors record-streams bump-vendors prepare

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo [AGENT=claude]     build, run the main job and show it; AGENT=fake-claude (-codex, -gemini, -grok): the
##                              vendor's program without a key, against a fake of its service
demo: prepare
	cargo build --release --bins $(addprefix -p ,$(PROGRAMS)) -p conductor-tests
	"$(TARGET)/release/conductor-demo" --agent "$(AGENT)"

## make test                    every test but those of the vendors' programs
test: prepare
	.ci/prepare python bwrap faketime
	cargo build --workspace --bins $(FAILPOINTS)
	cargo test --workspace $(FAILPOINTS) -- --test-threads=$(TEST_THREADS)

## make lint                    format, clippy and documentation, without a warning
lint: prepare
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FAILPOINTS) -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --lib --document-private-items --quiet

## make bench                   the numbers of the design beside their limits, and as JSON
bench: prepare
	cargo build --release --bins $(addprefix -p ,$(PROGRAMS)) -p conductor-tests
	"$(TARGET)/release/conductor-bench" --json "$(TARGET)/bench.json"

## make fuzz TIME=60            every fuzz target for TIME seconds in turn; FUZZ="a b" for some of them
fuzz: prepare
	.ci/fuzz "$(TIME)" $(FUZZ)

## make install PREFIX=DIR      conductord and the other programs into DIR/bin (default /usr/local)
install: prepare
	cargo build --profile dist --bins $(addprefix -p ,$(PROGRAMS))
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(foreach program,$(PROGRAMS),"$(TARGET)/dist/$(program)") "$(DESTDIR)$(PREFIX)/bin/"

## make test-vendors            the vendors' own programs, pinned, against a fake of their services
test-vendors: prepare
	.ci/prepare git bwrap node
	cargo build --workspace --bins $(FAILPOINTS)
	CONDUCTOR_VENDORS_DIR="$$(.ci/vendors)" cargo test -p conductor-tests $(FAILPOINTS) --test vendors -- --test-threads=$(VENDOR_THREADS)

## make record-streams          tests/data/streams anew, from the vendors' programs against the fake
record-streams: prepare
	.ci/prepare node
	cargo build -p conductor-tests --bin conductor-record-streams
	CONDUCTOR_VENDORS_DIR="$$(.ci/vendors)" "$(TARGET)/debug/conductor-record-streams" tests/data/streams

## make bump-vendors [VENDORS=…]  the newest of the vendors' programs, or PACKAGE@VERSION …, into tests/vendors.json
bump-vendors:
	@.ci/prepare node
	@.ci/bump-vendors $(VENDORS)

prepare:
	@.ci/prepare rust cc
