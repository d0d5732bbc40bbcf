# Two words do all: `sudo make up` for the main job on this machine, `sudo make test` for its proof.
# What a fresh Debian 12 lacks, beyond the Rust toolchain, every target installs.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin:/root/.cargo/bin:$(if $(SUDO_USER),/home/$(SUDO_USER)/.cargo/bin):/usr/local/cargo/bin
# Under sudo the build stays the caller's: the toolchain is his, and so is target/.
AS_CALLER := $(if $(filter-out root,$(SUDO_USER)),sudo -u $(SUDO_USER) env "PATH=$$PATH")
BIN := target/release

# PACKAGE, or PACKAGE:COMMAND where any package's command will do.
FOR_BUILD := build-essential
FOR_UP := $(FOR_BUILD) ca-certificates curl kubernetes-client:kubectl mmdebstrap
FOR_BENCH_RUNTIME := $(FOR_BUILD) busybox-static conmon crun runc
FOR_BENCH_CNI := $(FOR_BUILD) containernetworking-plugins iptables
FOR_BENCH_ROOTFS := $(FOR_BUILD) buildah containerd docker-registry e2fsprogs mmdebstrap skopeo umoci
FOR_TEST := $(FOR_BUILD) bsdutils busybox-static ca-certificates conmon containerd containernetworking-plugins dbus-daemon docker-registry iproute2 iptables kubernetes-client:kubectl mmdebstrap nftables podman procps runc skopeo strace umoci

# How long each fuzz target runs, in seconds.
FUZZ_SECS := 20

.PHONY: up down build test check fuzz fmt bench-path bench-runtime bench-cni bench-rootfs

up: ; .ci/deps $(FOR_UP) && $(AS_CALLER) .ci/build $(BIN) && examples/up.sh $(BIN) target/examples

down: ; examples/down.sh $(BIN)

build: ; .ci/deps $(FOR_BUILD) && $(AS_CALLER) .ci/build $(BIN)

test: ; .ci/deps $(FOR_TEST) && .ci/test

check: ; .ci/deps $(FOR_BUILD) && .ci/deps-check && .ci/check

fuzz: ; .ci/deps $(FOR_BUILD) && .ci/deps-fuzz && .ci/fuzz $(FUZZ_SECS)

fmt: ; cargo fmt --all && cargo fmt --manifest-path fuzz/Cargo.toml

bench-path: ; .ci/deps $(FOR_TEST) && $(AS_CALLER) .ci/build $(BIN) && BERTH_BIN=$(BIN) cargo run --release --quiet -p berth-tests --bin bench-path

bench-runtime: ; .ci/deps $(FOR_BENCH_RUNTIME) && $(AS_CALLER) .ci/build-runtime $(BIN) && $(AS_CALLER) cargo build --release --quiet -p berth-runtime-tests --bins && $(BIN)/bench-runtime

bench-cni: ; .ci/deps $(FOR_BENCH_CNI) && cargo bench --quiet -p berth-cni --bench attach

bench-rootfs: ; .ci/deps $(FOR_BENCH_ROOTFS) && $(AS_CALLER) .ci/build $(BIN) && $(AS_CALLER) cargo build --release --quiet -p berth-tests --bin bench-rootfs && $(BIN)/bench-rootfs target/bench-rootfs
