"""Keys of config.json that transformers reads under two names, and those that give layers settings of their own."""

from __future__ import annotations

from firsthand.formats.fields import Fields

SPELLINGS: dict[str, dict[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "bloom": {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    "mpt": {"num_attention_heads": "n_heads", "hidden_size": "d_model", "num_hidden_layers": "n_layers"},
    "mixtral": {"num_experts": "num_local_experts"},
    "qwen3_moe": {"num_local_experts": "num_experts"},
    "deepseek_v2": {"num_experts": "n_routed_experts"},
    "deepseek_v3": {"num_local_experts": "n_routed_experts"},
    "gpt_oss": {"num_experts": "num_local_experts"},
    "distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    "t5": {
        "hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    "bart": {
        "num_attention_heads": "encoder_attention_heads", "hidden_size": "d_model", "num_hidden_layers": "encoder_layers",
    },
}  # fmt: skip
"""For a model type, other names of the keys that its family reads."""
SPELLINGS["marian"] = SPELLINGS["bart"]
_BY_LAYER = "per_layer_config"


def respelled(config: Fields) -> Fields:
    """The config with each key under the name that its family reads; ModelFileError if two names have two values."""
    if config.values.get(_BY_LAYER):
        raise config.error(
            _BY_LAYER, config.values[_BY_LAYER], "nothing (layers with settings of their own are not read)"
        )
    kind = config.values.get("model_type")
    values = dict(config.values)
    for other, own in (SPELLINGS.get(kind, {}) if isinstance(kind, str) else {}).items():
        stated = values.get(other)
        if stated is None:
            continue
        if values.get(own) not in (None, stated):
            raise config.error(other, stated, f"{values[own]}, as in {own}, which is the same setting")
        values[own] = stated
    return Fields(values, config.where, config.prefix)
