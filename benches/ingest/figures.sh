#!/usr/bin/env bash
# Figures of ingest: signed events, each on disk before its 202, the generator on the same machine, with a probe of fdatasync
# beside each. Prints medians of RUNS runs and every run. Needs a release build: make release.
#   benches/ingest/figures.sh [SECONDS] [RUNS]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-20} runs=${2:-3}
binary=${MILLPOND:-target/release/millpond}
dir=$(mktemp -d "${TMPDIR:-.}/ingest-figures.XXXXXX")
export FIGURES_SECRET="whsec_$(head -c 32 /dev/urandom | base64 -w0)"

cat >"$dir/ingest.toml" <<TOML
[log]
level = "warn"

[ingest]
listen = "127.0.0.1:0"

[queue]
dir = "$dir/queue"
event_queues = ${QUEUES:-2}
depth_max_events = 100000000
depth_max_bytes = "64GiB"

[[source]]
name = "load"
path = "/events/load"
auth = { kind = "standard-webhooks", secrets = ["env:FIGURES_SECRET"] }
TOML

"$binary" run --config "$dir/ingest.toml" >"$dir/out" 2>"$dir/err" &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$dir"' EXIT
until grep -q '^ready .* ingest' "$dir/out"; do
    kill -0 $server 2>/dev/null || { cat "$dir/err"; exit 1; }
    read -rt 0.05 <> <(:) || :
done
url=$(sed -n 's/^ready \(.*\) ingest$/\1/p' "$dir/out")/events/load

# Ticks of CPU that the server has used.
ticks() { awk '{ print $14 + $15 }' "/proc/$server/stat"; }

# figure NAME OPTIONS...: runs it, prints every run, then the median of what was accepted.
figure() {
    local name=$1 before after
    shift
    echo "== $name"
    : >"$dir/accepted"
    for _ in $(seq "$runs"); do
        before=$(ticks)
        "$binary" load --url "$url" --secret env:FIGURES_SECRET --for "${seconds}s" --probe "$dir" "$@" | tee "$dir/run"
        after=$(ticks)
        awk -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" '/^requests/ { requests = $2 }
            END { printf "server CPU %.1f µs a request\n", ticks / hertz * 1e6 / requests }' "$dir/run"
        awk '/^accepted/ { print $2 }' "$dir/run" >>"$dir/accepted"
    done
    echo "median     $(sort -n "$dir/accepted" | sed -n "$(((runs + 1) / 2))p") events/s accepted"
}

# First: what the others leave behind in the queue makes each commit dearer.
figure "open loop, 1,000 single events a second" --connections 64 --rate 1000
figure "single events, 256 connections (goal: 35 k/s)" --connections 256
figure "single events, 64 connections" --connections 64
figure "batches of 100, 64 connections (goal: 300 k events/s)" --connections 64 --batch 100
