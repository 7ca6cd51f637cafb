"""Family readers pinned to numbers: scales of queries and embeddings, layer patterns, and what GGUF leaves to the reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import GGUF
from firsthand.formats.model_files import TensorInfo
from firsthand.nn.architecture import Architecture, LatentSettings
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.families.deepseek_gguf import to_gguf as deepseek_gguf
from firsthand.nn.families.gemma import from_gguf_values
from firsthand.nn.model_config import config_architecture, gguf_architecture, to_config

SHAPES = {  # of the released models: layers, width, heads, kv heads, head_dim, the query scale's divisor
    "1b": (26, 1152, 4, 1, 256, 256),
    "4b": (34, 2560, 8, 4, 256, 256),
    "12b": (48, 3840, 16, 8, 256, 256),
    "27b": (62, 5376, 32, 16, 128, 168),
}


def gguf_of(layers: int, width: int, heads: int, kv_heads: int, head_dim: int, **more: Any) -> Architecture:
    fields = {
        "block_count": layers, "embedding_length": width, "attention.head_count": heads, "attention.head_count_kv": kv_heads,
        "attention.key_length": head_dim, "attention.sliding_window": 1024, "feed_forward_length": 4 * width,
        "context_length": 131_072, "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
    } | more  # fmt: skip
    metadata = {"general.architecture": "gemma3", **{f"gemma3.{key}": value for key, value in fields.items()}}
    embedding = TensorInfo("token_embd.weight", (262_144, width), "F32", 0, 4 * 262_144 * width)
    return gguf_architecture(GGUF(Path("made.gguf"), metadata, {"token_embd.weight": embedding}))[1]


@pytest.mark.parametrize("size", SHAPES)
def test_gemmas_queries_are_scaled_by_head_dim_but_in_27b_by_width_over_heads(size: str) -> None:
    layers, width, heads, kv_heads, head_dim, divisor = SHAPES[size]
    found = gguf_of(layers, width, heads, kv_heads, head_dim)
    assert found.attention_scale == pytest.approx(divisor**-0.5, rel=1e-12)
    assert found.embed_scale == pytest.approx(width**0.5, rel=1e-12)
    config = Gemma3TextConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=head_dim, query_pre_attn_scalar=divisor, intermediate_size=4 * width, vocab_size=262_144,
        sliding_window=1024,
    )  # fmt: skip
    theirs = config_architecture(config.to_dict(), Path("config.json"))
    assert theirs.attention_scale == found.attention_scale and theirs.embed_scale == found.embed_scale
    assert theirs.windows == found.windows and [rope.theta for rope in theirs.ropes] == [
        rope.theta for rope in found.ropes
    ]
    assert (found.num_kv_heads, found.head_dim, found.vocab_size) == (kv_heads, head_dim, 262_144)
    assert replace(found, family="x", intermediate_size=1, max_position=1) == replace(
        theirs, family="x", intermediate_size=1, max_position=1
    )


def test_every_sixth_layer_of_gemma_is_global_and_has_the_long_rope() -> None:
    found = gguf_of(13, 64, 2, 1, 32)
    assert [window is None for window in found.windows] == [(layer + 1) % 6 == 0 for layer in range(13)]
    assert [rope.theta for rope in found.ropes] == [1e6 if (layer + 1) % 6 == 0 else 1e4 for layer in range(13)]
    other = gguf_of(4, 64, 2, 1, 32, **{"attention.sliding_window_pattern": 2, "rope.freq_base_swa": 5e3})
    assert other.windows == (1024, None, 1024, None) and other.ropes[0].theta == 5e3


def test_gguf_stores_gemmas_norms_with_the_one_added() -> None:
    values, architecture = torch.tensor([1.5, 0.75]), gguf_of(6, 64, 2, 1, 32)
    assert from_gguf_values("layers.0.attention_norm.weight", values, architecture).tolist() == [0.5, -0.25]
    assert from_gguf_values("layers.0.attention.q_proj.weight", values, architecture) is values


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [1152, 5376])
def test_the_embedding_scale_is_rounded_to_the_models_dtype_as_in_transformers(width: int, dtype: torch.dtype) -> None:
    theirs = Gemma3TextScaledWordEmbedding(7, width, 0, embed_scale=width**0.5)
    architecture = replace(tiny_model().architecture, vocab_size=7, hidden_size=32, embed_scale=width**0.5)
    model = initialise(Decoder(architecture), seed=1, std=0.3).to(dtype)
    with torch.no_grad():
        theirs.weight[:, :32] = model.embed.weight
    seen: list[torch.Tensor] = []
    ids = torch.arange(7)
    with torch.inference_mode():
        model(ids, ids, Packed([7]), taps={"embed": lambda x: seen.append(x.clone())})
        expected = theirs.to(dtype)(ids)[:, :32]
    assert seen[0].dtype == dtype and torch.equal(seen[0], expected)
    if dtype == torch.bfloat16:  # 33.94 is 34 in bfloat16, and 73.32 is 73.5: to scale in float32 gives other numbers
        wide = (model.embed.weight.float() * width**0.5).to(dtype)
        assert not torch.equal(seen[0], wide)


def gemma(model_type: str, **more: Any) -> Any:
    values = {
        "model_type": model_type, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, **more,
    }  # fmt: skip
    return config_architecture(values, Path("config.json"))


def test_gelu_of_the_first_gemma_is_its_tanh_approximation() -> None:
    assert gemma("gemma", hidden_act="gelu").activation == "gelu_tanh" == gemma("gemma").activation
    assert gemma("gemma", hidden_act="gelu", hidden_activation=None).activation == "gelu_tanh"
    assert gemma("gemma", hidden_act="silu").activation == "silu"
    for act in ("gelu", "gelu_pytorch_tanh"):
        assert gemma("gemma", hidden_act="gelu", hidden_activation=act).activation == "gelu_tanh"
    assert gemma("gemma", hidden_act="silu", hidden_activation="silu").activation == "silu"
    for fields in (
        {"hidden_act": "silu", "hidden_activation": "gelu"}, {"hidden_activation": "silu"}, {"hidden_activation": "gelu"},
        {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu"},
        {"hidden_act": "gelu", "hidden_activation": "silu"},
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=r"hidden_activation is '.*': expected .*, as hidden_act says"):
            gemma("gemma", **fields)
    assert (
        gemma("gemma2", hidden_act="gelu").activation == "gelu" == gemma("gemma2", hidden_activation="gelu").activation
    )


def test_a_gemma_3_without_windows_is_written_as_transformers_reads_it() -> None:
    a = gemma("gemma3_text", layer_types=["full_attention"] * 2)
    written = to_config(a)
    assert (
        a.windows == (None, None)
        and written["sliding_window"] == 4096
        and config_architecture(written, Path("config.json")) == a
    )
    assert Gemma3TextConfig(**written).sliding_window == 4096


def test_a_deepseek_model_without_experts_is_no_gguf() -> None:
    latent = LatentSettings(rank=16, nope_dim=8, rope_dim=8, value_dim=8, query_rank=0)
    with pytest.raises(ConfigError, match="cannot express a DeepSeek model without experts, so save safetensors"):
        deepseek_gguf(SimpleNamespace(experts=None, latent=latent, ropes=(None,)))  # type: ignore[arg-type]
