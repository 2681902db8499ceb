#!/usr/bin/env python3
"""transformers (eager, on the CPU) as a contender of train.py: prints the tokens per second of training steps.

Needs torch and transformers. Rows of random tokens are fed, all of one length, so that nothing is padding; a step is
forward, backward, clipping and AdamW.
"""
import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from transformers import Lfm2Config, Lfm2ForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a config.json")
    parser.add_argument("--attention", choices=["eager", "sdpa"], required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--profile", action="store_true", help="print the time of every operation instead")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)

    config = Lfm2Config(**json.loads(args.config.read_text()))
    config._attn_implementation = args.attention
    model = Lfm2ForCausalLM(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    speeds = []

    def steps(count):
        for _ in range(count):
            ids = torch.randint(10, config.vocab_size, (args.rows, args.length))
            begun = time.perf_counter()
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            speeds.append(ids.numel() / (time.perf_counter() - begun))

    if args.profile:
        steps(5)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            steps(args.steps)
        events = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
        print(json.dumps({"operations": events}))
        return
    steps(args.steps)
    print(json.dumps({"tokens_per_second": statistics.median(speeds)}))


if __name__ == "__main__":
    main()
