"""BART (Lewis et al., 2020), and Marian, which is the Transformer of 2017: post-norm, biases, sinusoidal positions.

The two differ in positions (BART's are learned, from row 2 on) and BART's LayerNorm after the embeddings. Imports no torch.
"""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Activation
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture

MODEL_TYPES = ("bart", "marian")
ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "relu": "relu", "swish": "silu", "silu": "silu"}
ATTENTION = {f"{part}_proj": f"{theirs}_proj" for part, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"))}


def from_config(config: Fields) -> EncoderDecoderArchitecture:
    """The architecture in a Hugging Face config.json."""
    is_bart, width = config.text("model_type") == "bart", config.integer("d_model")
    if config.flag("normalize_before", False) or config.flag("add_final_layer_norm", False):
        raise config.error("normalize_before", True, "false, with no final norm (mBART's order is another)")
    if not config.flag("share_encoder_decoder_embeddings", True):
        raise config.error("share_encoder_decoder_embeddings", False, "true")
    heads = config.integer("encoder_attention_heads", 16)
    return EncoderDecoderArchitecture(
        family=config.text("model_type"),
        vocab_size=config.integer("vocab_size"),
        hidden_size=width,
        num_encoder_layers=config.num_layers("encoder_layers"),
        num_decoder_layers=config.num_layers("decoder_layers"),
        encoder_heads=heads,
        decoder_heads=config.integer("decoder_attention_heads", 16),
        head_dim=width // heads if heads and width % heads == 0 else 0,
        encoder_width=config.integer("encoder_ffn_dim", 4096),
        decoder_width=config.integer("decoder_ffn_dim", 4096),
        positions="learned" if is_bart else "sinusoidal",
        max_position=config.integer("max_position_embeddings", 1024),
        norm_eps=1e-5,
        activation=config.choice("activation_function", ACTIVATIONS, "gelu"),
        position_offset=2 if is_bart else 0,
        embed_norm=is_bart,
        embed_scale=width**0.5 if width and config.flag("scale_embedding", False) else 1.0,
        has_logit_bias=True,
        decoder_start=config.integer("decoder_start_token_id", 2),
        end=config.integer("eos_token_id", 2),
    )


def to_config(a: EncoderDecoderArchitecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    is_bart = a.family == "bart"
    return {
        "architectures": ["BartForConditionalGeneration" if is_bart else "MarianMTModel"],
        "model_type": a.family,
        "d_model": a.hidden_size,
        "encoder_layers": a.num_encoder_layers,
        "decoder_layers": a.num_decoder_layers,
        "encoder_attention_heads": a.encoder_heads,
        "decoder_attention_heads": a.decoder_heads,
        "encoder_ffn_dim": a.encoder_width,
        "decoder_ffn_dim": a.decoder_width,
        "max_position_embeddings": a.max_position,
        "pad_token_id": 1 if is_bart else a.decoder_start,
        "activation_function": "swish" if a.activation == "silu" else a.activation,
        "scale_embedding": a.embed_scale != 1.0,
        "tie_word_embeddings": a.tie_embeddings,
    }


def names(a: EncoderDecoderArchitecture) -> dict[str, str]:
    """The Hugging Face names of modules: whole ones, and those of a layer by `encoder.{layer}` and `decoder.{layer}`."""
    found = {"embed": "model.shared", "lm_head": "lm_head", "logit_bias": "final_logits_bias"}
    for stack in ("encoder", "decoder"):
        found[f"{stack}.positions"] = f"model.{stack}.embed_positions"
        found[f"{stack}.embed_norm"] = f"model.{stack}.layernorm_embedding"
        rows = {"mlp.up_proj": "fc1", "mlp.down_proj": "fc2", "mlp_norm": "final_layer_norm"}
        for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
            rows[f"{ours}_norm"] = f"{theirs}_layer_norm"
            rows |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in ATTENTION.items()}
        found |= {f"{stack}.layers.{{}}.{ours}": f"model.{stack}.layers.{{}}.{theirs}" for ours, theirs in rows.items()}
    return found
