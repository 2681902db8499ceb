"""The study of embedding dimensions beside the same study with scipy and scikit-learn.

usage: ldsp.py [--embeddings DIR] [--pairs DIR] [--dims 384] [--only NAME,NAME] [--skip-reference] [--json FILE]

Both sides read the same files (one NAME.safetensors a property: first and second, pairs x dims, f32) and do
the same work on the same rows: signed-rank tests, mutual information, elimination down to 20 dimensions,
scores, baseline, best dimensions up to 95 %, lowest 100, best 25 of every other property, ten-way
classifier. Without --embeddings, generated pairs (or --pairs, a folder of CSV files) are embedded by hashed
words, which is no language model but has as many numbers. Needs numpy, scipy, scikit-learn, safetensors.

Printed: both tables, the times (by the clock and of all processors together; the latter also holds on a
machine that others use), and the largest difference between accuracies with the published rules.
"""
import argparse, csv, json, os, resource, subprocess, sys, tempfile, time, warnings, zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import stats
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, mutual_info_score
from sklearn.model_selection import train_test_split

warnings.filterwarnings("ignore")
ROOT = Path(__file__).resolve().parents[2]


def hashed(sentence, dims, known={}):
    """A mean of random vectors of words, pairs of words and ends of words."""
    words = sentence.lower().strip(".").split()
    parts = words + [a + "_" + b for a, b in zip(words, words[1:])] + [w[-2:] + "$" for w in words]
    total = np.zeros(dims)
    for part in parts:
        if (part, dims) not in known:
            g = np.random.default_rng(zlib.crc32(part.encode()))
            known[part, dims] = g.normal(size=dims) * (g.random(dims) < 0.15)
        total += known[part, dims]
    return np.tanh(total / max(len(words), 1)) * 0.4


