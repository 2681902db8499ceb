"""Golden values for the analysis of embedding dimensions (LDSP, EDI), by numpy, scipy and scikit-learn.

usage: make_ldsp.py --seed 1 --out DIR

Paired embeddings with planted, tied, half equal and wholly equal dimensions, and small samples for the exact
signed-rank test. Every case is NAME.safetensors (inputs and vectors) and NAME.json (numbers and lists);
`exact_*` is from fits converged to 1e-10, the rest from scikit-learn's own.
"""
import argparse, json, os, warnings
import numpy as np
from scipy import stats
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, accuracy_score
from sklearn.feature_selection import RFE
from sklearn.model_selection import train_test_split

warnings.filterwarnings("ignore")
W_MI, W_WILCOXON, W_RFE = 0.2, 0.6, 0.2
EPS = 1e-15


# ---------------------------------------------------------------- Wilcoxon
def wilcoxon_formula(d):
    """Signed-rank test, zeros dropped, mid-ranks, no continuity correction, two-sided.
    Returns (statistic=min(R+,R-), R+, R-, n, tie_term, z, p_normal)."""
    d = d[d != 0]
    n = len(d)
    if n == 0:
        return 0.0, 0.0, 0.0, 0, 0.0, float("nan"), float("nan")
    r = stats.rankdata(np.abs(d))
    rp, rm = r[d > 0].sum(), r[d < 0].sum()
    _, c = np.unique(np.abs(d), return_counts=True)
    tie = float((c.astype(float) ** 3 - c).sum())
    mean = n * (n + 1) / 4
    var = (n * (n + 1) * (2 * n + 1) - tie / 2) / 24
    t = min(rp, rm)
    z = (t - mean) / np.sqrt(var)
    return t, rp, rm, n, tie, z, float(2 * stats.norm.sf(abs(z)))


def wilcoxon_all(diff):
    D = diff.shape[1]
    out = {k: np.zeros(D) for k in ("stat", "rplus", "rminus", "n", "tie", "z", "p", "scipy_stat", "scipy_p")}
    for j in range(D):
        t, rp, rm, n, tie, z, p = wilcoxon_formula(diff[:, j])
        for k, v in zip(("stat", "rplus", "rminus", "n", "tie", "z", "p"), (t, rp, rm, n, tie, z, p)):
            out[k][j] = v
        try:
            res = stats.wilcoxon(diff[:, j])
            out["scipy_stat"][j], out["scipy_p"][j] = res.statistic, res.pvalue
        except ValueError:
            out["scipy_stat"][j], out["scipy_p"][j] = np.nan, np.nan
    return out


def benjamini_hochberg(p):
    """Step-up adjusted p-values; a NaN counts as 1."""
    p = np.where(np.isnan(p), 1.0, p)
    m = len(p)
    order = np.argsort(p, kind="stable")
    q = p[order] * m / np.arange(1, m + 1)
    q = np.minimum.accumulate(q[::-1])[::-1]
    out = np.empty(m)
    out[order] = np.minimum(q, 1.0)
    return out


# ---------------------------------------------------------------- mutual information
def mutual_information(X, y, n_edges=10):
    """n_edges quantile edges (linear interpolation) give n_edges-1 intervals; the maximum falls in a bin of its own."""
    mi, edges = np.zeros(X.shape[1]), np.zeros((X.shape[1], n_edges))
    for j in range(X.shape[1]):
        e = np.quantile(X[:, j], np.linspace(0, 1, n_edges))
        edges[j] = e
        mi[j] = mutual_info_score(y, np.digitize(X[:, j], e))
    return mi, edges


# ---------------------------------------------------------------- logistic regression
def logistic(X, y, tol=None):
    if tol is None:
        return LogisticRegression(random_state=0, max_iter=1000).fit(X, y)
    return LogisticRegression(random_state=0, max_iter=100000, tol=tol).fit(X, y)


def objective(clf, X, y, C=1.0):
    w, b = clf.coef_[0], clf.intercept_[0]
    z = X @ w + b
    s = np.where(y == 1, 1.0, -1.0)
    return float(C * np.logaddexp(0, -s * z).sum() + 0.5 * w @ w)


