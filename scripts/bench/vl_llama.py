#!/usr/bin/env python3
"""How long llama.cpp takes for one view: files with random weights of a published shape, then its `llama-mtmd-cli`.

    python3 vl_llama.py write --shape lfm2-vl-450m --type q8_0 --lfm2 target/release/lfm2 FOLDER
    python3 vl_llama.py time --llama BIN --threads 2 FOLDER

`write` needs numpy, safetensors, pillow and gguf. The tower is whole; the text model behind it has two layers, as its time
is not taken. llama.cpp says in whole milliseconds how long a picture took to encode, after a warm-up of its own; the
picture has 512 x 512 pixels, one full view.
"""
import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKENIZER = HERE / "../../models/lfm2-tiny-vl"
# Width, feed-forward width, layers, heads, and the projector's width and output.
SHAPES = {"lfm2-vl-450m": (768, 3072, 12, 12, 2560, 1024), "lfm2-vl-1.6b": (1152, 4304, 27, 16, 2560, 2048)}
PATCH, PLACES, FACTOR, SIDE = 16, 256, 2, 512


def tower(path, shape, kind):
    """The file of tower and projector; rows that are no whole blocks are F16, as its own tools write them."""
    import gguf
    import numpy as np

    width, ffn, layers, heads, inner, out = SHAPES[shape]
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "lfm2")
    writer.add_bool("clip.use_gelu", True)
    for key, value in [("image_size", PATCH * int(PLACES**0.5)), ("patch_size", PATCH), ("embedding_length", width),
                       ("feed_forward_length", ffn), ("block_count", layers), ("attention.head_count", heads),
                       ("projection_dim", out), ("projector.scale_factor", FACTOR)]:
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    for key in ["image_mean", "image_std"]:
        writer.add_array(f"clip.vision.{key}", [0.5, 0.5, 0.5])

    def dense(name, *size):
        writer.add_tensor(name, (rng.standard_normal(size) * 0.02).astype(np.float32))

    def matrix(name, rows, cols):
        values = (rng.standard_normal((rows, cols)) / cols**0.5).astype(np.float32)
        kinds = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "f16": gguf.GGMLQuantizationType.F16,
                 "bf16": gguf.GGMLQuantizationType.BF16}
        wanted = kinds[kind]
        if kind == "q8_0" and cols % 32:
            wanted = kinds["f16"]
        if wanted == kinds["f16"]:
            writer.add_tensor(f"{name}.weight", values.astype(np.float16))
        else:
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, wanted), raw_dtype=wanted)
        dense(f"{name}.bias", rows)

    def norm(name, size):
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))
        dense(f"{name}.bias", size)

    dense("v.patch_embd.weight", width, 3, PATCH, PATCH)
    dense("v.patch_embd.bias", width)
    dense("v.position_embd.weight", PLACES, width)
    for layer in range(layers):
        prefix = f"v.blk.{layer}"
        for name in ["attn_q", "attn_k", "attn_v", "attn_out"]:
            matrix(f"{prefix}.{name}", width, width)
        matrix(f"{prefix}.ffn_up", ffn, width)
        matrix(f"{prefix}.ffn_down", width, ffn)
        norm(f"{prefix}.ln1", width)
        norm(f"{prefix}.ln2", width)
    norm("v.post_ln", width)
    norm("mm.input_norm", width * FACTOR**2)
    matrix("mm.1", inner, width * FACTOR**2)
    matrix("mm.2", out, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def text(folder, shape, lfm2):
    """A text model of two layers of the right width."""
    import numpy as np
    from safetensors.numpy import save_file

    hidden, ffn, heads = SHAPES[shape][-1], 256, 16
    side = folder / "text"
    side.mkdir(exist_ok=True)
    tiny = json.loads((TOKENIZER / "config.json").read_text())["text_config"]
    vocab = tiny["vocab_size"]
    tiny |= {"architectures": ["Lfm2ForCausalLM"], "hidden_size": hidden, "num_hidden_layers": 2, "intermediate_size": ffn,
             "layer_types": ["conv", "full_attention"], "num_attention_heads": heads, "num_key_value_heads": heads // 2,
             "tie_word_embeddings": True, "max_position_embeddings": 4096}
    (side / "config.json").write_text(json.dumps(tiny))
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]:
        shutil.copy(TOKENIZER / name, side / name)
    rng = np.random.default_rng(2)
    random = lambda *size: (rng.standard_normal(size) / size[-1] ** 0.5).astype(np.float32)
    ones = lambda size: np.ones(size, np.float32)
    half, dim = hidden // 2, hidden // heads
    tensors = {"model.embed_tokens.weight": random(vocab, hidden), "model.embedding_norm.weight": ones(hidden)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        tensors |= {f"{prefix}.operator_norm.weight": ones(hidden), f"{prefix}.ffn_norm.weight": ones(hidden),
                    f"{prefix}.feed_forward.w1.weight": random(ffn, hidden),
                    f"{prefix}.feed_forward.w3.weight": random(ffn, hidden),
                    f"{prefix}.feed_forward.w2.weight": random(hidden, ffn)}
    tensors |= {"model.layers.0.conv.in_proj.weight": random(3 * hidden, hidden),
                "model.layers.0.conv.conv.weight": random(hidden, 1, 3),
                "model.layers.0.conv.out_proj.weight": random(hidden, hidden)}
    attention = "model.layers.1.self_attn"
    tensors |= {f"{attention}.q_proj.weight": random(hidden, hidden), f"{attention}.k_proj.weight": random(half, hidden),
                f"{attention}.v_proj.weight": random(half, hidden), f"{attention}.out_proj.weight": random(hidden, hidden),
                f"{attention}.q_layernorm.weight": ones(dim), f"{attention}.k_layernorm.weight": ones(dim)}
    save_file(tensors, str(side / "model.safetensors"), {"format": "pt"})
    subprocess.run([lfm2, "quantize", str(side), str(folder / "text.gguf"), "--type", "q8_0", "--force"], check=True)


def picture(path):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)


def seconds(llama, folder, threads):
    """One program's whole run, and what it says of the view."""
    folder = Path(folder)
    command = [str(Path(llama) / "llama-mtmd-cli"), "-m", str(folder / "text.gguf"), "--mmproj", str(folder / "mmproj.gguf"),
               "--image", str(folder / "picture.png"), "-p", "What is it?", "-n", "1", "-t", str(threads), "-c", "2048",
               "--jinja"]
    # What a random model says is no text.
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL)
    found = re.findall(r"(?:slice encoded|batch encoding done) in (\d+) ms", done.stdout + done.stderr)
    if len(found) != 1:
        sys.exit(f"{' '.join(command)}\nsays of {len(found)} views how long they took, expected 1:\n{done.stderr[-2000:]}")
    return int(found[0]) / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "time"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="lfm2-vl-450m")
    parser.add_argument("--type", choices=["q8_0", "f16", "bf16"], default="q8_0")
    parser.add_argument("--lfm2", default="lfm2")
    parser.add_argument("--llama", help="the folder of llama.cpp's programs")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.what == "time":
        print(f"{seconds(args.llama, args.folder, args.threads):.3f} s")
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    tower(args.folder / "mmproj.gguf", args.shape, args.type)
    text(args.folder, args.shape, args.lfm2)
    picture(args.folder / "picture.png")


if __name__ == "__main__":
    main()
