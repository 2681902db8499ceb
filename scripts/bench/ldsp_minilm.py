"""Embeds the published LDSP pairs with a BERT-style sentence encoder, for the study of all ten sets.

usage: ldsp_minilm.py --model FOLDER_OR_ID --pairs DIR --out DIR

DIR of --pairs holds NAME_ldsps.csv files (not ours, so not here). For each of the ten, OUT gets
NAME.safetensors (first, second: token means of the last layer, special tokens included, not normalised;
train_index, test_index: scikit-learn's split) and NAME.json (pairs, dims). Then:

LFM2_MINILM=OUT LFM2_GOLDEN=... cargo test -p lfm2-analysis --test golden minilm
scripts/bench/ldsp.py --embeddings OUT

Needs torch, transformers, scikit-learn, safetensors.
"""
import argparse, csv, json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.model_selection import train_test_split
from transformers import AutoModel, AutoTokenizer

NAMES = "control synonym quantity tense intensifier voice definiteness factuality polarity negation".split()


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = [[(cell or "").strip() for cell in (row["Sentence1"], row["Sentence2"])] for row in csv.DictReader(file)]
    return [row for row in rows if all(row)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True); ap.add_argument("--pairs", required=True); ap.add_argument("--out", required=True)
    a = ap.parse_args()
    tokenizer, model = AutoTokenizer.from_pretrained(a.model), AutoModel.from_pretrained(a.model).float().eval()

    @torch.no_grad()
    def embed(sentences):
        rows = []
        for start in range(0, len(sentences), 32):
            batch = tokenizer(sentences[start:start + 32], padding=True, truncation=True, max_length=256, return_tensors="pt")
            mask = batch["attention_mask"][..., None].float()
            rows.append(((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(rows).astype(np.float32)

    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        rows = read(Path(a.pairs) / f"{name}_ldsps.csv")
        first, second = (embed([row[side] for row in rows]) for side in (0, 1))
        train, test = train_test_split(np.arange(2 * len(rows)), test_size=0.2, random_state=42)
        save_file(dict(first=first, second=second, train_index=train.astype(np.int64), test_index=test.astype(np.int64)),
                  out / f"{name}.safetensors")
        (out / f"{name}.json").write_text(json.dumps(dict(pairs=len(rows), dims=first.shape[1])))
        print(name, first.shape, flush=True)


main()
