#!/usr/bin/env python3
"""transformers (eager, on the CPU) as the peer of vl.py: one model with random weights, timed on demand.

Writes a JSON object per line: first that it is ready, then one for every line it reads, which is `view`
(tower and projector on one full view) or `first` (a picture, its prompt and one token). The
pixels are prepared before the clock starts.
"""
import argparse
import json
import sys
import time

import torch
from transformers import Lfm2VlConfig, Lfm2VlForConditionalGeneration

IMAGE, START, END, THUMBNAIL = 396, 498, 499, 497
TOWERS = {"base": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
          "so400m": dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)}
TEXTS = {"350m": dict(hidden_size=1024, intermediate_size=6656), "1.2b": dict(hidden_size=2048, intermediate_size=12288)}
# The layers of both text models that are attention.
ATTENTION = (2, 5, 8, 10, 12, 14)
SHAPES = {"lfm2-vl-450m": ("base", "350m"), "lfm2-vl-1.6b": ("so400m", "1.2b")}


# Rows and columns of patches of the views of pictures.
GRIDS = {"1280x1024": [(32, 32)] * 9 + [(28, 34)], "512x512": [(32, 32)]}


def build(shape, dtype):
    """A model of this shape with random weights."""
    tower, text = SHAPES[shape]
    heads = TEXTS[text]["hidden_size"] // 64
    kinds = ["full_attention" if layer in ATTENTION else "conv" for layer in range(16)]
    config = Lfm2VlConfig(
        vision_config={"model_type": "siglip2_vision_model", "num_patches": 256, "patch_size": 16,
                       "vision_use_head": False, **TOWERS[tower]},
        text_config={"model_type": "lfm2", "vocab_size": 65536, "num_hidden_layers": 16, "layer_types": kinds,
                     "num_attention_heads": heads, "num_key_value_heads": 8, "block_auto_adjust_ff_dim": True,
                     "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0, "conv_L_cache": 3,
                     "max_position_embeddings": 128000, **TEXTS[text]},
        image_token_id=IMAGE, downsample_factor=2, projector_hidden_size=2560, projector_use_layernorm=True)
    torch.set_default_dtype(dtype)
    for layer in (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv1d):
        layer.reset_parameters = lambda self: None
    config._attn_implementation = "sdpa"
    model = Lfm2VlForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02)
    return model


def pixels(grids, dtype):
    """Random patches of views with these grids, padded as the processor pads them."""
    most = max(rows * cols for rows, cols in grids)
    mask = torch.zeros(len(grids), most, dtype=torch.int32)
    for view, (rows, cols) in enumerate(grids):
        mask[view, : rows * cols] = 1
    return {"pixel_values": torch.rand(len(grids), most, 768).to(dtype) * 2 - 1,
            "spatial_shapes": torch.tensor(grids), "pixel_attention_mask": mask}


def prompt(grids):
    """The tokens around and in a picture of tiles with a thumbnail."""
    text = [(position * 7919 + 1300) % 60000 + 600 for position in range(24)]
    ids = text[:8] + [START]
    for view, (rows, cols) in enumerate(grids):
        marker = THUMBNAIL if view + 1 == len(grids) else 397 + view
        ids += [marker] * (len(grids) > 1) + [IMAGE] * (rows * cols // 4)
    return torch.tensor([ids + [END] + text[8:]])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--picture", choices=GRIDS, default="1280x1024")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    model = build(args.shape, dtype)
    grids = GRIDS[args.picture]
    view, picture, ids = pixels([(32, 32)], dtype), pixels(grids, dtype), prompt(grids)
    print(json.dumps({"ready": True, "parameters": sum(p.numel() for p in model.parameters()), "tokens": ids.shape[1]}), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            begun = time.perf_counter()
            if line.strip() == "view":
                model.model.get_image_features(**view)
            else:
                model(input_ids=ids, **picture, use_cache=True, logits_to_keep=1).logits.argmax(-1).item()
            print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)


if __name__ == "__main__":
    main()
