"""Rotary positions against transformers' own frequencies, and against what rotation means."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.rope import frequencies, rotate, rotation
from firsthand.nn.decoder import Decoder
from firsthand.nn.families.rope_config import rope_from_config, rope_from_gguf, rope_to_parameters

torch.set_num_threads(1)
CASES: dict[str, dict[str, Any]] = {
    "linear": dict(rope_type="linear", rope_theta=1e4, factor=4.0),
    "llama_3_1": dict(
        rope_type="llama3",
        rope_theta=5e5,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    ),
    "llama_3_2": dict(
        rope_type="llama3",
        rope_theta=5e5,
        factor=32.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    ),
    "qwen_yarn": dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768),
    "yarn_whole": dict(
        rope_type="yarn", rope_theta=1.5e5, factor=32.0, original_max_position_embeddings=4096, truncate=False
    ),
    "yarn_betas": dict(
        rope_type="yarn", rope_theta=1e4, factor=16.0, original_max_position_embeddings=4096, beta_fast=16, beta_slow=2
    ),
    "yarn_mscale": dict(
        rope_type="yarn",
        rope_theta=1e4,
        factor=40.0,
        original_max_position_embeddings=4096,
        mscale=0.707,
        mscale_all_dim=1.2,
    ),
    "yarn_attention_factor": dict(
        rope_type="yarn", rope_theta=1e4, factor=40.0, original_max_position_embeddings=4096, attention_factor=1.5
    ),
}


def config_of(parameters: dict[str, Any], head_dim: int) -> Any:
    return transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=131_072,
        rope_parameters=dict(parameters),
    )


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str, head_dim: int) -> None:
    config = config_of(CASES[name], head_dim)
    expected_P, scale = ROPE_INIT_FUNCTIONS[CASES[name]["rope_type"]](config, device="cpu")
    rope = rope_from_config(Fields(config.to_dict(), "config"))
    torch.testing.assert_close(frequencies(rope, head_dim), expected_P, rtol=2e-6, atol=0)
    assert rope.attention_factor == pytest.approx(scale)
    again = rope_from_config(Fields({"rope_parameters": rope_to_parameters(rope)}, "config"))
    assert again == rope


def test_yarn_without_a_factor_takes_the_ratio_of_lengths() -> None:
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "original_max_position_embeddings": 4096, "factor": None}
    config = Fields({"max_position_embeddings": 65_536, "rope_scaling": parameters}, "config")
    assert rope_from_config(config).factor == 16


def test_a_base_stands_in_only_where_the_file_has_none() -> None:
    for config, theta in (({}, 5e5), ({"rope_theta": 3e4}, 3e4), ({"rope_parameters": {"rope_theta": 2e4}}, 2e4),
                          ({"rope_theta": 3e4, "rope_scaling": {"rope_theta": 2e4}}, 2e4)):  # fmt: skip
        assert rope_from_config(Fields(config, "config"), theta=5e5) == Rope(theta)
    assert rope_from_config(Fields({}, "config")) == Rope(1e4)


def gguf_rope(head_dim: int = 64, **metadata: Any) -> Rope:
    given = {f"llama.{name}": value for name, value in {"context_length": 8192, **metadata}.items()}
    return rope_from_gguf(GGUF(Path("m.gguf"), given, {}), Fields(given, "m.gguf", "llama."), head_dim)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({}, Rope()),
        ({"rope.freq_base": 5e5}, Rope(5e5)),
        ({"rope.dimension_count": 64}, Rope()),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, Rope()),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 0.0}, Rope()),
        ({"rope.scale_linear": 2.0}, Rope(kind="linear", factor=2.0)),
        ({"rope.scaling.factor": 8.0, "rope.scale_linear": 2.0}, Rope(kind="linear", factor=8.0)),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
         Rope(kind="yarn", factor=4.0, original_max_position=8192, attention_factor=0.1 * math.log(4) + 1)),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 1.0},
         Rope(kind="yarn", factor=1.0, original_max_position=8192, attention_factor=1.0)),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 2048,
          "rope.scaling.attn_factor": 0.5, "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0},
         Rope(kind="yarn", factor=4.0, original_max_position=2048, beta_fast=16.0, beta_slow=2.0,
              attention_factor=0.5 * (0.1 * math.log(4) + 1))),
    ],
)  # fmt: skip
def test_the_rope_of_a_gguf_file_is_what_its_fields_say(metadata: dict[str, Any], found: Rope) -> None:
    made = gguf_rope(**metadata)
    assert replace(made, attention_factor=1.0) == replace(found, attention_factor=1.0)
    assert made.attention_factor == pytest.approx(found.attention_factor, rel=1e-12)


@pytest.mark.parametrize("metadata", [{"rope.dimension_count": 32}, {"rope.scaling.type": "longrope"}])
def test_a_rope_that_a_gguf_file_has_and_we_have_not_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match=next(iter(metadata))):
        gguf_rope(**metadata)


def test_a_blend_that_reaches_beyond_the_last_pair_ends_where_yarns_code_ends_it() -> None:
    """Against YaRN's own rule written out: bounds from 0 to the head's dimensions less one."""
    rope = Rope(theta=400.0, kind="yarn", factor=8.0, original_max_position=4096, beta_slow=1e-6)
    dim = 16
    turning = [dim * math.log(4096 / (beta * 2 * math.pi)) / (2 * math.log(400.0)) for beta in (32.0, 1e-6)]
    low, high = max(math.floor(turning[0]), 0), min(math.ceil(turning[1]), dim - 1)
    assert turning[1] > dim and 0 < low < high
    plain = [400.0 ** (-2 * pair / dim) for pair in range(dim // 2)]
    ramp = [min(max((pair - low) / (high - low), 0.0), 1.0) for pair in range(dim // 2)]
    expected = [each / 8 * share + each * (1 - share) for each, share in zip(plain, ramp, strict=True)]
    assert frequencies(rope, dim).tolist() == pytest.approx(expected, rel=1e-5)


def test_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    q_NHK, k_NHK = torch.randn(1, 3, 16), torch.randn(1, 3, 16)
    frequencies_P = frequencies(Rope(1e4), 16)

    def score(q_position: int, k_position: int) -> torch.Tensor:
        turned = [
            rotate(x, rotation(frequencies_P, torch.tensor([position]), dtype=torch.float32))
            for x, position in ((q_NHK, q_position), (k_NHK, k_position))
        ]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(score(7, 3), score(104, 100), atol=1e-4, rtol=0)
    assert (score(7, 3) - score(7, 4)).abs().max() > 1e-2


def test_a_model_in_bfloat16_keeps_its_angles_in_float32() -> None:
    model = Decoder(Architecture("llama", 50, 32, 48, 2, 2, 2, 16, 64, 1e-5, (None,) * 2, (Rope(),) * 2, False))
    before = model.rotations(torch.tensor([1000]), torch.float32)
    after = model.to(torch.bfloat16).rotations(torch.tensor([1000]), torch.float32)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[rope].cos, after[rope].cos) for rope in before)


@pytest.mark.parametrize(
    "settings",
    [
        dict(theta=0.5),
        dict(theta=float("inf")),
        dict(kind="linear", factor=0.0),
        dict(kind="llama3", factor=8.0),
        dict(kind="llama3", factor=8.0, original_max_position=8192, high_freq_factor=1.0),
        dict(kind="yarn", factor=8.0, original_max_position=8192, beta_fast=0.5),
        dict(kind="yarn", factor=8.0, original_max_position=8192, beta_slow=0.0),
        dict(kind="yarn", factor=8.0, original_max_position=8192, beta_fast=2.0, beta_slow=2.0001),
        dict(theta=1.0),
        dict(attention_factor=0.0),
        dict(kind="llama3", factor=8.0, original_max_position=8192, low_freq_factor=0.0),
        dict(kind="llama3", factor=8.0, original_max_position=8192, low_freq_factor=4.0),
        dict(kind="divided"),
        dict(kind="divided", divisors=(1.0, 0.0)),
    ],
)
def test_ropes_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rope"):
        Rope(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        dict(theta=1.0001),
        dict(kind="yarn", factor=8.0, original_max_position=1, beta_fast=2.0, beta_slow=2.0),
        dict(kind="llama3", factor=0.5, original_max_position=8192, low_freq_factor=3.999),
        dict(kind="divided", divisors=(0.5,)),
    ],
)
def test_ropes_at_the_edge_of_what_works_are_taken(settings: dict[str, Any]) -> None:
    assert Rope(**settings).kind == settings.get("kind", "default")
