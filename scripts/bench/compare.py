#!/usr/bin/env python3
"""Speed beside llama.cpp, Candle and torch: every contender in turn, round by round.

    scripts/bench/run.sh --models DIR --shape lfm2-1.2b --llama DIR

The clock, the caches and the other guests of a machine change over minutes, so programs that run one
after the other measure the machine as much as themselves. Here every round runs every contender once
per test, and begins with another one each time; figures are medians over the rounds. Beside each
decode figure of ours stands how fast memory could be read in the same process right then.

Tests: ppN reads a prompt of N tokens, tgN decodes N tokens, tgNxR does so for R sequences at once;
@D behind D tokens; +busy while another process keeps one processor busy. `first` is the time in
seconds from nothing to the first token of a prompt of 8 tokens, the file being in memory already.

Runs during which other programs took more than a twentieth of the machine are marked with a star and
left out of the medians as long as half of the runs remain.

Only the standard library is needed, and for `--torch` a Python with torch and transformers.
"""
import argparse
import json
import os
import platform
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Bits per weight, roughly: a contender's peers have at least as many.
BITS = {"q4_0": 4, "q4_k_m": 4, "q8_0": 8, "bf16": 16, "f16": 16, "f32": 32}
# What is compared on each kind of file; candle-transformers reads dense weights from folders only.
GGUF, FOLDER = "gguf", "folder"
FOREIGN_SHARE = 0.05
# What tells each of the programs and their libraries how many threads to use.
THREAD_VARIABLES = ("LFM2_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "OMP_NUM_THREADS",
                    "MKL_NUM_THREADS")
# glibc gives large blocks back to the system at once and every pass faults them in again.
KEEP_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"


@dataclass(frozen=True)
class Test:
    """One of `pp512`, `tg128@4096`, `tg64x8`, `tg128+busy`, `first`."""

    name: str
    kind: str
    tokens: int = 0
    rows: int = 1
    depth: int = 0
    busy: bool = False

    @staticmethod
    def parse(name):
        if name == "first":
            return Test(name, "first", tokens=8)
        found = re.fullmatch(r"(pp|tg)(\d+)(?:x(\d+))?(?:@(\d+))?(\+busy)?", name)
        if not found or (found[1] == "pp" and found[3]):
            raise argparse.ArgumentTypeError(f"expected a test such as pp512, tg128@4096 or tg64x8, found {name!r}")
        return Test(name, found[1], int(found[2]), int(found[3] or 1), int(found[4] or 0), bool(found[5]))

    @property
    def lower_is_better(self):
        return self.kind == "first"


@dataclass
class Contender:
    """A program on a file."""

    program: str
    variant: str
    format: str
    model: Path
    env: dict = field(default_factory=dict)

    @property
    def name(self):
        return " ".join(part for part in (self.program, self.format, self.variant) if part)


class Unsupported(Exception):
    """The program has no such test."""


def command(contender, test, args):
    """The command line of a run."""
    model, threads = str(contender.model), str(args.threads)
    if contender.program == "lfm2":
        prompt, tokens = (test.tokens, 0) if test.kind in ("pp", "first") else (0, test.tokens)
        reading = "1024" if test.kind == "tg" else "0"
        return [args.lfm2, "bench", "--model", model, "--prompt-tokens", str(prompt), "--gen-tokens", str(tokens),
                "--depth", str(test.depth), "--batch", str(test.rows), "--kv-type", "f16", "--repeat", "1",
                "--reading", reading, "--threads", threads, "--json", *args.lfm2_args]
    if contender.program == "llama.cpp":
        repack = "0" if contender.variant == "no-repack" else "1"
        if test.rows > 1:
            line = [str(args.llama / "llama-batched-bench"), "-m", model, "-t", threads, "-tb", threads,
                    "-npp", str(max(test.depth, 1)), "-ntg", str(test.tokens), "-npl", str(test.rows),
                    "-c", str(test.rows * (test.depth + test.tokens + 64)), "--output-format", "jsonl"]
            return line + (["--no-repack"] if repack == "0" else [])
        line = [str(args.llama / "llama-bench"), "-m", model, "-t", threads, "-r", "1", "-o", "json", "--repack", repack]
        line += ["-p", str(test.tokens), "-n", "0"] if test.kind in ("pp", "first") else ["-p", "0", "-n", str(test.tokens)]
        line += ["-d", str(test.depth)] if test.depth else []
        return line + (["--no-warmup"] if test.kind == "first" else [])
    if test.rows > 1:
        raise Unsupported("one sequence only")
    own = ["--model", model, "--kind", test.kind, "--tokens", str(test.tokens), "--depth", str(test.depth)]
    if contender.program == "candle":
        return [args.candle, "candle", *own]
    return [args.torch, str(HERE / "torch_peer.py"), *own, "--threads", threads]


