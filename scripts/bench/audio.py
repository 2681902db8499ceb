#!/usr/bin/env python3
"""Parts of LFM2.5-Audio beside the reference package's, in torch on the same threads: encoder with its adapter
(a clip of 4 seconds), depth model (one frame), detokenizer (one frame; the reference decodes 4 seconds at once).

Weights are random and shapes the released ones. Both sides take turns, round by round. Needs torch, transformers,
einops and the folder that holds the package `liquid_audio` (`pip download --no-deps liquid-audio`, and unzip), which
is written for Python 3.12:

    scripts/bench/audio.py --lfm2 target/release/lfm2 --package FOLDER
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import torch
from transformers import Lfm2Config

CODEBOOKS = 8
CODES = 2048
HIDDEN = 2048
DEPTH = 1024
FRAME_SECONDS = 0.08
CLIP_SECONDS = 4.0
FRAMES = 50


def package(folder):
    """The package without its `__init__`, which wants sound libraries."""
    stub = types.ModuleType("liquid_audio")
    stub.__path__ = [str(Path(folder) / "liquid_audio")]
    sys.modules["liquid_audio"] = stub
    for name in ["model"]:
        inner = types.ModuleType(f"liquid_audio.{name}")
        inner.__path__ = [str(Path(folder) / "liquid_audio" / name)]
        sys.modules[f"liquid_audio.{name}"] = inner


def encoder(dtype):
    from liquid_audio.model.conformer.encoder import ConformerEncoder
    from liquid_audio.model.mlp import MLP

    conformer = ConformerEncoder(
        feat_in=128, feat_out=-1, n_layers=17, d_model=512, subsampling="dw_striding", subsampling_factor=8,
        subsampling_conv_channels=256, causal_downsampling=False, reduction=None, reduction_position=None,
        reduction_factor=1, ff_expansion_factor=4, self_attention_model="rel_pos", n_heads=8,
        att_context_size=[-1, -1], xscaling=False, untie_biases=True, pos_emb_max_len=5000, conv_kernel_size=9,
        conv_norm_type="batch_norm", conv_context_size=None, dropout=0.1, dropout_pre_encoder=0.1,
        dropout_emb=0.0, dropout_att=0.1,
    ).eval().to(dtype)
    adapter = MLP(512, HIDDEN, [HIDDEN]).eval().to(dtype)
    mel = torch.randn(1, 128, int(CLIP_SECONDS * 100) + 1, dtype=dtype)
    length = torch.tensor([mel.shape[-1]])

    def run():
        encoded, _ = conformer(mel, length)
        adapter(encoded.mT[0])
    return run


def depthformer(dtype):
    from liquid_audio.model.transformer import MHA, RawLMBackbone, SharedEmbedding, StandardBlock

    layers = [StandardBlock(MHA(DEPTH)) for _ in range(6)]
    backbone = RawLMBackbone(layers, has_embedding=False).eval().to(dtype)
    embeddings = [
        SharedEmbedding(dim=DEPTH, vocab_size=CODES + 1, tie_embedding=True).eval().to(dtype) for _ in range(CODEBOOKS)
    ]
    linear = torch.nn.Linear(HIDDEN, DEPTH * CODEBOOKS).eval().to(dtype)
    hidden = torch.randn(HIDDEN, dtype=dtype)

    # As the reference's `_sample_audio_frame`, greedily.
    def run():
        inputs = linear(hidden).view(CODEBOOKS, DEPTH)
        token, cache = torch.zeros_like(inputs[0]), None
        for i in range(CODEBOOKS):
            out, cache = backbone.forward_cached((inputs[i] + token)[None, None, :], cache)
            code = embeddings[i].get_logits(out.squeeze()).argmax(keepdim=True)
            token = embeddings[i](code).squeeze()
    return run


def detokenizer(dtype):
    from liquid_audio.detokenizer import LFM2AudioDetokenizer

    layers = ["conv", "conv", "sliding_attention", "conv", "sliding_attention", "conv", "sliding_attention", "conv"]
    config = Lfm2Config(
        hidden_size=512, num_hidden_layers=8, layer_types=["full_attention" if "att" in l else l for l in layers],
        num_attention_heads=16, num_key_value_heads=8, block_ff_dim=3328, intermediate_size=3328,
        block_auto_adjust_ff_dim=True, conv_L_cache=3, rope_theta=1e6, norm_eps=1e-5, vocab_size=65536,
    )
    model = LFM2AudioDetokenizer(config).eval()
    # Its Fourier transform takes f32 alone.
    model.emb.to(dtype), model.lfm.to(dtype)
    if dtype != torch.float32:
        model.lin.register_forward_pre_hook(lambda _, args: (args[0].float(),))
    codes = torch.randint(0, CODES, (1, CODEBOOKS, FRAMES))

    def run():
        model(codes)
    return run


PARTS = {"encoder": (encoder, 1), "depthformer": (depthformer, 1), "detokenizer": (detokenizer, FRAMES)}


def timed(run, times):
    """The shortest of some runs is no worse than what the machine had left; the median is what was got."""
    spans = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        spans.append(time.perf_counter() - begun)
    return statistics.median(spans)


def ours(args, quantization):
    command = [args.lfm2, "bench", "--synthetic", "lfm2.5-audio-1.5b", "--quantization", quantization, "--json",
               "--repeat", "2", "--threads", str(args.threads)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = {part["part"]: part["seconds_each"] for part in report["parts"]}
    # The reference has no streams: what is compared is the sound of a frame when all are there.
    return found | {"detokenizer": found["decode"], "streamed": found["detokenizer"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfm2", required=True, help="the command")
    parser.add_argument("--package", required=True, help="the folder that holds liquid_audio")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", default="q4_0,bf16", help="storage on our side, with commas")
    parser.add_argument("--out", help="also write the figures here, as JSON")
    args = parser.parse_args()
    package(args.package)
    torch.set_num_threads(args.threads)

    found = {}
    with torch.inference_mode():
        peers = {
            (part, name): (make(dtype), share)
            for part, (make, share) in PARTS.items()
            for name, dtype in [("bf16", torch.bfloat16), ("f32", torch.float32)]
        }
        for run, _ in peers.values():
            run()
        for _ in range(args.rounds):
            for quantization in args.types.split(","):
                for part, seconds in ours(args, quantization).items():
                    found.setdefault((part, f"lfm2 {quantization}"), []).append(seconds)
            for (part, name), (run, share) in peers.items():
                found.setdefault((part, f"torch {name}"), []).append(timed(run, 5) / share)
    medians = {key: statistics.median(values) for key, values in found.items()}
    lengths = {"encoder": CLIP_SECONDS, "depthformer": FRAME_SECONDS, "detokenizer": FRAME_SECONDS}
    print(f"median of {args.rounds} rounds, {args.threads} threads; milliseconds each, and of real time")
    for part, length in lengths.items():
        best = min(value for (p, who), value in medians.items() if p == part and who.startswith("torch"))
        for (p, who), value in medians.items():
            if p == part:
                ratio = f"{best / value:6.2f} x the best of torch" if who.startswith("lfm2") else ""
                print(f"{part:12} {who:12} {value * 1e3:9.2f} {value / length:8.4f}  {ratio}")
    if args.out:
        rows = [{"part": p, "who": who, "seconds": values} for (p, who), values in found.items()]
        Path(args.out).write_text(json.dumps({"threads": args.threads, "figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
