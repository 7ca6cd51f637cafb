"""A tiny random encoder in a folder as sentence-transformers writes it, with a tokenizer of a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "log", "and", "then", "it", "was", "red", "blue"]
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def write_tokenizer(folder: Path) -> int:
    """Write tokenizer.json; returns the size of the vocabulary."""
    letters = [chr(c) for c in range(97, 123)]
    words = [word for word in WORDS if len(word) > 1]
    vocab = {token: i for i, token in enumerate([*SPECIALS, *letters, *(f"##{c}" for c in letters), *words])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocab)


def write_embedder(folder: Path, *, pooling: Any = "mean", **changes: Any) -> Path:
    """Write a whole folder and return it. `pooling` is a name, or what is to stand in the pooling's config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder)
    sizes = dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
    )
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**{"vocab_size": vocab_size, **sizes, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.2)
    model.save_pretrained(folder)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    said = {"pooling_mode": pooling} if isinstance(pooling, str) else pooling
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 64, **said}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}')
    return folder
