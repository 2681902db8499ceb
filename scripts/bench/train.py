#!/usr/bin/env python3
"""Training beside torch: tokens per second of a small hybrid model, every contender in turn.

    scripts/bench/run.sh train --peer PYTHON
    scripts/bench/run.sh train --peer PYTHON --table

PYTHON is one with torch and transformers. The model has 6 blocks of width 96 (four convolutions, two attentions) and
512 tokens; a step is 16 rows of about 160 tokens. Ours are stories, packed; torch's are rows of one length without
padding. Figures are medians over steps, then over rounds. With --table, what a step's time goes into in both.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import THREAD_VARIABLES

HERE = Path(__file__).resolve().parent
STORIES = HERE / "../../data/stories/stories-train.txt.gz"
ROWS, LENGTH, WARM = 16, 160, 5
MODEL = {
    "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "hidden_size": 96, "num_hidden_layers": 6,
    "layer_types": ["conv", "conv", "full_attention", "conv", "full_attention", "conv"],
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 240, "block_auto_adjust_ff_dim": False,
    "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 16, "conv_L_cache": 3, "conv_bias": False, "norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "max_position_embeddings": 1024,
    "tie_word_embeddings": True, "initializer_range": 0.05, "use_cache": True,
}


def run_config(args):
    fresh = {"vocab_size": 512, "init": {"std": 0.05}, "config": MODEL}
    # Every thread has micro-batches of its own.
    batches = max(args.threads, 1)
    return {
        "name": "speed", "base": {"fresh": fresh}, "data": [{"path": str(STORIES.resolve()), "format": "text"}],
        "steps": args.steps, "micro_batch_tokens": ROWS * LENGTH // batches, "micro_batches": batches,
        "schedule": {"kind": "cosine", "peak": 0.002, "floor": 0.0001, "warmup": 10, "total": 1000},
        "clip": 1.0, "validate_every": 10000, "save_every": 10000, "seed": 1,
    }


def environment(args):
    return os.environ | {name: str(args.threads) for name in THREAD_VARIABLES if name != "CANDLE_NUM_THREADS"}


def call(command, args):
    done = subprocess.run([str(part) for part in command], env=environment(args), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def train(folder, args, *more):
    """What a run of ours prints, and its steps."""
    (folder / "run.json").write_text(json.dumps(run_config(args)))
    program = os.environ.get("LFM2", "lfm2")
    with tempfile.TemporaryDirectory(dir=folder) as out:
        printed = call([program, "train", "--config", folder / "run.json", "--out", out, "--threads", args.threads,
                        *more], args)
        lines = map(json.loads, (Path(out) / "metrics.jsonl").read_text().splitlines())
        return printed, [line for line in lines if line["kind"] == "step"]


def ours(folder, args):
    _, steps = train(folder, args)
    return statistics.median(step["tokens"] / step["seconds"] for step in steps[WARM:])


def torch_prints(attention, folder, args, *more):
    (folder / "config.json").write_text(json.dumps(MODEL | {"vocab_size": 512}))
    printed = call([args.peer, HERE / "torch_train_peer.py", "--config", folder / "config.json", "--rows", ROWS,
                    "--length", LENGTH, "--steps", args.steps, "--threads", args.threads,
                    "--attention", attention, *more], args)
    return json.loads(printed.splitlines()[-1])


def torch(attention, folder, args):
    return torch_prints(attention, folder, args)["tokens_per_second"]


# The rows of the table: what is done, our operations, and words in the names of torch's. The first row that fits counts.
OPERATIONS = [
    ("attention", ["attention"], ["bmm", "aten::_softmax", "scaled_dot_product"]),
    ("products with weights", ["matmul", "transpose"], ["aten::mm", "addmm", "aten::linear", "aten::matmul"]),
    ("short convolution", ["short_conv"], ["conv"]),
    ("gated unit", ["silu_mul"], ["silu"]),
    ("loss", ["loss"], ["log_softmax", "nll_loss"]),
    ("norm of gradients, optimiser", ["optimizer"], ["_foreach", "Optimizer", "linalg_vector_norm", "addcdiv", "addcmul"]),
    ("norms", ["rms_norm"], ["pow", "mean", "rsqrt"]),
    ("rotation", ["rope"], ["aten::cat", "aten::neg"]),
    ("copies, sums, everything else", [""], [""]),
]


def by_row(times, column):
    """Shares of the rows of the table."""
    rows = dict.fromkeys((row[0] for row in OPERATIONS), 0.0)
    for operation, time in times.items():
        fits = next(row[0] for row in OPERATIONS if any(word in operation for word in row[column]))
        rows[fits] += time / sum(times.values())
    return rows


def table(folder, args):
    printed, _ = train(folder, args, "--profile")
    cells = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line.startswith("| ")]
    seconds = {cell[1]: float(cell[2]) for cell in cells[1:]}
    events = torch_prints("sdpa", folder, args, "--profile")["operations"]
    mine, theirs = by_row(seconds, 1), by_row(events, 2)
    print("| operation | lfm2 | torch |\n|---|---|---|")
    for name in mine:
        print(f"| {name} | {100 * mine[name]:.0f} % | {100 * theirs[name]:.0f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python with torch and transformers")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=40, help="steps of a run [40]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="the shares of operations instead of speeds")
    args = parser.parse_args()
    if args.table:
        with tempfile.TemporaryDirectory() as folder:
            table(Path(folder), args)
        return
    contenders = [("lfm2", ours), *((f"torch {name}", lambda folder, args, name=name: torch(name, folder, args))
                                    for name in ("eager", "sdpa"))]
    figures = {name: [] for name, _ in contenders}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            first = turn % len(contenders)
            for name, measure in contenders[first:] + contenders[:first]:
                figures[name].append(measure(Path(folder), args))
                print(f"round {turn + 1}: {name}: {figures[name][-1]:.0f} tokens/s", file=sys.stderr)
    medians = {name: statistics.median(runs) for name, runs in figures.items()}
    best = max(speed for name, speed in medians.items() if name != "lfm2")
    print("| | tokens/s | to the best torch |\n|---|---|---|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:.0f} | {speed / best:.2f} |")


if __name__ == "__main__":
    main()