def figure(contender, test, output, wall):
    """What a run's output says: tokens per second, or seconds for `first`."""
    if contender.program == "lfm2":
        report = json.loads(output)
        found = report["tests"][0]
        extra = {key: found[key] for key in ("bytes_per_pass", "read_gb_per_second", "share_of_read", "share_of_peak")}
        extra |= {key: report[key] for key in ("load_seconds", "first_token_seconds", "peak_memory_bytes")}
        return (report["first_token_seconds"] if test.kind == "first" else found["tokens_per_second"]), extra
    if contender.program == "llama.cpp":
        if test.kind == "first":
            return wall, {}
        if test.rows > 1:
            lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
            return lines[-1]["speed_tg"], {}
        return json.loads(output)[0]["avg_ts"], {}
    report = json.loads(output.strip().splitlines()[-1])
    return (report["first_token_seconds"] if test.kind == "first" else report["tps"]), {}


def machine_times():
    """Seconds that the processors have worked so far, and that they lent to other guests; zero where unknown."""
    try:
        numbers = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, steal = numbers
    return (user + nice + system + irq + softirq) / tick, steal / tick


def child_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(contender, test, args):
    """One run; None when the program cannot do this test or fails."""
    try:
        line = command(contender, test, args)
    except Unsupported:
        return None
    threads = str(args.threads)
    env = os.environ | {"RUST_BACKTRACE": "0"} | {name: threads for name in THREAD_VARIABLES}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if test.busy else None
    (worked, stolen), own, begun = machine_times(), child_seconds(), time.monotonic()
    try:
        done = subprocess.run(line, capture_output=True, text=True, env=env | contender.env, timeout=args.timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{contender.name} {test.name}: {error}", file=sys.stderr)
        return None
    finally:
        wall = time.monotonic() - begun
        (worked_now, stolen_now), own_now = machine_times(), child_seconds()
        if busy:
            busy.kill()
            busy.wait()
    if done.returncode != 0:
        print(f"{contender.name} {test.name}: exit {done.returncode}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    try:
        value, extra = figure(contender, test, done.stdout, wall)
    except (ValueError, KeyError, IndexError) as error:
        print(f"{contender.name} {test.name}: no figure ({error!r}) in {done.stdout[-300:]!r}", file=sys.stderr)
        return None
    others = max(0.0, worked_now - worked - (own_now - own)) + (stolen_now - stolen)
    share = others / max(wall * (os.cpu_count() or 1), 1e-9)
    return {"value": value, "wall": wall, "foreign": 0.0 if test.busy else share, **extra}


def ensure_model(args, shape, form, kind):
    """The file or folder with random weights of a shape, made when it is not there; None where nobody can."""
    path = args.models / (f"{shape}-{form}.gguf" if kind == GGUF else f"{shape}-{form}")
    if path.exists():
        return path
    args.models.mkdir(parents=True, exist_ok=True)
    print(f"writing {path}", file=sys.stderr)
    if form == "q4_k_m":
        # A mix of types that only llama.cpp's own program makes.
        if not args.llama:
            return None
        dense = ensure_model(args, shape, "bf16", GGUF)
        line = [str(args.llama / "llama-quantize"), str(dense), str(path), "Q4_K_M", str(args.threads)]
    else:
        line = [args.candle, "weights", "--shape", shape, "--type", form, str(path)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if form == "q4_k_m" else None)
    return path


def contenders(args, shape):
    """Everyone who takes part in the comparison of a shape."""
    found = []
    for form in args.formats:
        gguf = ensure_model(args, shape, form, GGUF)
        if gguf:
            found.append(Contender("lfm2", "", form, gguf))
            if args.llama:
                found.append(Contender("llama.cpp", "", form, gguf))
                if form.startswith("q4"):
                    found.append(Contender("llama.cpp", "no-repack", form, gguf))
        dense = form in ("bf16", "f32")
        folder = ensure_model(args, shape, form, FOLDER) if dense and (args.with_candle or args.torch) else None
        if args.with_candle:
            model = folder if dense else gguf
            if model:
                found.append(Contender("candle", "", form, model))
                found.append(Contender("candle", "keep-memory", form, model, {"GLIBC_TUNABLES": KEEP_MEMORY}))
        if args.torch and folder:
            found.append(Contender("torch", "", form, folder))
    return [c for c in found if not args.only or any(word in c.name for word in args.only)]


def measure(args, shape):
    """All runs: contender name -> test name -> list of runs."""
    crew = contenders(args, shape)
    results = {c.name: {"contender": c, "tests": {}} for c in crew}
    failed = set()
    for number in range(args.rounds):
        for test in args.tests:
            shift = number % max(len(crew), 1)
            for c in crew[shift:] + crew[:shift]:
                if (c.name, test.name) in failed:
                    continue
                result = run(c, test, args)
                if result is None:
                    failed.add((c.name, test.name))
                    continue
                results[c.name]["tests"].setdefault(test.name, []).append(result)
                star = "*" if result["foreign"] > FOREIGN_SHARE else ""
                print(f"{shape} round {number + 1} {test.name} {c.name}: {result['value']:.2f}{star}", file=sys.stderr)
                time.sleep(args.pause)
    return results


def kept(runs):
    """The runs without foreign load, or all when they are too few."""
    quiet = [r for r in runs if r["foreign"] <= FOREIGN_SHARE]
    return quiet if 2 * len(quiet) >= len(runs) else runs


def median(runs, key="value"):
    values = [r[key] for r in kept(runs or []) if r.get(key) is not None]
    return statistics.median(values) if values else None


def best(results, test, accept):
    """The name and the median of the best contender that is accepted."""
    found = [(median(entry["tests"].get(test.name)), name) for name, entry in results.items() if accept(entry["contender"])]
    found = [(value, name) for value, name in found if value is not None]
    if not found:
        return None, None
    return (min if test.lower_is_better else max)(found)


def row(results, entry, test):
    """One line of the table: ours beside the best of every peer."""
    runs = entry["tests"].get(test.name)
    ours = median(runs)
    if ours is None:
        return None
    bits = BITS[entry["contender"].format]

    def peer(program):
        return best(results, test, lambda c: c.program != "lfm2" and BITS[c.format] >= bits and program in ("", c.program))

    def ratio(value):
        return None if value is None else (value / ours if test.lower_is_better else ours / value)

    value, name = peer("")
    values = [r["value"] for r in kept(runs)]
    return {
        "format": entry["contender"].format, "test": test.name, "ours": ours, "least": min(values), "most": max(values),
        "peer": value, "peer_name": name, "ratio": ratio(value),
        "programs": {program: ratio(peer(program)[0]) for program in ("llama.cpp", "candle", "torch")},
        "read_gb_per_second": median(runs, "read_gb_per_second"), "share_of_read": median(runs, "share_of_read"),
        "share_of_peak": median(runs, "share_of_peak"), "peak_memory_bytes": median(runs, "peak_memory_bytes"),
        "marked": kept(runs) is runs and any(r["foreign"] > FOREIGN_SHARE for r in runs),
    }


def rows(results, tests):
    ours = [entry for entry in results.values() if entry["contender"].program == "lfm2"]
    found = [row(results, entry, test) for entry in ours for test in tests]
    return [r for r in found if r]


def markdown(shape, table):
    """The table as it goes into the documentation."""
    def cell(value, form="{:.2f}"):
        return "–" if value is None else form.format(value)

    lines = [f"### {shape}", "",
             "| | test | ours | best peer | ratio | llama.cpp | Candle | torch | readable GB/s | share | of peak |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in table:
        star = "\\*" if r["marked"] else ""
        peer = "–" if r["peer"] is None else f"{r['peer']:.4g} ({r['peer_name']})"
        percent = "{:.0%}"
        of_peak = r["share_of_peak"] if r["test"].startswith("pp") else None
        lines.append("| " + " | ".join([
            r["format"], r["test"] + star, f"{r['ours']:.4g} [{r['least']:.4g}–{r['most']:.4g}]", peer, cell(r["ratio"]),
            *(cell(r["programs"][program]) for program in ("llama.cpp", "candle", "torch")),
            cell(r["read_gb_per_second"], "{:.1f}"), cell(r["share_of_read"], percent),
            cell(of_peak, percent)]) + " |")
    return "\n".join(lines) + "\n"


def limits(args):
    """What the machine can do at most, as our command measures it."""
    line = [args.lfm2, "bench", "--limits", "--threads", str(args.threads), "--json"]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def processor():
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def llama_version(args):
    if not args.llama:
        return None
    found = subprocess.run([str(args.llama / "llama-bench"), "--version"], capture_output=True, text=True)
    return (found.stdout + found.stderr).strip().splitlines()[0] if found.returncode == 0 else "unknown"


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")
    parser.add_argument("--models", type=Path, required=True, help="folder with SHAPE-TYPE.gguf and SHAPE-TYPE/; what is missing is written")
    parser.add_argument("--shape", type=words, default=["lfm2-350m", "lfm2-1.2b"], help="shapes, with commas")
    parser.add_argument("--formats", type=words, default=["q4_0", "q4_k_m", "q8_0", "bf16"], help="with commas: " + ", ".join(BITS))
    parser.add_argument("--tests", type=lambda text: [Test.parse(t) for t in text.split(",")],
                        default="pp512,pp2048,tg128,tg128@4096", help="with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the same for everyone")
    parser.add_argument("--only", type=words, help="only contenders with one of these words in their name")
    parser.add_argument("--lfm2", default=os.environ.get("LFM2", "lfm2"), help="our command")
    parser.add_argument("--lfm2-args", type=shlex.split, default=[], help="more arguments for `lfm2 bench`")
    parser.add_argument("--llama", type=Path, help="folder with llama-bench, llama-quantize and llama-batched-bench")
    parser.add_argument("--candle", default=os.environ.get("LFM2_COMPARE", "lfm2-compare"), help="the program that run.sh builds")
    parser.add_argument("--no-candle", dest="with_candle", action="store_false")
    parser.add_argument("--torch", help="a Python with torch and transformers")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between runs")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for a run")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    args = parser.parse_args()
    unknown = [form for form in args.formats if form not in BITS]
    if unknown:
        parser.error(f"--formats: unknown {', '.join(unknown)}")
    for program in (args.lfm2, args.candle if args.with_candle else args.lfm2):
        if not shutil.which(program):
            parser.error(f"there is no program {program}; scripts/bench/run.sh builds it")
    return args


def main():
    args = parse_args()
    report = {"processor": processor(), "threads": args.threads, "rounds": args.rounds, "arguments": sys.argv[1:],
              "llama.cpp": llama_version(args), "limits": limits(args), "shapes": {}}
    print(f"{report['processor']}, {args.threads} threads, {args.rounds} rounds\n")
    for shape in args.shape:
        results = measure(args, shape)
        table = rows(results, args.tests)
        print(markdown(shape, table), flush=True)
        runs = {name: entry["tests"] for name, entry in results.items()}
        report["shapes"][shape] = {"table": table, "runs": runs}
        if args.out:
            args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
