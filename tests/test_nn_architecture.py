"""Architectures as data: counting without building, and refusing what cannot work."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.decoder import Decoder
from firsthand.nn.matrices import num_parameters

SMOLLM2_135M = Architecture(
    family="llama",
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    max_position=8192,
    norm_eps=1e-5,
    windows=(None,) * 30,
    ropes=(Rope(1e5),) * 30,
    tie_embeddings=True,
)


def test_known_models_have_their_published_numbers() -> None:
    assert num_parameters(SMOLLM2_135M) == 134_515_008
    assert SMOLLM2_135M.kv_bytes_per_token(2) == 30 * 2 * 3 * 64 * 2
    llama_3_8b = dataclasses.replace(
        SMOLLM2_135M,
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        attention_scale=0,
        windows=(None,) * 32,
        ropes=(Rope(5e5),) * 32,
        tie_embeddings=False,
    )
    assert num_parameters(llama_3_8b) == 8_030_261_248
    assert llama_3_8b.kv_bytes_per_token(2) == 131_072
    assert llama_3_8b.attention_scale == 128**-0.5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(tie_embeddings=False, qkv_bias=True),
        dict(o_bias=True, mlp_bias=True, qk_norm=True),
        dict(norm_placement="sandwich", qk_norm=True, num_heads=6),
    ],
)
def test_counted_parameters_are_those_built(changes: dict[str, Any]) -> None:
    architecture = dataclasses.replace(SMOLLM2_135M, **changes)
    with torch.device("meta"):
        built = Decoder(architecture)
    assert sum(parameter.numel() for parameter in built.parameters()) == num_parameters(architecture)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(vocab_size=0), "vocab_size is 0"),
        (dict(num_kv_heads=4), "multiple of num_kv_heads"),
        (dict(head_dim=63), "even"),
        (dict(windows=(None,) * 29), "one for each of 30 layers"),
        (dict(windows=(0,) * 30), "windows"),
        (dict(ropes=()), "one for each of 30 layers"),
        (dict(ropes=(Rope(1e5, "divided", divisors=(1.0,)),) * 30), "32 divisors"),
        (dict(norm_eps=0.0), "norm_eps"),
        (dict(logit_softcap=0.0), "logit_softcap"),
        (dict(embed_scale=0.0), "embed_scale"),
        (dict(num_heads=3 << 20, head_dim=1 << 20), "wide"),
    ],
)
def test_architectures_that_cannot_work_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        dataclasses.replace(SMOLLM2_135M, **changes)


@pytest.mark.parametrize(
    ("fits", "over", "sentence"),
    [
        (dict(vocab_size=2**24 - 1), dict(vocab_size=2**24), "a layer is 16777216 wide"),
        (dict(hidden_size=2**24 - 1), dict(hidden_size=2**24), "a layer is 16777216 wide"),
        (dict(intermediate_size=2**24 - 1), dict(intermediate_size=2**24), "a layer is 16777216 wide"),
        (
            dict(num_heads=3, head_dim=2**22, num_kv_heads=3),
            dict(num_heads=3 * 2**7, head_dim=2**16),
            "a layer is 25165824 wide",
        ),
        (dict(max_position=2**31 - 1), dict(max_position=2**31), "max_position is 2147483648"),
        (dict(windows=(1,) * 30), dict(windows=(*(1,) * 29, 0)), "windows"),
        (dict(norm_eps=0.999), dict(norm_eps=1.0), "norm_eps is 1.0"),
        (dict(attention_scale=0.0), dict(attention_scale=-0.1), "attention_scale is -0.1"),
        (dict(attention_softcap=0.1), dict(attention_softcap=0.0), "attention_softcap is 0.0"),
        (dict(logit_softcap=None), dict(logit_softcap=math.inf), "logit_softcap is inf"),
        (dict(embed_scale=1e-9), dict(embed_scale=math.nan), "embed_scale is nan"),
    ],
)
def test_architectures_at_each_bound_are_taken_and_beyond_it_refused(
    fits: dict[str, Any], over: dict[str, Any], sentence: str
) -> None:
    found = dataclasses.replace(SMOLLM2_135M, **fits)
    assert found.attention_scale == (
        found.head_dim**-0.5 if "attention_scale" in fits else SMOLLM2_135M.attention_scale
    )
    with pytest.raises(ConfigError, match=sentence):
        dataclasses.replace(SMOLLM2_135M, **over)


def test_parts_that_do_not_fit_the_layers_and_heads_are_refused_and_those_that_just_do_are_taken() -> None:
    def experts(layers: int) -> ExpertSettings:
        return ExpertSettings(4, 2, 8, (True,) * layers)

    latent, wrong = LatentSettings(24, 8, 4, 10), LatentSettings(24, 8, 6, 10)
    slopes = tuple(0.5**n for n in range(9))
    narrow = {"num_kv_heads": 1, "head_dim": 28, "rotary_dim": 4}
    for fits in (
        {"rotary_dim": 64}, {"rotary_dim": 2}, {"alibi_slopes": slopes}, {"learned_positions": 8192},
        {"learned_positions": 2**24 - 1}, {"clip_qkv": 0.1}, {"activation_limit": 0.1}, {"experts": experts(30)},
        {"latent": latent, **narrow},
    ):  # fmt: skip
        found = dataclasses.replace(SMOLLM2_135M, **fits)
        assert {name: getattr(found, name) for name in fits} == fits
    even = "an even number of at most head_dim (64)"
    for over, expected in (
        ({"rotary_dim": 66}, even), ({"rotary_dim": 3}, even), ({"rotary_dim": -2}, even),
        ({"alibi_slopes": slopes[:8]}, "9 numbers, one for each head"),
        ({"alibi_slopes": (*slopes, 1.0)}, "9 numbers, one for each head"),
        ({"alibi_slopes": (*slopes[:8], math.inf)}, "9 numbers, one for each head"),
        ({"learned_positions": -1}, "0 or more, and less than 2**24"),
        ({"learned_positions": 2**24}, "0 or more, and less than 2**24"),
        ({"learned_positions": 8191}, "a row for each of max_position (8192) or more"),
        ({"clip_qkv": 0.0}, "None or above 0"), ({"clip_qkv": math.inf}, "None or above 0"),
        ({"activation_limit": 0.0}, "above 0"), ({"activation_limit": math.nan}, "above 0"),
        ({"experts": experts(29)}, "a choice for each of 30 layers"),
        ({"experts": experts(31)}, "a choice for each of 30 layers"),
        ({"latent": latent, **narrow, "num_kv_heads": 3}, "one KV head of rank + rope_dim values"),
        ({"latent": latent, **narrow, "head_dim": 30}, "one KV head of rank + rope_dim values"),
        ({"latent": wrong, **narrow, "head_dim": 30}, "rope_dim values that are rotated"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            dataclasses.replace(SMOLLM2_135M, **over)  # type: ignore[arg-type]
        field = next(iter(over))
        assert str(told.value) == f"{field} is {over[field]}: expected {expected}"  # type: ignore[index]


def test_sizes_lists_and_scales_that_do_not_fit_are_refused_by_what_was_expected() -> None:
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
             "max_position")  # fmt: skip
    wrong: list[tuple[str, dict[str, Any], str]] = [
        (size, {size: value}, "a whole number of 1 or more") for size in sizes for value in (0, 2**31)
    ]
    most, layers = "None or above 0", "one for each of 30 layers"
    pairs = (Rope(1e5),) * 29
    divided = Rope(1e5, "divided", divisors=(1.0,) * 31)
    long = Rope(1e5, "longrope", 4.0, 1024, divisors=(2.0,) * 31, short_divisors=(1.0,) * 31)
    wrong += [
        ("num_heads", {"num_kv_heads": 2}, "a multiple of num_kv_heads (2)"),
        ("num_heads", {"num_kv_heads": 18}, "a multiple of num_kv_heads (18)"),
        ("head_dim", {"head_dim": 63}, "an even number, since rotary positions turn pairs"),
        ("norm_eps", {"norm_eps": 0.0}, "between 0 and 1"), ("norm_eps", {"norm_eps": 1.0}, "between 0 and 1"),
        ("windows", {"windows": (None,) * 29}, layers), ("windows", {"windows": (7,) * 31}, layers),
        ("windows", {"windows": (*(None,) * 29, 0)}, "None or 1 and more for each layer"),
        ("ropes", {"ropes": pairs}, layers), ("ropes", {"ropes": (*pairs, Rope(), Rope())}, layers),
        ("ropes", {"ropes": (*pairs, divided)}, "32 divisors, one for each pair"),
        ("ropes", {"ropes": (divided, *pairs), "rotary_dim": 60}, "30 divisors, one for each pair"),
        ("ropes", {"ropes": (*pairs, long)}, "32 divisors, one for each pair"),
        ("attention_scale", {"attention_scale": -0.1}, "0 (head_dim ** -0.5) or more"),
        ("attention_scale", {"attention_scale": math.inf}, "0 (head_dim ** -0.5) or more"),
        ("embed_scale", {"embed_scale": 0.0}, "above 0"), ("embed_scale", {"embed_scale": math.inf}, "above 0"),
        ("attention_softcap", {"attention_softcap": 0.0}, most),
        ("attention_softcap", {"attention_softcap": math.inf}, most),
        ("logit_softcap", {"logit_softcap": 0.0}, most), ("logit_softcap", {"logit_softcap": -1.0}, most),
    ]  # fmt: skip
    for field, over, expected in wrong:
        with pytest.raises(ConfigError) as told:
            dataclasses.replace(SMOLLM2_135M, **over)
        assert str(told.value) == f"{field} is {over.get(field, 9)}: expected {expected}"
    dataclasses.replace(SMOLLM2_135M, ropes=(*pairs, divided), rotary_dim=62, num_kv_heads=9)


def test_planning_needs_no_torch() -> None:
    code = "import sys, firsthand.nn.architecture; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
