#!/bin/bash
# more.sh rate|flood|scale: see README.md
set -eu; . "$(dirname "$0")/lib.sh"; export RUN BASE SRV_CPU GEN_CPU; ulimit -n "$(ulimit -Hn)"
exec python3 "$HERE/more.py" "$@"
