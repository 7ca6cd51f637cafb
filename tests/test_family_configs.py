"""The architecture that a config.json describes: what is absent is the family's default, and what is there counts."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.model_config import architecture_of, config_architecture, to_config

LEAST = {"vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 5, "num_attention_heads": 8}
PLAIN = Architecture(
    "llama", 70, 64, 90, 5, 8, num_kv_heads=8, head_dim=8, max_position=2048, norm_eps=1e-6, windows=(None,) * 5,
    ropes=(Rope(),) * 5, tie_embeddings=False,
)  # fmt: skip
FILE = Path("models/config.json")
SCALE = {"attention_scale": 0.0}
"""It is worked out from the head's width."""
NONE = Rope(kind="none")
GEMMA: dict[str, Any] = {"norm_unit_offset": True, "embed_scale": 8.0}
SECOND: dict[str, Any] = {"norm_placement": "sandwich", **GEMMA}
LAYER: dict[str, Any] = {"norm": "layer", "is_gated": False}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"max_position": 131_072, "windows": (4096,) * 5},
    "mixtral": {
        "max_position": 131_072, "norm_eps": 1e-5, "ropes": (Rope(1e6),) * 5,
        "experts": ExpertSettings(8, 2, 90, (True,) * 5),
    },
    "gemma": {"head_dim": 256, "tie_embeddings": True, "activation": "gelu_tanh", "max_position": 8192, **GEMMA},
    "gemma2": {
        "head_dim": 256, "tie_embeddings": True, "activation": "gelu_tanh", "max_position": 8192, "attention_scale": 1 / 16,
        "windows": (4096, None, 4096, None, 4096), "attention_softcap": 50.0, "logit_softcap": 30.0, **SECOND,
    },
    "smollm3": {
        "max_position": 32_768, "tie_embeddings": True, "ropes": (*[Rope(2e6)] * 3, NONE, Rope(2e6)),
    },
    "stablelm": {"max_position": 4096, "norm_eps": 1e-5, "rotary_dim": 2, "norm": "layer"},
    "starcoder2": {
        "max_position": 4096, "norm_eps": 1e-5, "num_kv_heads": 2, "tie_embeddings": True, "activation": "gelu_tanh",
        "qkv_bias": True, "o_bias": True, "mlp_bias": True, **LAYER,
    },
    "phi3": {"max_position": 4096, "norm_eps": 1e-5},
    "qwen2": {"max_position": 32_768, "qkv_bias": True},
    "qwen3": {"max_position": 32_768, "head_dim": 128, "qk_norm": True},
}  # fmt: skip
GIVEN = {
    "num_key_value_heads": 4, "head_dim": 16, "max_position_embeddings": 300, "rope_theta": 500.0, "sliding_window": 7,
    "hidden_act": "gelu",
}  # fmt: skip
TOLD: dict[str, Any] = {
    "num_kv_heads": 4, "head_dim": 16, "max_position": 300, "ropes": (Rope(500.0),) * 5, "activation": "gelu",
}  # fmt: skip
BIASED = {"attention_bias": True, "mlp_bias": True}
WITH_BIAS = {"qkv_bias": True, "o_bias": True}
CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": (
        {**BIASED, "rms_norm_eps": 0.01, "tie_word_embeddings": True},
        {**WITH_BIAS, "mlp_bias": True, "norm_eps": 0.01, "tie_embeddings": True},
    ),
    "mistral": ({"mlp_bias": True, "rms_norm_eps": 0.01}, {"mlp_bias": True, "norm_eps": 0.01, "windows": (7,) * 5}),
    "mixtral": (
        {"num_local_experts": 6, "num_experts_per_tok": 3, "rms_norm_eps": 0.01},
        {"windows": (7,) * 5, "norm_eps": 0.01, "experts": ExpertSettings(6, 3, 90, (True,) * 5)},
    ),
    "gemma": (
        {**BIASED, "tie_word_embeddings": False, "rms_norm_eps": 0.01},
        {**WITH_BIAS, **GEMMA, "norm_eps": 0.01, "activation": "gelu_tanh"},  # what Gemma's files mean by gelu
    ),
    "gemma2": (
        {
            "attention_bias": True, "hidden_activation": "silu", "query_pre_attn_scalar": 16, "final_logit_softcapping": 5.0,
            "attn_logit_softcapping": None, "layer_types": [*["full_attention"] * 4, "sliding_attention"],
        },
        {
            **WITH_BIAS, **SECOND, "activation": "silu", "attention_scale": 0.25, "logit_softcap": 5.0,
            "tie_embeddings": True,
            "windows": (None, None, None, None, 7),
        },
    ),
    "smollm3": (
        {**BIASED, "no_rope_layers": [1, 0, 1, 1, 0], "tie_word_embeddings": False},
        {**WITH_BIAS, "mlp_bias": True, "ropes": (Rope(500.0), NONE, Rope(500.0), Rope(500.0), NONE)},
    ),
    "stablelm": (
        {"partial_rotary_factor": 0.5, "use_qkv_bias": True, "layer_norm_eps": 0.01, "rms_norm_eps": 0.2},
        {"rotary_dim": 8, "qkv_bias": True, "norm_eps": 0.01, "norm": "layer"},
    ),
    "starcoder2": (
        {"use_bias": False, "norm_epsilon": 0.01, "tie_word_embeddings": False},
        {"norm_eps": 0.01, "windows": (7,) * 5, **LAYER},
    ),
    "phi3": (
        {"partial_rotary_factor": 0.5, "rms_norm_eps": 0.01, "tie_word_embeddings": True},
        {"rotary_dim": 8, "norm_eps": 0.01, "windows": (7,) * 5, "tie_embeddings": True},
    ),
    "qwen2": (
        {**BIASED, "use_sliding_window": True, "max_window_layers": 3, "rms_norm_eps": 0.01, "tie_word_embeddings": True},
        {"qkv_bias": True, "norm_eps": 0.01, "windows": (None, None, None, 7, 7), "tie_embeddings": True},
    ),
    "qwen3": (
        {**BIASED, "rms_norm_eps": 0.01, "use_sliding_window": True, "max_window_layers": 0, "layer_types": [
            "sliding_attention", *["full_attention"] * 4]},
        {**WITH_BIAS, "qk_norm": True, "norm_eps": 0.01, "windows": (7, None, None, None, None)},
    ),
}  # fmt: skip