def embed(source, folder, dims):
    for path in sorted(Path(source).glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            rows = [[(cell or "").strip() for cell in (row["Sentence1"], row["Sentence2"])] for row in csv.DictReader(file)]
        rows = [row for row in rows if all(row)]
        sides = [np.array([hashed(row[k], dims) for row in rows], np.float32) for k in (0, 1)]
        save_file(dict(first=sides[0], second=sides[1]), os.path.join(folder, path.stem.removesuffix("_ldsps") + ".safetensors"))


def add_splits(folder):
    """Writes scikit-learn's split into the files, so that both sides learn from the same rows."""
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors = load_file(path)
        if "train_index" not in tensors:
            train, test = train_test_split(np.arange(2 * len(tensors["first"])), test_size=0.2, random_state=42)
            tensors.update(train_index=train.astype(np.int64), test_index=test.astype(np.int64))
            save_file(tensors, path)


# ---------------------------------------------------------------- the reference
def minmax(v):
    return (v - v.min()) / (v.max() - v.min()) if v.max() > v.min() else np.zeros_like(v)


def scores(A, B, X, y, train, keep):
    p = np.array([stats.wilcoxon(A[:, j], B[:, j]).pvalue if (A[:, j] != B[:, j]).any() else 1.0 for j in range(A.shape[1])])
    adjusted = stats.false_discovery_control(p)
    mi = np.array([mutual_info_score(y, np.digitize(x, np.quantile(x, np.linspace(0, 1, 10)))) for x in X.T])
    rfe = RFE(LogisticRegression(random_state=0, max_iter=1000), n_features_to_select=min(keep, X.shape[1])).fit(X[train], y[train])
    left = np.where(rfe.support_)[0]
    weights = np.zeros(X.shape[1])
    weights[left] = np.abs(LogisticRegression(random_state=0, max_iter=1000).fit(X[train][:, left], y[train]).coef_[0])
    edi = 0.2 * minmax(mi) + 0.6 * minmax(-np.log(adjusted + 1e-15)) + 0.2 * minmax(weights)
    return edi, int((adjusted < 0.05).sum()), left


def reference(folder):
    data, table = {}, []
    for path in sorted(Path(folder).glob("*.safetensors")):
        t = load_file(path)
        A, B = t["first"].astype(np.float64), t["second"].astype(np.float64)
        X, y = np.concatenate([A, B]), np.repeat([0, 1], len(A))
        data[path.stem] = dict(X=X, y=y, train=t["train_index"], test=t["test_index"], difference=B - A)
    def accuracy(d, dims):
        fit = LogisticRegression(random_state=0, max_iter=1000).fit(d["X"][d["train"]][:, dims], d["y"][d["train"]])
        return fit.score(d["X"][d["test"]][:, dims], d["y"][d["test"]])
    for name, d in data.items():
        n = len(d["difference"])
        edi, significant, left = scores(d["X"][:n], d["X"][n:], d["X"], d["y"], d["train"], 20)
        d["order"] = order = np.argsort(-edi, kind="stable")
        base, climb = accuracy(d, np.arange(len(edi))), []
        for k in range(1, len(edi) + 1):
            climb.append(accuracy(d, order[:k]))
            if climb[-1] >= 0.95 * base:
                break
        low = order[::-1][: max(min(100, len(edi) // 2), 1)]
        table.append(dict(property=name, baseline=base, low=accuracy(d, low), dims_needed=len(climb), accuracy_there=climb[-1],
                          elimination=accuracy(d, left), significant=significant, above_cut_off=int((edi > 0.8).sum()),
                          top_dimension=int(order[0]), top_edi=float(edi[order[0]])))
        print(f"  {name}", file=sys.stderr, flush=True)
    for row in table:
        others = [accuracy(data[row["property"]], d["order"][:25]) for name, d in data.items() if name not in (row["property"], "control")]
        row["best_cross_accuracy"] = max(others, default=float("nan"))
    if len(data) > 1:
        X = np.concatenate([d["difference"] for d in data.values()])
        y = np.repeat(np.arange(len(data)), [len(d["difference"]) for d in data.values()])
        a, b, c, e = train_test_split(X, y, test_size=0.2, random_state=42)
        found = LogisticRegression(random_state=0, max_iter=1000).fit(a, c).predict(b)
        print(f"reference classifier: accuracy {np.mean(found == e):.4f}, weighted F1 {f1_score(e, found, average='weighted'):.4f}")
    return table


# ---------------------------------------------------------------- ours
def build():
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "lfm2-analysis", "--examples"], cwd=ROOT, check=True)
    metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, capture_output=True)
    return Path(json.loads(metadata.stdout)["target_directory"]) / "release" / "examples"


def clocks(who):
    """Seconds by the clock, and of all processors."""
    used = resource.getrusage(who)
    return np.array([time.perf_counter(), used.ru_utime + used.ru_stime])


def ours(programs, folder, out, *options):
    start = clocks(resource.RUSAGE_CHILDREN)
    done = subprocess.run([programs / "study", folder, out, *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds = clocks(resource.RUSAGE_CHILDREN) - start
    with open(os.path.join(out, "properties.csv"), newline="") as file:
        return list(csv.DictReader(file)), seconds


COLUMNS = ("baseline", "low", "dims_needed", "accuracy_there", "elimination", "best_cross_accuracy", "significant", "above_cut_off", "top_dimension", "top_edi")


def show(title, table, seconds):
    print(f"\n{title}: {seconds[0]:.1f} s, {seconds[1]:.1f} s of processors")
    print("  ".join(f"{c[:14]:>14}" for c in ("property",) + COLUMNS))
    for row in table:
        cell = lambda c: f"{float(row[c]):.4f}" if row[c] not in ("", "none") and c not in ("dims_needed", "significant", "above_cut_off", "top_dimension") else str(row[c])
        print("  ".join(f"{x:>14}" for x in [row["property"]] + [cell(c) for c in COLUMNS]))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--embeddings"); ap.add_argument("--pairs"); ap.add_argument("--dims", type=int, default=384)
    ap.add_argument("--count", type=int, default=1000); ap.add_argument("--only", default=""); ap.add_argument("--json")
    ap.add_argument("--skip-reference", action="store_true")
    a = ap.parse_args()
    programs = build()
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "embeddings")
        os.makedirs(folder)
        only = [name for name in a.only.split(",") if name]
        if a.embeddings:
            for path in Path(a.embeddings).glob("*.safetensors"):
                save_file(load_file(path), os.path.join(folder, path.name))
        else:
            pairs = a.pairs
            if not pairs:
                pairs = os.path.join(scratch, "pairs")
                subprocess.run([programs / "pairs", pairs, str(a.count)], check=True)
            embed(pairs, folder, a.dims)
        for path in Path(folder).glob("*.safetensors"):
            if only and path.stem not in only:
                path.unlink()
        add_splits(folder)
        sound, seconds = ours(programs, folder, os.path.join(scratch, "sound"))
        show("lfm2, default rules", sound, seconds)
        published, published_seconds = ours(programs, folder, os.path.join(scratch, "published"), "--published")
        show("lfm2, published rules", published, published_seconds)
        result = dict(lfm2_seconds=list(seconds), lfm2_published_seconds=list(published_seconds))
        if not a.skip_reference:
            start = clocks(resource.RUSAGE_SELF)
            table = reference(folder)
            reference_seconds = clocks(resource.RUSAGE_SELF) - start
            show("scipy and scikit-learn", table, reference_seconds)
            keys = ("baseline", "low", "accuracy_there", "elimination", "best_cross_accuracy")
            found = {row["property"]: row for row in published}
            pairs = [(row[key], found[row["property"]][key]) for row in table for key in keys]
            worst = max((abs(float(one) - float(other)) for one, other in pairs if other != ""), default=0.0)
            print(f"\nlargest difference between accuracies, published rules: {worst:.4f}")
            for rules, took in (("default", seconds), ("published", published_seconds)):
                ratio = reference_seconds / took
                print(f"faster with the {rules} rules: {ratio[0]:.1f} times by the clock, {ratio[1]:.1f} times by processors")
            result.update(reference_seconds=list(reference_seconds), largest_difference=worst)
        if a.json:
            with open(a.json, "w") as file:
                json.dump(result, file, indent=1)


main()
