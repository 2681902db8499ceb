#!/usr/bin/env python3
"""LFM2-ColBERT beside PyLate: documents of 256 tokens and a query of 32, every contender in turn.

    scripts/bench/run.sh colbert --peer PYTHON --models DIR

PYTHON is one with pylate; DIR gets random weights of LFM2.5-ColBERT-350M's shape (1.7 GB). Figures are
medians over rounds, and every round begins with another contender. The cosine is that of our vectors
with PyLate's in f32: least of the means over documents and query.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from compare import THREAD_VARIABLES

HERE = Path(__file__).resolve().parent
WORDS = ("water stone river light engine paper garden winter silver music letter window market bridge ocean "
         "forest signal valley number shadow copper island morning harbour machine library thunder village").split()


@dataclass(frozen=True)
class Contender:
    """A program with weights of one type; PyLate with one size of batch."""

    name: str
    ours: bool
    folder: str
    options: tuple = ()

    def command(self, args, vectors):
        texts = ["--texts", args.models / "texts.txt", "--vectors", vectors]
        model = ["--model", args.models / self.folder, *texts, *self.options]
        if self.ours:
            return [args.compare, "colbert", *model]
        return [args.peer, HERE / "pylate_peer.py", "time", "--threads", str(args.threads), *model]


def contenders(batches):
    ours = [Contender(f"lfm2 {name}", True, folder, options) for name, folder, options in (
        ("f32", "f32", ()), ("bf16", "bf16", ()),
        ("q8_0", "bf16", ("--type", "q8_0")), ("q4_0", "bf16", ("--type", "q4_0")))]
    peers = [Contender(f"PyLate {folder}, {batch} a batch", False, folder, ("--batch", str(batch)))
             for folder in ("f32", "bf16") for batch in batches]
    return ours + peers


def texts(documents):
    """A query, and documents long enough to be cut at 256 tokens, by a fixed recurrence."""
    state = 1

    def text(count):
        nonlocal state
        words = []
        for _ in range(count):
            state = (state * 1103515245 + 12345) % 2**31
            words.append(WORDS[(state >> 8) % len(WORDS)])
        return " ".join(words)

    return "\n".join([text(12), *(text(400) for _ in range(documents))]) + "\n"


def prepare(args):
    args.models.mkdir(parents=True, exist_ok=True)
    path = args.models / "texts.txt"
    path.write_text(texts(args.documents))
    if not (args.models / "bf16" / "modules.json").exists():
        print("writing random weights", file=sys.stderr)
        writer = [args.peer, HERE / "pylate_peer.py", "write", "--out", args.models, "--texts", path]
        subprocess.run(writer, check=True, stdout=subprocess.DEVNULL)


def measure(contender, args):
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false")
    environment |= {name: str(args.threads) for name in THREAD_VARIABLES}
    command = contender.command(args, args.models / f"{contender.name.replace(' ', '-')}.safetensors")
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{contender.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(path):
    """The rows of the one f32 matrix in a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])["vectors"]
    assert header["dtype"] == "F32", header
    begin, end = header["data_offsets"]
    values = memoryview(data[8 + length + begin:8 + length + end]).cast("f")
    width = header["shape"][1]
    return [values[row:row + width] for row in range(0, len(values), width)]


def cosine(found, expected):
    """The mean over all rows, and the least of one."""
    assert len(found) == len(expected), (len(found), len(expected))
    each = []
    for a, b in zip(found, expected):
        dot = sum(x * y for x, y in zip(a, b))
        each.append(dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)
    return statistics.fmean(each), min(each)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python with pylate")
    parser.add_argument("--models", type=Path, required=True, help="folder for weights, texts and vectors")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--documents", type=int, default=32, help="documents of a run [32]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,8,32", help="sizes of PyLate's batches [1,8,32]")
    parser.add_argument("--out", type=Path, help="where the figures are kept, as JSON")
    args = parser.parse_args()
    args.compare = os.environ.get("LFM2_COMPARE", "lfm2-compare")
    prepare(args)

    everyone = contenders([int(batch) for batch in args.batches.split(",")])
    figures = {contender: [] for contender in everyone}
    for turn in range(args.rounds):
        first = turn % len(everyone)
        for contender in everyone[first:] + everyone[:first]:
            figures[contender].append(measure(contender, args))
            print(f"round {turn + 1}: {contender.name}: {figures[contender][-1]}", file=sys.stderr)

    def median(contender, key):
        return statistics.median(run[key] for run in figures[contender])

    peers = [contender for contender in everyone if not contender.ours]
    fastest = max(median(peer, "documents_per_second") for peer in peers)
    quickest = min(median(peer, "query_seconds") for peer in peers)
    exact = next(peer for peer in peers if peer.folder == "f32")
    expected = rows(args.models / f"{exact.name.replace(' ', '-')}.safetensors")
    print("| | documents/s | to the best PyLate | query, ms | to the best PyLate | cosine | least |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for contender in everyone:
        documents, query = median(contender, "documents_per_second"), median(contender, "query_seconds")
        found = rows(args.models / f"{contender.name.replace(' ', '-')}.safetensors")
        mean, least = cosine(found, expected)
        print(f"| {contender.name} | {documents:.2f} | {documents / fastest:.2f} | {1000 * query:.1f} "
              f"| {query / quickest:.2f} | {mean:.5f} | {least:.5f} |")
        results.append({"contender": contender.name, "documents_per_second": documents, "query_seconds": query,
                        "cosine": mean, "least_cosine": least, "runs": figures[contender]})
    if args.out:
        args.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
