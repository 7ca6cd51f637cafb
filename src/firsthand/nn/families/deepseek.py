"""DeepSeek-V2 and V3: multi-head latent attention, dense first layers, then many experts of which some compute every token.

V2 (2024) scores experts by softmax, V3 (2024) by a sigmoid with a bias for each expert that balances their load. Both choose
within a token's best groups of experts. Left out: V3's heads for several tokens ahead, whose weights are passed over.
"""

from __future__ import annotations

import math
from typing import Any

from firsthand.errors import ConfigError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings
from firsthand.nn.families.deepseek_gguf import from_gguf as from_gguf
from firsthand.nn.families.deepseek_gguf import gguf_layout as gguf_layout
from firsthand.nn.families.deepseek_gguf import to_gguf as to_gguf
from firsthand.nn.families.llama import ACTIVATION_NAMES
from firsthand.nn.families.rope_config import mscale, rope_from_config, rope_to_parameters, shared_parameters
from firsthand.nn.families.shared_fields import config_sizes, expert_rows, shared_rows
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import OUTER, FileLayout, heads_beside, interleaved, plain_rows, row

MODEL_TYPES = ("deepseek_v2", "deepseek_v3")
GGUF_ARCHITECTURES = ("deepseek2",)
LATENT_EPS = 1e-6
"""Of the norms of latents, whatever `rms_norm_eps` says of the others."""


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    is_third = config.text("model_type") == "deepseek_v3"
    for key in ("attention_bias", "mlp_bias"):
        if config.flag(key, False):
            raise config.error(key, True, "false")
    if is_third and not config.values.get("rope_interleave", True):  # null is false for transformers
        raise config.error("rope_interleave", False, "true, with rotated pairs side by side")
    computed = {"scoring_func": "sigmoid" if is_third else "softmax", "moe_layer_freq": 1}
    computed |= {"topk_method": "noaux_tc"} if is_third else {"norm_topk_prob": False}
    for key, only in computed.items():
        if config.has(key) and config.values[key] != only:
            raise config.error(key, config.values[key], f"{str(only).lower()}, which is what this family's models have")
    sizes = config_sizes(config, max_position=4096 if is_third else 2048)
    layers, latent = sizes["num_layers"], _latent(config)
    rope, width = rope_from_config(config), latent.nope_dim + latent.rope_dim
    all_dim = shared_parameters(config).number("mscale_all_dim", 0.0)
    scale = mscale(rope.factor, all_dim) ** 2 if all_dim and rope.kind != "default" else 1.0
    shape = {"num_kv_heads": 1, "head_dim": latent.rank + latent.rope_dim, "rotary_dim": latent.rope_dim}
    return Architecture(
        windows=(None,) * layers,
        ropes=(rope,) * layers,
        attention_scale=max(width, 1) ** -0.5 * scale,
        experts=_experts(config, layers, is_third),
        latent=latent,
        **sizes | shape,
    )


def _latent(config: Fields) -> LatentSettings:
    return LatentSettings(
        rank=config.integer("kv_lora_rank", 512),
        nope_dim=config.integer("qk_nope_head_dim", 128),
        rope_dim=config.integer("qk_rope_head_dim", 64),
        value_dim=config.integer("v_head_dim", 128),
        query_rank=config.integer("q_lora_rank", 0),
        norm_eps=LATENT_EPS,
    )


