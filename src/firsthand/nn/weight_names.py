"""The names of each weight: ours, Hugging Face's and GGUF's. Those of a block come from `matrices`."""

from __future__ import annotations

import re

from firsthand.nn.architecture import Architecture
from firsthand.nn.matrices import BLOCK, BLOCK_NORMS

HUGGINGFACE = {"embed": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head"} | {
    row.name: row.huggingface for row in (*BLOCK, *BLOCK_NORMS)
}
HUGGINGFACE_SANDWICH = HUGGINGFACE | {
    norm.name: norm.huggingface_sandwich for norm in BLOCK_NORMS if norm.huggingface_sandwich
}
GGUF = {"embed": "token_embd", "norm": "output_norm", "lm_head": "output"} | {
    row.name: row.gguf for row in (*BLOCK, *BLOCK_NORMS)
}
BERT = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "q_proj": "attention.self.query",
    "k_proj": "attention.self.key",
    "v_proj": "attention.self.value",
    "o_proj": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up_proj": "intermediate.dense",
    "down_proj": "output.dense",
    "mlp_norm": "output.LayerNorm",
}

CLASSIFIER_HEADS = {
    "bert": {"dense": "pooler.dense", "out": "classifier"},
    "roberta": {"dense": "classifier.dense", "out": "classifier.out_proj"},
}
"""The names of a PairClassifier's head; a BERT's pooler stands with its encoder, below the same prefix."""


DISTILBERT = BERT | {
    "q_proj": "attention.q_lin",
    "k_proj": "attention.k_lin",
    "v_proj": "attention.v_lin",
    "o_proj": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up_proj": "ffn.lin1",
    "down_proj": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}
MPNET = BERT | {
    "buckets": "encoder.relative_attention_bias",
    "q_proj": "attention.attn.q",
    "k_proj": "attention.attn.k",
    "v_proj": "attention.attn.v",
    "o_proj": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
}


def huggingface_name(ours: str, architecture: Architecture) -> str:
    """Returns the Hugging Face name of one of our parameters."""
    table = HUGGINGFACE_SANDWICH if architecture.norm_placement == "sandwich" else HUGGINGFACE
    return _translate(ours, table, "model.layers")


def gguf_name(ours: str) -> str:
    """Returns the GGUF name of one of our parameters."""
    return _translate(ours, GGUF, "blk")


def bert_name(ours: str, prefix: str = "", family: str = "bert") -> str:
    """Returns the Hugging Face name of an Encoder's parameter; some files prefix all of them with `bert.` or `roberta.`."""
    table = {"distilbert": DISTILBERT, "mpnet": MPNET}.get(family, BERT)
    return prefix + _translate(ours, table, "transformer.layer" if family == "distilbert" else "encoder.layer")


def _translate(ours: str, table: dict[str, str], layers: str) -> str:
    module, parameter = ours.rsplit(".", 1)
    inside = re.fullmatch(r"layers\.(\d+)\.(.+)", module)
    if inside is None:
        return f"{table[module]}.{parameter}"
    return f"{layers}.{inside[1]}.{table[inside[2]]}.{parameter}"
