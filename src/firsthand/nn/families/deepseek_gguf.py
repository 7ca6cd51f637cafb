"""DeepSeek-V2 and V3 in GGUF files (`deepseek2`), as llama.cpp has written them since it caches latents."""

from __future__ import annotations

import math
from typing import Any

from firsthand.errors import ConfigError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, LatentSettings
from firsthand.nn.families.rope_config import mscale, rope_from_gguf, rope_to_gguf
from firsthand.nn.families.shared_fields import (
    GGUF_EXPERT_ROWS,
    experts_from_gguf,
    experts_to_gguf,
    gguf_sizes,
    sizes_to_gguf,
)
from firsthand.nn.weight_layout import GGUF_OUTER, SWAPPED, FileLayout, gguf_rows, interleaved, row

SOFTMAX, SIGMOID = 1, 2
"""llama.cpp's numbers of gating functions."""


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    sizes, rope_dim = gguf_sizes(file, fields), fields.integer("rope.dimension_count")
    layers, gate = sizes["num_layers"], fields.integer("expert_gating_func", SOFTMAX) or SOFTMAX
    if gate not in (SOFTMAX, SIGMOID):
        raise fields.error("expert_gating_func", gate, f"{SOFTMAX} (softmax) or {SIGMOID} (sigmoid)")
    is_third = gate == SIGMOID
    latent = LatentSettings(
        rank=fields.integer("attention.kv_lora_rank"),
        nope_dim=fields.integer("attention.key_length_mla") - rope_dim,
        rope_dim=rope_dim,
        value_dim=fields.integer("attention.value_length_mla"),
        query_rank=fields.integer("attention.q_lora_rank", 0),
        norm_eps=sizes["norm_eps"],
    )
    rope = rope_from_gguf(file, fields, rope_dim)
    if rope.kind == "yarn":  # the family's cosines and sines are not stretched: its scores are
        if (own := fields.number("rope.scaling.attn_factor", 1.0)) != 1:
            raise fields.error(
                "rope.scaling.attn_factor", own, "1, as cosines and sines of this family are not stretched"
            )
        rope = rope_from_gguf(file, _without_stretch(fields, rope.factor), rope_dim)
    stretch = 1 + fields.number("rope.scaling.yarn_log_multiplier", 0.0) * math.log(max(rope.factor, 1.0))
    width = fields.integer("expert_feed_forward_length")
    experts = experts_from_gguf(
        fields,
        layers,
        width=width,
        score="sigmoid" if is_third else "softmax",
        renormalise=fields.flag("expert_weights_norm", False),
        scale=fields.number("expert_weights_scale", 1.0) or 1.0,
        num_groups=fields.integer("expert_group_count", 1) or 1,
        groups_per_token=fields.integer("expert_group_used_count", 1) or 1,
        group_score="top2" if is_third else "max",
        has_correction=is_third,
        shared_width=width * fields.integer("expert_shared_count", 0),
    )
    shape = {"num_kv_heads": 1, "head_dim": latent.rank + rope_dim, "rotary_dim": rope_dim}
    return Architecture(
        family="deepseek_v3" if is_third else "deepseek_v2",
        windows=(None,) * layers,
        ropes=(rope,) * layers,
        attention_scale=(latent.nope_dim + rope_dim) ** -0.5 * stretch**2,
        experts=experts,
        latent=latent,
        **sizes | shape,
    )


def _without_stretch(fields: Fields, factor: float) -> Fields:
    key = fields.prefix + "rope.scaling.attn_factor"
    return Fields({**fields.values, key: 1 / mscale(factor)}, fields.where, fields.prefix)


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    e, m, rope = a.experts, a.latent, a.ropes[0]
    assert m is not None
    if e is None:
        raise ConfigError("GGUF cannot express a DeepSeek model without experts, so save safetensors")
    if not math.isclose(m.norm_eps, a.norm_eps, rel_tol=1e-6):
        raise ConfigError(
            f"GGUF has one eps for all norms, and this model's are {a.norm_eps} and {m.norm_eps}, so save safetensors"
        )
    stretch = math.sqrt(a.attention_scale * math.sqrt(m.nope_dim + m.rope_dim))
    found = {key: value for key, value in rope_to_gguf(rope).items() if key != "rope.scaling.attn_factor"}
    if rope.kind == "yarn" and rope.factor > 1:
        found["rope.scaling.yarn_log_multiplier"] = (stretch - 1) / math.log(rope.factor)
    return {
        "general.architecture": "deepseek2",
        **sizes_to_gguf(a),
        **found,
        "rope.dimension_count": m.rope_dim,
        "attention.key_length": a.head_dim,
        "attention.value_length": m.rank,
        "attention.key_length_mla": m.nope_dim + m.rope_dim,
        "attention.value_length_mla": m.value_dim,
        "attention.kv_lora_rank": m.rank,
        **({"attention.q_lora_rank": m.query_rank} if m.query_rank else {}),
        **experts_to_gguf(e),
        "expert_shared_count": e.shared_width // e.width,
        "expert_weights_scale": e.scale,
        "expert_weights_norm": e.renormalise,
        "expert_gating_func": SIGMOID if e.score == "sigmoid" else SOFTMAX,
        "expert_group_count": e.num_groups,
        "expert_group_used_count": e.groups_per_token,
    }


def gguf_layout(a: Architecture) -> FileLayout:
    """The tensors of a GGUF file: experts are stacked, and the latent's matrices lie by head."""
    m = a.latent
    assert m is not None
    inner = (
        row("attn_q_b" if m.query_rank else "attn_q", "attention.q_proj", fold=interleaved(m.nope_dim, a.num_heads)),
        row("attn_q_a", "attention.q_down"),
        row("attn_q_a_norm", "attention.q_latent_norm"),
        row("attn_kv_a_mqa", "attention.kv_down", fold=interleaved(m.rank, 1)),
        row("attn_kv_a_norm", "attention.latent_norm"),
        row("attn_k_b.weight", "attention.k_up", fold=SWAPPED),
        row("attn_v_b.weight", "attention.v_up"),
        row("exp_probs_b.bias", "mlp.router.correction"),
    )
    plain = tuple(each for each in gguf_rows() if each.ours != ("attention.q_proj",))
    return FileLayout(GGUF_OUTER, (*inner, *plain, *GGUF_EXPERT_ROWS), layers="blk")
