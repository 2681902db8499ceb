#!/usr/bin/env python3
"""How fast pictures are read, beside transformers: both in turn, round by round.

    cargo build --release -p lfm2-cli
    scripts/bench/vl.py --lfm2 target/release/lfm2 --python PYTHON

Random weights of published shapes: figures depend on shapes and number types alone. `view` is vision
tower and projector on one view of 512 x 512 pixels, `first` a picture of 1280 x 1024 up to the first token
of the answer, `second` the same for a second question about it. Pixels are decoded before; turning them
into views is part of our `first`, and not of the peer's. Figures are medians over the rounds, in seconds.

Only the standard library is needed, and for `--python` one with torch and transformers.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Peer:
    """transformers, waiting for its turn."""

    def __init__(self, args, shape, dtype):
        line = [args.python, str(HERE / "vl_peer.py"), "--shape", shape, "--dtype", dtype, "--threads", str(args.threads),
                "--picture", args.picture]
        # Threads that wait must not take the processors from whoever is measured.
        env = os.environ | {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.about = json.loads(self.process.stdout.readline())

    def time(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours(args, shape, dtype):
    """One round of our command, after a round that warms up."""
    line = [args.lfm2, "bench", "--synthetic", shape, "--quantization", dtype, "--image", args.picture, "--repeat", "1",
            "--threads", str(args.threads), "--no-packed-cache", "--json"]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def measure(args, shape, dtype):
    """All figures of a shape in a number type: name -> seconds of every round."""
    found = {"view": [], "first": [], "second": [], "peer view": [], "peer first": []}
    peer = Peer(args, shape, dtype) if args.python else None
    try:
        if peer:
            peer.time("view")
            peer.time("first")
        for number in range(args.rounds):
            report = ours(args, shape, dtype)
            for name, key in (("view", "view_seconds"), ("first", "first_token_seconds"), ("second", "second_token_seconds")):
                found[name].append(report[key])
            if peer:
                found["peer view"].append(peer.time("view"))
                found["peer first"].append(peer.time("first"))
            print(f"{shape} {dtype} round {number + 1}: " + ", ".join(
                f"{name} {values[-1]:.3f}" for name, values in found.items() if values), file=sys.stderr)
    finally:
        if peer:
            peer.close()
    return found


def markdown(results):
    """The table as it goes into the documentation."""
    def cell(values):
        return "–" if not values else f"{statistics.median(values):.3f}"

    def ratio(slow, fast):
        return "–" if not slow or not fast else f"{statistics.median(slow) / statistics.median(fast):.2f}"

    lines = ["| shape | numbers | view | torch | ratio | first token | torch | ratio | second question | times sooner |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for (shape, dtype), found in results.items():
        lines.append("| " + " | ".join([
            shape, dtype, cell(found["view"]), cell(found["peer view"]), ratio(found["peer view"], found["view"]),
            cell(found["first"]), cell(found["peer first"]), ratio(found["peer first"], found["first"]),
            cell(found["second"]), ratio(found["first"], found["second"])]) + " |")
    return "\n".join(lines)


def main():
    words = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfm2", default=os.environ.get("LFM2", "lfm2"), help="our command")
    parser.add_argument("--python", help="a Python with torch and transformers")
    parser.add_argument("--shape", type=words, default=["lfm2-vl-450m", "lfm2-vl-1.6b"], help="with commas")
    parser.add_argument("--dtype", type=words, default=["f32", "bf16"], help="with commas")
    parser.add_argument("--picture", choices=["1280x1024", "512x512"], default="1280x1024", help="512x512 is one view: a quick look")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the same for both")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    args = parser.parse_args()
    results = {(shape, dtype): measure(args, shape, dtype) for shape in args.shape for dtype in args.dtype}
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, medians of {args.rounds} rounds, seconds\n")
    print(markdown(results))
    if args.out:
        runs = {f"{shape} {dtype}": found for (shape, dtype), found in results.items()}
        args.out.write_text(json.dumps({"threads": args.threads, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
