"""Makes the tiny BERT that tests of lfm2-sentence compare with transformers: random weights, a tokenizer
trained on the sentences themselves, and the means of every layer.

usage: make_bert.py --out models/lfm2-sentence/tests/golden/bert-tiny

Needs torch, transformers 5, tokenizers, safetensors.
"""
import argparse, json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel
from transformers import __version__ as version

TEXTS = ["The cat sleeps.", "The cat slept.", "A small dog did not find seven red balls in the garden.", "Élan vital!",
         "rain", "They might be reading a very long letter about a house near the river and its many windows, again and again and again."]
LENGTH = 24


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, type=Path)
    out = ap.parse_args().out
    (out / "1_Pooling").mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As the published files have them: neither may change what a text means.
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(max_length=LENGTH)
    tokenizer.save(str(out / "tokenizer.json"))

    torch.manual_seed(5)
    config = BertConfig(vocab_size=128, hidden_size=36, num_hidden_layers=3, num_attention_heads=4, intermediate_size=52,
                        max_position_embeddings=40, attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(out)
    (out / "modules.json").write_text(json.dumps([
        dict(idx=0, name="0", path="", type="sentence_transformers.models.Transformer"),
        dict(idx=1, name="1", path="1_Pooling", type="sentence_transformers.models.Pooling"),
        dict(idx=2, name="2", path="2_Normalize", type="sentence_transformers.models.Normalize")], indent=1))
    (out / "1_Pooling/config.json").write_text(json.dumps(dict(word_embedding_dimension=36, pooling_mode_mean_tokens=True)))
    (out / "sentence_bert_config.json").write_text(json.dumps(dict(max_seq_length=LENGTH, do_lower_case=False)))

    tokenizer.no_padding()
    cases = []
    with torch.no_grad():
        for text in TEXTS:
            ids = tokenizer.encode(text).ids
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            cases.append(dict(text=text, ids=ids, means=[state[0].mean(0).tolist() for state in states],
                              means_inside=[state[0, 1:-1].mean(0).tolist() for state in states]))
    (out / "cases.json").write_text(json.dumps(dict(made_with=f"transformers {version}, torch {torch.__version__}, seed 5", cases=cases)))


main()
