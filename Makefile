# Two words do all: `sudo make up` for the main job on this machine, `sudo make test` for its proof.
# What a fresh Debian 12 lacks, beyond the Rust toolchain, `deps` installs.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin:/root/.cargo/bin:$(if $(SUDO_USER),/home/$(SUDO_USER)/.cargo/bin):/usr/local/cargo/bin
# Under sudo the build stays the caller's: the toolchain is his, and so is target/.
AS_CALLER := $(if $(filter-out root,$(SUDO_USER)),sudo -u $(SUDO_USER) env "PATH=$$PATH")
BIN := target/release

.PHONY: up down build test check fmt bench-path deps deps-check

up: deps build
	examples/up.sh $(BIN) target/examples

down: build
	examples/down.sh $(BIN)

build:
	$(AS_CALLER) .ci/build $(BIN)

test: deps
	.ci/test

check: deps-check
	.ci/check

fmt:
	cargo fmt --all

bench-path: deps build
	BERTH_BIN=$(BIN) cargo run --release --quiet -p berth-tests --bin bench-path

deps:
	.ci/deps build-essential busybox-static ca-certificates curl iproute2 kubernetes-client:kubectl mmdebstrap:mmdebstrap nftables:nft docker-registry skopeo umoci

deps-check: deps
	.ci/deps-check
