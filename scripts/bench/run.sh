#!/usr/bin/env bash
# Builds the comparison as released and runs it; arguments are passed on, see --help.
set -euo pipefail
cd "$(dirname "$0")"

# Both sides on the same number of threads: those of the kernels here, rayon's and Candle's own.
threads=${THREADS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu)}
export LFM2_NUM_THREADS=$threads RAYON_NUM_THREADS=$threads CANDLE_NUM_THREADS=$threads
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}

cargo build --release --quiet
exec "$CARGO_TARGET_DIR/release/lfm2-compare" "$@"