def eliminate_exact(X, y, keep):
    """RFE with tightly converged fits (independent of any solver tolerance)."""
    left = list(range(X.shape[1]))
    order = []
    while len(left) > keep:
        c = logistic(X[:, left], y, tol=1e-10).coef_[0]
        k = int(np.argmin(c ** 2))
        order.append(left.pop(k))
    return left, order


# ---------------------------------------------------------------- EDI
def minmax(v):
    lo, hi = v.min(), v.max()
    return (v - lo) / (hi - lo) if hi > lo else np.zeros_like(v)


def edi(mi, p_adj, sel, imp, D):
    r = np.zeros(D)
    r[sel] = imp
    a, b, c = minmax(mi), minmax(-np.log(p_adj + EPS)), minmax(r)
    return W_MI * a + W_WILCOXON * b + W_RFE * c, a, b, c


# ---------------------------------------------------------------- one whole case
def analyse(A, B, keep, low_n):
    """A, B: (n, D) embeddings of first and second sentences."""
    n, D = A.shape
    A, B = A.astype(np.float64), B.astype(np.float64)
    w = wilcoxon_all(A - B)
    p = np.where(np.isnan(w["p"]), 1.0, w["p"])
    p_adj = benjamini_hochberg(p)
    X = np.concatenate([A, B]); y = np.concatenate([np.zeros(n, int), np.ones(n, int)])
    mi, edges = mutual_information(X, y)
    idx = np.arange(2 * n)
    tr, te = train_test_split(idx, test_size=0.2, random_state=42)
    rfe = RFE(LogisticRegression(random_state=0, max_iter=1000), n_features_to_select=keep).fit(X[tr], y[tr])
    sel = np.where(rfe.support_)[0]
    clf = logistic(X[tr][:, sel], y[tr])
    imp = np.abs(clf.coef_[0])
    rfe_acc = accuracy_score(y[te], clf.predict(X[te][:, sel]))
    score, s_mi, s_w, s_r = edi(mi, p_adj, sel, imp, D)
    order = np.argsort(-score, kind="stable")
    base_clf = logistic(X[tr], y[tr])
    base = accuracy_score(y[te], base_clf.predict(X[te]))
    inc = []
    for k in range(1, D + 1):
        c = order[:k]
        a = accuracy_score(y[te], logistic(X[tr][:, c], y[tr]).predict(X[te][:, c]))
        inc.append(a)
        if a >= 0.95 * base:
            break
    low = order[::-1][:low_n]
    low_acc = accuracy_score(y[te], logistic(X[tr][:, low], y[tr]).predict(X[te][:, low]))
    ptr, pte = train_test_split(np.arange(n), test_size=0.2, random_state=42)      # both sentences of a pair on one side
    gtr, gte = np.concatenate([ptr, ptr + n]), np.concatenate([pte, pte + n])

    def pair_split(c):
        return accuracy_score(y[gte], logistic(X[gtr][:, c], y[gtr]).predict(X[gte][:, c]))

    ten = dict(
        pair_train=ptr.astype(np.int64), pair_test=pte.astype(np.int64),
        wilcoxon_statistic=w["stat"], wilcoxon_rplus=w["rplus"], wilcoxon_rminus=w["rminus"], wilcoxon_n=w["n"],
        wilcoxon_tie=w["tie"], wilcoxon_z=np.nan_to_num(w["z"]), wilcoxon_p_normal=p, wilcoxon_p_bh=p_adj,
        scipy_p=np.nan_to_num(w["scipy_p"], nan=1.0), mean_difference=(A - B).mean(0), mutual_information=mi,
        quantile_edges=edges, score_mi=s_mi, score_wilcoxon=s_w, score_rfe=s_r, edi=score,
        rfe_selected=sel.astype(np.int64), rfe_importance=imp, rfe_ranking=rfe.ranking_.astype(np.int64),
        edi_order=order.astype(np.int64), train_index=tr.astype(np.int64), test_index=te.astype(np.int64),
        incremental_accuracy=np.array(inc))
    js = dict(pairs=n, dims=D, keep=keep, low_n=low_n, split="80/20, indices in the tensors", rfe_accuracy=rfe_acc,
              baseline_accuracy=base, low_edi_accuracy=low_acc, dims_to_95_percent=len(inc), accuracy_there=inc[-1],
              bh_significant_005=int((p_adj < 0.05).sum()), saturated_wilcoxon=int((s_w >= 1 - 1e-12).sum()),
              pair_split_baseline=pair_split(np.arange(D)), pair_split_low_edi=pair_split(low), pair_split_top10=pair_split(order[:10]),
              edi_above_08=int((score > 0.8).sum()), top_dimension=int(order[0]), top_edi=float(score[order[0]]))
    left, elim = eliminate_exact(X[tr], y[tr], keep)
    tight = logistic(X[tr][:, left], y[tr], tol=1e-10)
    full = logistic(X[tr], y[tr], tol=1e-10)
    ten.update(exact_selected=np.array(left, np.int64), exact_elimination_order=np.array(elim, np.int64),
               exact_importance=np.abs(tight.coef_[0]), exact_full_coef=full.coef_[0],
               exact_full_intercept=full.intercept_)
    js.update(exact_objective_selected=objective(tight, X[tr][:, left], y[tr]),
              exact_objective_full=objective(full, X[tr], y[tr]),
              exact_accuracy_full=accuracy_score(y[te], full.predict(X[te])),
              exact_accuracy_selected=accuracy_score(y[te], tight.predict(X[te][:, left])))
    s2, _, _, r2 = edi(mi, p_adj, left, np.abs(tight.coef_[0]), D)
    ten.update(exact_edi=s2, exact_score_rfe=r2)
    return ten, js