def read(family: str, **more: Any) -> Architecture:
    return config_architecture({"model_type": family, **LEAST, **more}, FILE)


@pytest.mark.parametrize("family", DEFAULTS)
def test_absent_keys_are_the_familys_defaults_and_given_ones_count(family: str) -> None:
    least = read(family)
    assert least == replace(PLAIN, family=family, **{**SCALE, **DEFAULTS[family]})
    given, told = CHANGED[family]
    most = read(family, **GIVEN, **given)
    assert most == replace(PLAIN, family=family, **{**SCALE, **TOLD, **told})
    for each in (least, most):
        written = to_config(each)
        assert (written["model_type"], written["num_hidden_layers"], written["vocab_size"]) == (family, 5, 70)
        assert config_architecture(written, FILE) == each


def test_special_cases_of_windows_layers_and_refused_settings() -> None:
    assert read("mistral", sliding_window=None).windows == (None,) * 5
    assert [read(family, num_attention_heads=16).num_kv_heads for family in ("mistral", "llama", "qwen2", "qwen3")] == [
        8, 16, 16, 16,
    ]  # fmt: skip
    assert read("qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=5).windows == (None,) * 5
    assert read("qwen3", use_sliding_window=True, sliding_window=None).windows == (None,) * 5
    deep = read("qwen2", use_sliding_window=True, sliding_window=7, num_hidden_layers=30)
    assert deep.windows == (*(None,) * 28, 7, 7), "from the layer on that released models have"
    assert read("gemma2", final_logit_softcapping=None).logit_softcap is None
    assert read("gemma2", final_logit_softcapping=None).attention_softcap == 50.0
    assert [rope.kind for rope in read("smollm3", no_rope_layer_interval=2).ropes] == [
        "default", "none", "default", "none", "default",
    ]  # fmt: skip
    assert read("stablelm", partial_rotary_factor=1.0).rotary_dim == 0
    assert read("stablelm", rope_parameters={"rope_theta": 77.0}).rotary_dim == 2
    for family, settings in (
        ("stablelm", {"use_parallel_residual": True}),
        ("stablelm", {"qk_layernorm": True}),
        ("smollm3", {"use_sliding_window": True}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("phi3", {"partial_rotary_factor": 0.0}),
        ("phi3", {"partial_rotary_factor": 1.25}),
        ("llama", {"rope_scaling": {"rope_type": "spiral"}}),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 3.0}}}),
    ):
        with pytest.raises(ModelFileError) as refused:
            read(family, **settings)
        assert str(refused.value).startswith("models/config.json")
    with pytest.raises(ModelFileError, match="is of an encoder"):
        read("bert")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmo2", *(each for each in DEFAULTS if each != "mistral")])
