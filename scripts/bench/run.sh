#!/usr/bin/env bash
# Builds the command and the other contenders as released and compares them; arguments go to
# compare.py, or behind the word colbert or train to the script of that name, see --help. The first
# build of Candle's models takes some minutes.
set -euo pipefail
cd "$(dirname "$0")"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}
cargo build --release --quiet --manifest-path ../../Cargo.toml -p lfm2-cli
cargo build --release --quiet

export LFM2=$CARGO_TARGET_DIR/release/lfm2 LFM2_COMPARE=$CARGO_TARGET_DIR/release/lfm2-compare
script=compare.py
if [[ ${1:-} == colbert || ${1:-} == train ]]; then
  script=$1.py
  shift
fi
exec python3 "$script" "$@"