def write(out, name, ten, js):
    save_file({k: np.ascontiguousarray(v) for k, v in ten.items()}, os.path.join(out, name + ".safetensors"))
    with open(os.path.join(out, name + ".json"), "w") as f:
        json.dump(js, f, indent=1)
    print(name, js)


def synthetic(seed, n, D, shift):
    """Correlated Gaussian embeddings; planted dimensions get a mean shift between the two sentences."""
    g = np.random.default_rng(seed)
    mix = g.normal(size=(D, D)) / np.sqrt(D) * 0.6 + np.eye(D) * 0.8
    base = g.normal(size=(n, D)) @ mix
    A = base + 0.35 * g.normal(size=(n, D))
    B = base + 0.35 * g.normal(size=(n, D))
    dims = g.permutation(D)
    strong, weak = dims[:4], dims[4:9]
    B[:, strong] += shift * g.choice([-1, 1], size=4)
    B[:, weak] += 0.3 * shift * g.choice([-1, 1], size=5)
    same, ties, halves = dims[9], dims[10], dims[11]
    B[:, same] = A[:, same]                                   # all differences zero
    A[:, ties], B[:, ties] = np.round(A[:, ties], 1), np.round(B[:, ties], 1)      # ties and zeros
    k = n // 2
    B[:k, halves] = A[:k, halves]                             # half of the differences zero
    return A.astype(np.float32), B.astype(np.float32), dict(strong=strong.tolist(), weak=weak.tolist(),
            identical=int(same), tied=int(ties), half_zero=int(halves))


def exact_small(seed, out):
    """n <= 50 without ties or zeros: the exact null distribution of the signed-rank sum."""
    g = np.random.default_rng(seed + 500)
    rows, ten = [], {}
    for i, n in enumerate((5, 8, 13, 20, 30, 50)):
        d = g.normal(size=n) + (0.0 if i % 2 else 0.6)
        res = stats.wilcoxon(d)
        f = wilcoxon_formula(d)
        ten[f"d{i}"] = d
        rows.append(dict(n=n, statistic=float(res.statistic), p_exact=float(res.pvalue), p_normal=f[6], rplus=float(f[1])))
    write(out, "wilcoxon_exact", ten, dict(cases=rows))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=1); ap.add_argument("--out", required=True)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    exact_small(a.seed, a.out)
    for name, n, D, shift, keep, low in (("synthetic_small", 60, 24, 1.6, 6, 8), ("synthetic_medium", 300, 64, 1.1, 20, 20),
                                         ("synthetic_hard", 150, 48, 0.4, 10, 16)):
        A, B, planted = synthetic(a.seed * 7 + n, n, D, shift)
        ten, js = analyse(A, B, keep, low)
        ten.update(first=A, second=B); js["planted"] = planted
        write(a.out, name, ten, js)


main()
