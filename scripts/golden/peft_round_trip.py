"""Adapters of PEFT both ways, and merged checkpoints in transformers.

    python peft_round_trip.py LFM2          # the built command

1. A small checkpoint is made with transformers, and adapters are trained on it by `lfm2 train`. PEFT loads them onto the
   checkpoint, and the logits are those of the checkpoint with the adapters added, which `lfm2 train` writes as well.
2. Adapters with random numbers are made and saved by PEFT. `lfm2 merge --adapter` adds them, and the logits of the result are those
   of PEFT.
3. Two such checkpoints are merged by TIES and opened in transformers; the loss of a text is the one that `lfm2 eval perplexity` finds.

Needs torch, transformers 5.23 or newer, and peft. Prints the largest differences and fails above 1e-4.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoTokenizer, Lfm2ForCausalLM

TOLERANCE = 1e-4
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"]
STORIES = Path(__file__).resolve().parents[2] / "data" / "stories"
CONFIG = {
    "architectures": ["Lfm2ForCausalLM"],
    "model_type": "lfm2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "block_auto_adjust_ff_dim": False,
    "conv_L_cache": 3,
    "norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "max_position_embeddings": 512,
}


def lfm2(*words):
    """Runs the command and returns what it prints."""
    done = subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"lfm2 {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def settings(base, steps, **more):
    stories = {"path": str(STORIES / "stories-valid.txt.gz"), "format": "text"}
    return {
        "name": "peft",
        "base": base,
        "data": [stories],
        "steps": steps,
        "micro_batch_tokens": 512,
        "micro_batches": 2,
        "schedule": {"kind": "constant", "peak": 0.01},
        "validate_every": 100,
        "save_every": 100,
        "seed": 3,
        "export_dtype": "f32",
        **more,
    }


def train(name, options):
    path = WORK / f"{name}.json"
    path.write_text(json.dumps(options))
    return Path(lfm2("train", "--config", path, "--out", WORK / name).strip())


def load(folder):
    return Lfm2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def compare(what, first, second):
    difference = (first - second).abs().max().item()
    print(f"{what}: {difference:.2e}")
    if not difference < TOLERANCE:
        sys.exit(f"{what}: expected less than {TOLERANCE}, found {difference}")


def main():
    base = train("base", settings({"fresh": {"vocab_size": 400, "init": {"std": 0.2}, "config": CONFIG}}, 20))
    ids = torch.randint(8, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    plain = logits(load(base), ids)

    lora = {"rank": 4, "alpha": 8, "targets": TARGETS}
    ours = train("ours", settings({"checkpoint": str(base)}, 20, lora=lora))
    read = PeftModel.from_pretrained(load(base), ours / "adapter").eval()
    compare("adapters made here, in peft", logits(read, ids), logits(load(ours), ids))
    if (logits(read, ids) - plain).abs().max() < 100 * TOLERANCE:
        sys.exit("the adapters made here change nothing, so the comparison says nothing")

    torch.manual_seed(5)
    made = get_peft_model(load(base), LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    made.save_pretrained(WORK / "theirs")
    theirs = WORK / "theirs-added"
    lfm2("merge", base, "--adapter", WORK / "theirs", "-o", theirs)
    compare("adapters made by peft, added here", logits(made, ids), logits(load(theirs), ids))

    merged = WORK / "merged"
    lfm2("merge", ours, theirs, "--method", "ties", "--base", base, "-o", merged)
    if load_file(merged / "model.safetensors").keys() != load_file(base / "model.safetensors").keys():
        sys.exit("the merged checkpoint has other tensors")
    text = "One day Anna lost a red ball. A fox helped her."
    (WORK / "text").write_text(text)
    found = json.loads(lfm2("eval", "perplexity", "--data", WORK / "text", "--model", merged, "--json"))
    ids = AutoTokenizer.from_pretrained(merged)(text, return_tensors="pt").input_ids
    loss = torch.nn.functional.cross_entropy(logits(load(merged), ids)[0, :-1], ids[0, 1:])
    compare("loss of a merged checkpoint in transformers and here", loss, torch.tensor(found["loss"]))


if __name__ == "__main__":
    COMMAND = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        WORK = Path(folder)
        main()
