"""What each weight is called: ours, Hugging Face's and GGUF's. One table a convention; architectures pick rows."""

from __future__ import annotations

import re

from firsthand.nn.architecture import Architecture

HUGGINGFACE = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "lm_head": "lm_head",
    "attention_norm": "input_layernorm",
    "attention.q_proj": "self_attn.q_proj",
    "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.o_proj": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate_proj": "mlp.gate_proj",
    "mlp.up_proj": "mlp.up_proj",
    "mlp.down_proj": "mlp.down_proj",
}
HUGGINGFACE_SANDWICH = HUGGINGFACE | {
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}
GGUF = {
    "embed": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "attention_norm": "attn_norm",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention_out_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp_out_norm": "post_ffw_norm",
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


def huggingface_name(ours: str, architecture: Architecture) -> str:
    """The Hugging Face name of one of our parameters."""
    table = HUGGINGFACE_SANDWICH if architecture.norm_placement == "sandwich" else HUGGINGFACE
    return _translate(ours, table, "model.layers")


def gguf_name(ours: str) -> str:
    """The GGUF name of one of our parameters."""
    return _translate(ours, GGUF, "blk")


def bert_name(ours: str, prefix: str = "") -> str:
    """The Hugging Face name of one of an Encoder's parameters; some files put `bert.` or `roberta.` before all of them."""
    return prefix + _translate(ours, BERT, "encoder.layer")


def _translate(ours: str, table: dict[str, str], layers: str) -> str:
    module, parameter = ours.rsplit(".", 1)
    inside = re.fullmatch(r"layers\.(\d+)\.(.+)", module)
    if inside is None:
        return f"{table[module]}.{parameter}"
    return f"{layers}.{inside[1]}.{table[inside[2]]}.{parameter}"
