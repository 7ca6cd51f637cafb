"""T5 (Raffel et al., 2020), and T5 v1.1 and Flan-T5 with gated MLPs and a head of their own. Imports no torch."""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Activation
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.families import llama

MODEL_TYPES = ("t5",)
KINDS: dict[str, tuple[Activation, bool]] = {
    "relu": ("relu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
    "gelu": ("gelu", False),
}
"""Activation, and whether there is a gate, of each `feed_forward_proj`."""
ACTIVATIONS: dict[str, Activation] = {"relu": "relu", **llama.ACTIVATIONS}
ENCODER = {
    "self_attention.q_proj": "layer.0.SelfAttention.q",
    "self_attention.k_proj": "layer.0.SelfAttention.k",
    "self_attention.v_proj": "layer.0.SelfAttention.v",
    "self_attention.o_proj": "layer.0.SelfAttention.o",
    "self_attention_norm": "layer.0.layer_norm",
}
CROSS = {name.replace("self", "cross"): theirs.replace("0.Self", "1.EncDec") for name, theirs in ENCODER.items()}
CROSS["cross_attention_norm"] = "layer.1.layer_norm"


def from_config(config: Fields) -> EncoderDecoderArchitecture:
    """The architecture in a Hugging Face config.json."""
    activation, is_gated = config.choice("feed_forward_proj", KINDS, "relu")
    width, layers = config.integer("d_model"), config.num_layers("num_layers")
    heads, inner = config.integer("num_heads"), config.integer("d_ff")
    # transformers saves these two beside it, and reads them in its place
    if config.has("dense_act_fn") and config.choice("dense_act_fn", ACTIVATIONS) != activation:
        raise config.error("dense_act_fn", config.values["dense_act_fn"], f"{activation}, as in feed_forward_proj")
    if config.flag("is_gated_act", is_gated) != is_gated:
        raise config.error("is_gated_act", not is_gated, f"{str(is_gated).lower()}, as in feed_forward_proj")
    is_scaled = config.flag(
        "scale_decoder_outputs",  # null is false, for transformers
        "scale_decoder_outputs" not in config.values and config.flag("tie_word_embeddings", True),
    )
    return EncoderDecoderArchitecture(
        family="t5",
        vocab_size=config.integer("vocab_size"),
        hidden_size=width,
        num_encoder_layers=layers,
        num_decoder_layers=config.num_layers("num_decoder_layers") if config.has("num_decoder_layers") else layers,
        encoder_heads=heads,
        decoder_heads=heads,
        head_dim=config.integer("d_kv", 64),
        encoder_width=inner,
        decoder_width=inner,
        positions="relative",
        max_position=config.integer("n_positions", 512) or 512,
        norm_eps=config.number("layer_norm_epsilon", 1e-6),
        is_t5=True,
        activation=activation,
        is_gated=is_gated,
        num_buckets=config.integer("relative_attention_num_buckets", 32),
        max_distance=config.integer("relative_attention_max_distance", 128),
        logit_scale=(width**-0.5 if width else 1.0) if is_scaled else 1.0,
        decoder_start=config.integer("decoder_start_token_id", config.integer("pad_token_id", 0)),
        end=config.integer("eos_token_id", 1),
    )


def to_config(a: EncoderDecoderArchitecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    kind = next(kind for kind, each in KINDS.items() if each == (a.activation, a.is_gated))
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": a.hidden_size,
        "d_kv": a.head_dim,
        "d_ff": a.encoder_width,
        "num_layers": a.num_encoder_layers,
        "num_decoder_layers": a.num_decoder_layers,
        "num_heads": a.encoder_heads,
        "n_positions": a.max_position,
        "relative_attention_num_buckets": a.num_buckets,
        "relative_attention_max_distance": a.max_distance,
        "feed_forward_proj": kind,
        "layer_norm_epsilon": a.norm_eps,
        "tie_word_embeddings": a.logit_scale != 1.0,
        "pad_token_id": 0,
    }


def names(a: EncoderDecoderArchitecture) -> dict[str, str]:
    """The Hugging Face names of modules: whole ones, and those of a layer by `encoder.{layer}` and `decoder.{layer}`."""
    gate = {"mlp.gate_proj": "wi_0", "mlp.up_proj": "wi_1"} if a.is_gated else {"mlp.up_proj": "wi"}
    found = {"embed": "shared", "lm_head": "lm_head"}
    for stack, rows, last in (("encoder", ENCODER, 1), ("decoder", ENCODER | CROSS, 2)):
        found[f"{stack}.norm"] = f"{stack}.final_layer_norm"
        found[f"{stack}.buckets"] = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        mlp = {
            ours: f"layer.{last}.DenseReluDense.{theirs}" for ours, theirs in (gate | {"mlp.down_proj": "wo"}).items()
        }
        mlp["mlp_norm"] = f"layer.{last}.layer_norm"
        found |= {
            f"{stack}.layers.{{}}.{ours}": f"{stack}.block.{{}}.{theirs}" for ours, theirs in (rows | mlp).items()
        }
    return found
