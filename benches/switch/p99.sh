#!/usr/bin/env bash
# How long answers take while a shard's primary is killed under load and its spare takes over: ROUNDS times the test of that,
# in a release build. Prints reads, p99 (goal: below 250 ms) and the longest of each kill; fails if any reader got an error.
#   benches/switch/p99.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
for _ in $(seq "${1:-5}"); do
    tools/with-cmake cargo test --release --test suite crash::spare -- --nocapture 2>/dev/null | grep -E 'died:|FAILED|panicked'
done
