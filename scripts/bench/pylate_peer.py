#!/usr/bin/env python3
"""PyLate (on the CPU) as a contender of colbert.py: times documents and a query, prints one JSON object.

    pylate_peer.py write --out DIR --texts TEXTS    random weights of LFM2.5-ColBERT-350M's shape
    pylate_peer.py time --model DIR --texts TEXTS --threads N

Needs pylate, and with it torch, transformers 5.3 and sentence-transformers. The bidirectional trunk is
transformers' LFM2 without its causal mask and with centred convolutions, as the published model's own
code has it; both are put in place here.
"""
import argparse
import json
import math
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers.models.lfm2.modeling_lfm2 as lfm2
from pylate import models
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import Lfm2Config, Lfm2Model, PreTrainedTokenizerFast

SPECIAL = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|fim_pre|>", "<|fim_mid|>", "<|fim_suf|>",
           "<|im_start|>", "<|im_end|>"]
ATTENTION = (2, 5, 8, 10, 12, 14)
LAYERS = 16


def bidirectional():
    """Replaces what makes the trunk causal."""
    def convolution(self, hidden_states, *_, **__):
        count, kernel = hidden_states.shape[1], self.conv.weight.shape[-1]
        before, after, values = self.in_proj(hidden_states).transpose(-1, -2).chunk(3, dim=-2)
        gated = F.pad(before * values, (kernel // 2, kernel // 2))
        mixed = F.conv1d(gated, self.conv.weight, self.conv.bias, groups=gated.shape[1])[..., :count]
        return self.out_proj((after * mixed).transpose(-1, -2))

    def key_mask(inputs_embeds=None, attention_mask=None, **_):
        if attention_mask is None or bool(attention_mask.all()):
            return None
        hidden = 1.0 - attention_mask.to(inputs_embeds.dtype)
        return (hidden * torch.finfo(inputs_embeds.dtype).min)[:, None, None, :]

    lfm2.Lfm2ShortConv.forward = convolution
    lfm2.create_causal_mask = key_mask


def tokenizer(texts):
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=8192, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    trained.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A", special_tokens=[("<|startoftext|>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<|startoftext|>", eos_token="<|im_end|>",
                                   pad_token="<|pad|>", clean_up_tokenization_spaces=False)


def randomise(model, generator):
    """Weights with which every layer matters: as in the small checkpoints that the tests read."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            noise = 1.0 + 0.25 * noise
        elif name.endswith("conv.conv.weight"):
            noise *= 0.6
        elif "embed_tokens" not in name:
            noise *= 0.18 * math.sqrt(64.0 / weight.shape[-1])
        weight.data.copy_(noise.to(torch.bfloat16))


def write(args):
    """Writes `OUT/f32` and `OUT/bf16`: the same numbers, which bf16 can hold."""
    texts = args.texts.read_text(encoding="utf-8").splitlines()
    words = tokenizer(texts)
    config = Lfm2Config(
        vocab_size=len(words), hidden_size=1024, intermediate_size=6656, num_hidden_layers=LAYERS,
        num_attention_heads=16, num_key_value_heads=8, conv_L_cache=3, conv_bias=False, block_multiple_of=256,
        layer_types=["full_attention" if layer in ATTENTION else "conv" for layer in range(LAYERS)],
        block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=True, norm_eps=1e-5, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=7,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    trunk = args.out / "trunk"
    Lfm2Model(config).save_pretrained(trunk)
    words.save_pretrained(trunk)
    model = models.ColBERT(
        str(trunk), device="cpu", embedding_size=128, query_prefix="[Q] ", document_prefix="[D] ", query_length=32,
        document_length=256, do_query_expansion=True, attend_to_expansion_tokens=False,
        model_kwargs={"dtype": torch.float32})
    shutil.rmtree(trunk)
    model.max_seq_length = 255
    randomise(model, torch.Generator().manual_seed(args.seed))
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        folder = args.out / name
        model.to(dtype).save(str(folder), create_model_card=False)
        path = folder / "config.json"
        written = json.loads(path.read_text()) | {"dtype": str(dtype).removeprefix("torch."),
                                                  "architectures": ["Lfm2BidirectionalModel"]}
        path.write_text(json.dumps(written, indent=2))


def open_model(folder):
    """Both number types as stored."""
    dtype = getattr(torch, json.loads((folder / "config.json").read_text())["dtype"])
    bidirectional()
    model = models.ColBERT(str(folder), device="cpu", model_kwargs={"dtype": dtype, "attn_implementation": "sdpa"})
    for module in model.modules():
        if isinstance(module, lfm2.Lfm2Attention):
            module.is_causal = False  # without a mask, it would take itself for causal
    return model.to(dtype).eval()


def measure(args):
    torch.set_num_threads(args.threads)
    query, *documents = args.texts.read_text(encoding="utf-8").splitlines()
    model = open_model(args.model)

    def encode(texts, is_query):
        return model.encode(texts, batch_size=args.batch, is_query=is_query, show_progress_bar=False)

    with torch.inference_mode():
        encode(documents[:1], False)
        begun = time.perf_counter()
        vectors = encode(documents, False)
        seconds = time.perf_counter() - begun
        vectors += encode([query], True)
        times = []
        for _ in range(args.queries):
            begun = time.perf_counter()
            encode([query], True)
            times.append(time.perf_counter() - begun)
    if args.vectors:
        rows = [np.asarray(rows, dtype=np.float32) for rows in vectors]
        save_file({"vectors": np.concatenate(rows)}, str(args.vectors))
    print(json.dumps({"documents_per_second": len(documents) / seconds, "query_seconds": statistics.median(times)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    writer = commands.add_parser("write", help="write random weights")
    writer.add_argument("--out", type=Path, required=True)
    writer.add_argument("--texts", type=Path, required=True)
    writer.add_argument("--seed", type=int, default=1)
    writer.set_defaults(run=write)
    timer = commands.add_parser("time", help="time a model")
    timer.add_argument("--model", type=Path, required=True)
    timer.add_argument("--texts", type=Path, required=True, help="a query and behind it documents, one per line")
    timer.add_argument("--threads", type=int, required=True)
    timer.add_argument("--batch", type=int, default=32, help="documents of a batch [32]")
    timer.add_argument("--queries", type=int, default=11, help="how often the query is timed [11]")
    timer.add_argument("--vectors", type=Path, help="where the vectors are kept, as safetensors")
    timer.set_defaults(run=measure)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
