#!/bin/sh
# What `make up` does, with the programs that were built outside.
set -eu
cd /berth
.ci/deps ca-certificates curl kubernetes-client:kubectl mmdebstrap
examples/up.sh target/release /var/cache/berth-examples
