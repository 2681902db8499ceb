#!/usr/bin/env python3
"""How fast pictures are read, beside transformers and llama.cpp: all in turn, round by round.

    cargo build --release -p lfm2-cli
    scripts/bench/vl.py --lfm2 target/release/lfm2 --python PYTHON [--llama BIN --llama-files FOLDER]

Random weights of published shapes: figures depend on shapes and number types alone. `view` is vision
tower and projector on one view of 512 x 512 pixels, `first` a picture of 1280 x 1024 up to the first token
of the answer, `second` the same for a second question about it. Ratios are to the fastest of all peers and their number
types. Pixels are decoded before; turning them
into views is part of our `first`, and not of the peer's. Figures are medians over the rounds, in seconds.

llama.cpp is measured on the view alone, with files that are written to the folder where they are missing (see vl_llama.py).

Only the standard library is needed, and for `--python` one with torch and transformers; to write files for llama.cpp
also with gguf, safetensors and pillow.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import vl_llama

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


def llama(args, shape, kind):
    """The seconds of a view in llama.cpp."""
    folder = args.llama_files / f"{shape}-{kind}"
    if not (folder / "picture.png").exists():
        line = [args.python, str(HERE / "vl_llama.py"), "write", str(folder), "--shape", shape, "--type", kind, "--lfm2", args.lfm2]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return vl_llama.seconds(args.llama, folder, args.threads)


def ours(args, shape, storage):
    """One round of our command, after a round that warms up."""
    line = [args.lfm2, "bench", "--synthetic", shape, "--quantization", storage, "--image", args.picture, "--repeat", "1",
            "--threads", str(args.threads), "--no-packed-cache", "--json"]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def measure(args, shape):
    """All figures of a shape: (who, name) -> seconds of every round."""
    found = {}
    peers = {dtype: Peer(args, shape, dtype) for dtype in args.dtype} if args.python else {}
    try:
        for peer in peers.values():
            peer.time("view")
            peer.time("first")
        for number in range(args.rounds):
            for storage in args.ours:
                report = ours(args, shape, storage)
                for name in ("view", "first_token", "second_token"):
                    found.setdefault((storage, name), []).append(report[f"{name}_seconds"])
            for dtype, peer in peers.items():
                for name, what in (("view", "view"), ("first_token", "first")):
                    found.setdefault((f"torch {dtype}", name), []).append(peer.time(what))
            for kind in args.llama_types if args.llama else []:
                found.setdefault((f"llama.cpp {kind}", "view"), []).append(llama(args, shape, kind))
            print(f"{shape} round {number + 1}: " + ", ".join(
                f"{who} {name} {values[-1]:.3f}" for (who, name), values in found.items()), file=sys.stderr)
    finally:
        for peer in peers.values():
            peer.close()
    return found


def markdown(args, results):
    """The table as it goes into the documentation: ratios are to the fastest of torch."""
    lines = ["| shape | numbers | view | ratio | first token | ratio | second question | times sooner |",
             "|---|---|---|---|---|---|---|---|"]
    for shape, found in results.items():
        medians = {key: statistics.median(values) for key, values in found.items()}

        def best(name):
            values = [value for (who, n), value in medians.items() if who not in args.ours and n == name]
            return min(values, default=None)

        def cells(who, name):
            value, peer = medians[who, name], best(name)
            return [f"{value:.3f}", "–" if peer is None else f"{peer / value:.2f}"]

        for storage in args.ours:
            first, second = medians[storage, "first_token"], medians[storage, "second_token"]
            lines.append("| " + " | ".join([
                shape, storage, *cells(storage, "view"), *cells(storage, "first_token"), f"{second:.3f}",
                f"{first / second:.0f}"]) + " |")
        for who in (f"torch {dtype}" for dtype in args.dtype if args.python):
            lines.append("| " + " | ".join([shape, who, *cells(who, "view"), *cells(who, "first_token"), "", ""]) + " |")
        for who in (f"llama.cpp {kind}" for kind in args.llama_types if args.llama):
            lines.append("| " + " | ".join([shape, who, *cells(who, "view"), "", "", "", ""]) + " |")
    return "\n".join(lines)


def main():
    words = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfm2", default=os.environ.get("LFM2", "lfm2"), help="our command")
    parser.add_argument("--python", help="a Python with torch and transformers")
    parser.add_argument("--shape", type=words, default=["lfm2-vl-450m", "lfm2-vl-1.6b"], help="with commas")
    parser.add_argument("--ours", type=words, default=["f32", "bf16", "q8_0"], help="our weights, with commas")
    parser.add_argument("--dtype", type=words, default=["f32", "bf16"], help="torch's numbers, with commas")
    parser.add_argument("--llama", help="the folder of llama.cpp's programs")
    parser.add_argument("--llama-files", type=Path, help="where its files are, or are written")
    parser.add_argument("--llama-types", type=words, default=["q8_0", "f16"], help="llama.cpp's weights, with commas")
    parser.add_argument("--picture", choices=["1280x1024", "512x512"], default="1280x1024", help="512x512 is one view: a quick look")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the same for both")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    args = parser.parse_args()
    results = {shape: measure(args, shape) for shape in args.shape}
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, medians of {args.rounds} rounds, seconds\n")
    print(markdown(args, results))
    if args.out:
        runs = {shape: {f"{who} {name}": values for (who, name), values in found.items()} for shape, found in results.items()}
        args.out.write_text(json.dumps({"threads": args.threads, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