def test_heads_of_a_width_of_their_own_are_kept_in_both_kinds_of_files(family: str, tmp_path: Path) -> None:
    a = read(family, head_dim=16, num_key_value_heads=2, query_pre_attn_scalar=16)
    assert (a.head_dim, a.num_kv_heads) == (16, 2)
    assert config_architecture(to_config(a), FILE) == a
    save_gguf(initialise(Decoder(a)), tmp_path / "model.gguf", dtype="F32")
    found = architecture_of(tmp_path / "model.gguf")
    assert found.norm_eps == pytest.approx(a.norm_eps)  # a float32 in the file
    assert replace(found, norm_eps=a.norm_eps) == a


def test_olmo2_norms_whole_queries_and_keys_after_its_parts_and_has_an_eps_and_a_bias_of_its_own() -> None:
    own: dict[str, Any] = {
        "family": "olmo2", "norm_eps": 1e-5, "norm_placement": "post", "qk_norm": True, "qk_norm_over": "projection",
    }  # fmt: skip
    assert read("olmo2") == replace(PLAIN, **own)
    assert read("olmo2", attention_bias=False) == read("olmo2", mlp_bias=True) == replace(PLAIN, **own)
    assert read("olmo2", attention_bias=True) == replace(PLAIN, **own, **WITH_BIAS)
    told = {**SCALE, **own, **TOLD, "norm_eps": 0.01, "tie_embeddings": True}
    assert read("olmo2", **GIVEN, rms_norm_eps=0.01, tie_word_embeddings=True) == replace(PLAIN, **told)
    assert config_architecture(to_config(read("olmo2", attention_bias=True)), FILE) == read(
        "olmo2", attention_bias=True
    )
    assert read("olmo2", num_hidden_layers=2) == replace(
        PLAIN, **own, num_layers=2, windows=(None,) * 2, ropes=(Rope(),) * 2
    )


def rope(**parameters: Any) -> Rope:
    config = {"max_position_embeddings": 4096, "rope_theta": 300.0, "rope_scaling": parameters}
    return read("llama", **config).ropes[0]