def _experts(config: Fields, layers: int, is_third: bool) -> ExpertSettings | None:
    dense, width = (
        config.integer("first_k_dense_replace", 3 if is_third else 0),
        config.integer("moe_intermediate_size"),
    )
    has_groups = is_third or config.choice("topk_method", {"greedy": False, "group_limited_greedy": True}, "greedy")
    has = tuple(layer >= dense for layer in range(layers))
    if not any(has):
        return None
    return ExpertSettings(
        num_experts=config.integer("n_routed_experts"),
        per_token=config.integer("num_experts_per_tok"),
        width=width,
        layers=has,
        score="sigmoid" if is_third else "softmax",
        renormalise=is_third and config.flag("norm_topk_prob", "norm_topk_prob" not in config.values),  # null is false
        scale=config.number("routed_scaling_factor", 2.5 if is_third else 1.0),
        num_groups=config.integer("n_group", 8 if is_third else 1) if has_groups else 1,
        groups_per_token=config.integer("topk_group", 4 if is_third else 1) if has_groups else 1,
        group_score="top2" if is_third else "max",
        has_correction=is_third,
        shared_width=width * config.integer("n_shared_experts", 1 if is_third else 2),
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    e, m, rope = a.experts, a.latent, a.ropes[0]
    assert m is not None
    if not math.isclose(m.norm_eps, LATENT_EPS, rel_tol=1e-6):  # GGUF has single precision
        raise ConfigError(f"the norms of latents have an eps of {m.norm_eps}, and config.json means {LATENT_EPS}")
    parameters = rope_to_parameters(rope)
    stretched = math.sqrt(a.attention_scale * math.sqrt(m.nope_dim + m.rope_dim))
    if rope.kind != "default" and rope.factor > 1:  # the scale of attention is stated as a term of rope's
        parameters["mscale_all_dim"] = (stretched - 1) / (0.1 * math.log(rope.factor))
    experts: dict[str, Any] = {} if e is None else {
        "n_routed_experts": e.num_experts, "num_experts_per_tok": e.per_token, "moe_intermediate_size": e.width,
        "norm_topk_prob": e.renormalise, "routed_scaling_factor": e.scale, "n_group": e.num_groups,
        "topk_group": e.groups_per_token, "n_shared_experts": e.shared_width // e.width,
        "topk_method": "noaux_tc" if e.has_correction else "greedy" if e.num_groups == 1 else "group_limited_greedy",
    }  # fmt: skip
    is_third = a.family == "deepseek_v3"
    return {
        "architectures": ["DeepseekV3ForCausalLM" if is_third else "DeepseekV2ForCausalLM"],
        "model_type": a.family,
        "num_key_value_heads": a.num_heads,
        "head_dim": m.rope_dim,
        "kv_lora_rank": m.rank,
        "q_lora_rank": m.query_rank or None,
        "qk_nope_head_dim": m.nope_dim,
        "qk_rope_head_dim": m.rope_dim,
        "v_head_dim": m.value_dim,
        "first_k_dense_replace": a.num_layers if e is None else e.layers.index(True),
        "rope_parameters": parameters,
        "hidden_act": ACTIVATION_NAMES[a.activation],
        **({"num_nextn_predict_layers": 0} if is_third else {}),
        **({"moe_intermediate_size": 1} | experts),
    }


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder: rotated pairs lie side by side, and keys and values are made by one matrix."""
    m = a.latent
    assert m is not None
    queries = row("self_attn.q_b_proj" if m.query_rank else "self_attn.q_proj", "attention.q_proj",
                  fold=interleaved(m.nope_dim, a.num_heads))  # fmt: skip
    inner = (
        queries,
        row("self_attn.q_a_proj", "attention.q_down"),
        row("self_attn.q_a_layernorm", "attention.q_latent_norm"),
        row("self_attn.kv_a_proj_with_mqa", "attention.kv_down", fold=interleaved(m.rank, 1)),
        row("self_attn.kv_a_layernorm", "attention.latent_norm"),
        row("self_attn.kv_b_proj.weight", "attention.k_up", "attention.v_up", fold=heads_beside(a.num_heads)),
        row("mlp.gate.e_score_correction_bias", "mlp.router.correction"),
    )
    plain = tuple(each for each in plain_rows() if each.ours != ("attention.q_proj",))
    ahead = rf"model\.layers\.({'|'.join(str(a.num_layers + extra) for extra in range(4))})\..*"
    return FileLayout(
        OUTER, (*inner, *plain, *expert_rows("mlp"), *shared_rows("mlp.shared_experts")), ignored=(ahead,)
    )
