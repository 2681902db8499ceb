#!/usr/bin/env python3
"""transformers (eager, on the CPU) as a contender of compare.py: times one test, prints one JSON object.

Needs torch and transformers. The model is a folder with a config and safetensors, and computes in the
number type it is stored in.
"""
import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM


def ids(start, count):
    """The tokens that every contender is fed."""
    return torch.tensor([[(position * 7919 + 300) % 60000 for position in range(start, start + count)]])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=["pp", "tg", "first"], required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    begun = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto", attn_implementation="sdpa").eval()
    with torch.inference_mode():
        def feed(count, start, cache=None):
            output = model(input_ids=ids(start, count), past_key_values=cache, use_cache=True, logits_to_keep=1)
            return output.past_key_values

        if args.kind == "first":
            feed(args.tokens, 0)
            print(json.dumps({"first_token_seconds": time.perf_counter() - begun}))
            return
        feed(1, 64, feed(64, 0))
        position, cache = 0, None
        while position < args.depth:
            piece = min(512, args.depth - position)
            cache = feed(piece, position, cache)
            position += piece
        begun = time.perf_counter()
        if args.kind == "pp":
            feed(args.tokens, position, cache)
        else:
            for step in range(args.tokens):
                cache = feed(1, position + step, cache)
        print(json.dumps({"tps": args.tokens / (time.perf_counter() - begun)}))


if __name__ == "__main__":
    main()