def test_each_kind_of_rope_is_read_with_what_it_leaves_out_and_written_back() -> None:
    stretched = 0.1 * math.log(4) + 1
    found = {
        "linear": rope(type="linear", factor=4.0),
        "llama3": rope(
            rope_type="llama3", factor=8.0, low_freq_factor=2.0, high_freq_factor=5.0,
            original_max_position_embeddings=512,
        ),
        "yarn": rope(rope_type="yarn", original_max_position_embeddings=1024),
        "yarn, all": rope(
            rope_type="yarn", factor=6.0, original_max_position_embeddings=512, beta_fast=16.0, beta_slow=2.0,
            attention_factor=1.3, truncate=False,
        ),
        "yarn, weighed": rope(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=8, mscale=0.5, mscale_all_dim=2.0
        ),
        "yarn, one weight": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=8, mscale=0.5),
        "yarn, zeros": rope(rope_type="yarn", factor=1.0, beta_fast=0.0, beta_slow=0.0),
        "su": rope(
            type="su", original_max_position_embeddings=1024, long_factor=[2.0, 3.0, 4.0, 5.0],
            short_factor=[1.0, 1.5, 1.0, 1.0],
        ),
        "longrope": rope(
            type="yarn", factor=1.0, long_factor=[2.0] * 4, short_factor=[1.0] * 4, original_max_position_embeddings=64
        ),
    }  # fmt: skip
    expected = {
        "linear": Rope(300.0, "linear", 4.0),
        "llama3": Rope(300.0, "llama3", 8.0, 512, low_freq_factor=2.0, high_freq_factor=5.0),
        "yarn": Rope(300.0, "yarn", 4.0, 1024, attention_factor=stretched),
        "yarn, all": Rope(
            300.0, "yarn", 6.0, 512, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3, truncate=False
        ),
        "yarn, weighed": Rope(
            300.0, "yarn", 4.0, 8, attention_factor=(0.05 * math.log(4) + 1) / (0.2 * math.log(4) + 1)
        ),
        "yarn, one weight": Rope(300.0, "yarn", 4.0, 8, attention_factor=stretched),
        "yarn, zeros": Rope(300.0, "yarn", 1.0, 4096),
        "su": Rope(
            300.0, "longrope", 4.0, 1024, attention_factor=math.sqrt(1 + math.log(4) / math.log(1024)),
            divisors=(2.0, 3.0, 4.0, 5.0), short_divisors=(1.0, 1.5, 1.0, 1.0),
        ),
        "longrope": Rope(300.0, "longrope", 1.0, 64, divisors=(2.0,) * 4, short_divisors=(1.0,) * 4),
    }  # fmt: skip
    assert found == expected
    for each in found.values():
        model = replace(PLAIN, max_position=4096, ropes=(each,) * 5)
        assert config_architecture(to_config(model), FILE) == model
    dynamic = read("llama", max_position_embeddings=4096, rope_scaling={"type": "dynamic", "factor": 2.5})
    assert dynamic.ropes[0] == Rope(10_000.0, "dynamic", 2.5, 4096)
    assert dynamic.max_position == 10_240
    assert config_architecture(to_config(dynamic), FILE) == dynamic
    for family in ("mistral", "qwen2", "qwen3"):
        scaled = read(family, max_position_embeddings=4096, rope_scaling={"type": "dynamic", "factor": 2.5})
        assert (scaled.max_position, scaled.ropes) == (10_240, dynamic.ropes), "stretched as llama's"
    own = {"original_max_position_embeddings": 512, "factor": 2.5}
    assert read("llama", max_position_embeddings=4096, rope_scaling={"type": "dynamic", **own}).ropes == dynamic.ropes
    long = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    for kind in (
        {"type": "su", **long},
        {"type": "yarn"},
        {"type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0},
    ):
        top = {"max_position_embeddings": 4096, "original_max_position_embeddings": 1024}
        inner = {**kind, "original_max_position_embeddings": 256}
        beside, within = (
            read("llama", **top, rope_scaling=kind),
            read("llama", max_position_embeddings=4096, rope_scaling=inner),
        )
        assert read("llama", **top | {"original_max_position_embeddings": 256}, rope_scaling=inner) == within
        with pytest.raises(
            ModelFileError, match="original_max_position_embeddings is '1024': expected 256, as in rope_scaling"
        ):
            read("llama", **top, rope_scaling=inner)  # other programs read one or the other
        assert (beside.ropes[0].original_max_position, within.ropes[0].original_max_position) == (1024, 256)
        assert (beside.ropes[0].factor, within.ropes[0].factor) == (kind.get("factor", 4.0), kind.get("factor", 16.0))
    both = read("llama", rope_theta=77.0, rope_parameters={"rope_theta": 77.0}, rope_scaling={"type": "default"})
    assert both.ropes[0] == Rope(77.0)
    for unsaid in (Rope(kind="ntk", factor=2.0), Rope(kind="divided", divisors=(1.0,) * 4)):
        with pytest.raises(ConfigError, match=r"config\.json cannot express"):
            to_config(replace(PLAIN, ropes=(unsaid,) * 5))
