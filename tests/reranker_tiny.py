"""A tiny random cross-encoder in a folder, with a tokenizer of a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, processors

from embedder_tiny import write_tokenizer

TEMPLATES = {
    "Bert": ("[CLS] $A [SEP]", "[CLS] $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "Roberta": ("[CLS] $A [SEP]", "[CLS] $A:0 [SEP]:0 [SEP]:0 $B:0 [SEP]:0"),
}


def write_reranker(folder: Path, kind: str = "Bert", **changes: Any) -> Path:
    """A tiny random BertForSequenceClassification, or RoBERTa's or XLM-RoBERTa's, with a tokenizer of a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    single, pair = TEMPLATES["Bert" if kind == "Bert" else "Roberta"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=50
    )
    types = {} if kind == "Bert" else {"type_vocab_size": 1, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(
        **{"vocab_size": vocab_size, "num_labels": 1, **sizes, **types, **changes}
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.2)
    model.save_pretrained(folder)
    return folder


def change(folder: Path, file: str, **values: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))
    return folder
