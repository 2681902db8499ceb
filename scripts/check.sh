#!/usr/bin/env bash
# Everything that must hold before a change is merged, cheapest first; stops at the first failure.
# Needs a Rust toolchain and a C compiler, and fetches missing toolchain components by itself.
# The tests read further reference cases when LFM2_GOLDEN names a folder with some.
set -euo pipefail
cd "$(dirname "$0")/.."

# The command downloads, the library by itself does not. With one set of features for every step
# over the workspace, no dependency is built twice.
workspace=(--workspace --features lfm2-hub/download --locked)

log=$(mktemp)
trap 'rm -f "$log"' EXIT

step() {
  printf '\n== %s (%ss)\n' "$*" "$SECONDS"
}

# component NAME COMMAND: installs a part of the toolchain unless the command is there.
component() {
  cargo "$2" --version >/dev/null 2>&1 || rustup component add "$1"
}

# run_tests ARGUMENTS: runs tests to the end and adds up their results, also after a failure.
run_tests() {
  local status=0
  cargo test --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
  awk '/^test result:/ { passed += $4; failed += $6; ignored += $8; runs++ }
       END { printf "\ntests: %d passed, %d failed, %d ignored in %d runs\n",
                    passed, failed, ignored, runs }' "$log"
  return "$status"
}

component rustfmt fmt
component clippy clippy

step "format"
cargo fmt --all --check
cargo fmt --manifest-path scripts/bench/Cargo.toml --check
cargo fmt --manifest-path fuzz/Cargo.toml --check

step "house rules: crate edges, file sizes, documentation"
cargo test --locked --quiet -p lfm2-checks

step "clippy"
cargo clippy "${workspace[@]}" --all-targets -- -D warnings

step "the library without downloads"
cargo check --locked --quiet -p lfm2-hub -p lfm2

step "kernels on other processors"
for target in aarch64-unknown-linux-gnu wasm32-unknown-unknown; do
  if rustup target add "$target" >/dev/null 2>&1; then
    cargo check --locked --quiet --target "$target" -p lfm2-kernels
    echo "$target: ok"
  else
    echo "$target cannot be installed, left out"
  fi
done

step "tests"
run_tests "${workspace[@]}"

step "documentation"
# Libraries only: the command and the library of the same name would share one page.
RUSTDOCFLAGS="-D warnings" cargo doc "${workspace[@]}" --no-deps --lib

step "licences and sources of dependencies"
if command -v cargo-deny >/dev/null; then
  cargo deny --all-features check bans licenses sources
else
  echo "cargo-deny is not installed, left out"
fi

step "all checks passed"
