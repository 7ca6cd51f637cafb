"""Every limit of an architecture's settings: the last value that is taken, the first that is not, and the whole sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.families.bert import BertArchitecture

Changes = dict[str, Any]
A = Architecture(
    "llama", 50, 32, 48, 2, 4, num_kv_heads=2, head_dim=16, max_position=64, norm_eps=1e-5, windows=(None, 5),
    ropes=(Rope(), Rope(500.0)), tie_embeddings=False,
)  # fmt: skip
MIXTURE = ExpertSettings(6, 2, 8, (True, False))
LATENT = LatentSettings(rank=12, nope_dim=3, rope_dim=4, value_dim=5)
T5 = EncoderDecoderArchitecture(
    "t5", 50, 32, 2, 3, 4, 2, 6, 40, 44, "relative", 64, 1e-6, num_buckets=8, max_distance=20
)
BERT = BertArchitecture("bert", 50, 32, 48, 2, 4, 64, 2, 2, 1e-12)
NAN, INF = math.nan, math.inf


def check(make: Callable[..., Any], taken: Iterable[Changes], refused: Iterable[tuple[Changes, str]]) -> None:
    """Each change makes a value, or the error with this sentence."""
    for changes in taken:
        made = make(**changes)
        assert {field: getattr(made, field) for field in changes} == changes
    for changes, said in refused:
        with pytest.raises(ConfigError) as told:
            make(**changes)
        assert str(told.value) == said, changes


def test_a_rope_has_finite_numbers_and_what_its_kind_needs() -> None:
    def rope(**changes: Any) -> Rope:
        return replace(Rope(), **changes)

    llama3: Changes = {"kind": "llama3", "original_max_position": 1}
    yarn: Changes = {"kind": "yarn", "original_max_position": 1}
    long: Changes = {"kind": "longrope", "original_max_position": 1, "divisors": (2.0, 1e-9)}
    sentence = "rope high_freq_factor is {}: expected above low_freq_factor ({}), which is above 0"
    slow = "rope beta_fast is {}: expected at least beta_slow ({}), which is above 0"
    trained = "rope original_max_position is 0: expected the trained length, above 0"
    pairs = "rope short_divisors is {}: expected 2 numbers above 0, as many as there are divisors"
    each = "rope divisors is {}: expected a number above 0 for each pair"
    check(
        rope,
        [
            {"theta": 1.000001}, {"factor": 1e-9}, {"attention_factor": 1e-9}, {"kind": "linear"}, {"kind": "ntk"},
            {"kind": "none"}, llama3, {**llama3, "low_freq_factor": 3.999}, {**llama3, "beta_slow": 0.0},
            {**yarn, "beta_fast": 2.0, "beta_slow": 2.0}, {**yarn, "low_freq_factor": 9.0}, {"beta_slow": 0.0},
            {"low_freq_factor": 0.0}, {"high_freq_factor": INF}, {"beta_fast": INF}, {"divisors": (0.0,)},
            {"short_divisors": (0.0,)}, {"kind": "dynamic", "original_max_position": 1},
            {"kind": "divided", "divisors": (1e-9,), "short_divisors": (1.0, 2.0)},
            {**long, "short_divisors": (1e-9, 3.0)},
        ],
        [
            *(({"theta": value}, f"rope theta is {value}: expected above 1") for value in (1.0, -2.0, INF, NAN)),
            *(({name: value}, f"rope {name} is {value}: expected above 0") for name in ("factor", "attention_factor")
              for value in (0.0, -1.0, INF, NAN)),
            *(({"kind": kind}, trained) for kind in ("llama3", "yarn", "dynamic", "longrope")),
            ({**llama3, "low_freq_factor": 4.0}, sentence.format(4.0, 4.0)),
            ({**llama3, "low_freq_factor": 0.0}, sentence.format(4.0, 0.0)),
            ({**llama3, "high_freq_factor": INF}, sentence.format(INF, 1.0)),
            ({**yarn, "beta_slow": 0.0}, slow.format(32.0, 0.0)),
            ({**yarn, "beta_fast": 1.9, "beta_slow": 2.0}, slow.format(1.9, 2.0)),
            ({**yarn, "beta_fast": INF}, slow.format(INF, 1.0)),
            *(({"kind": "divided", "divisors": found}, each.format(found)) for found in ((), (1.0, 0.0), (INF, 1.0))),
            ({**long, "divisors": (1.0, -2.0)}, each.format((1.0, -2.0))),
            *(({**long, "short_divisors": found}, pairs.format(found))
              for found in ((), (1.0,), (1.0, 2.0, 3.0), (1.0, 0.0))),
        ],
    )  # fmt: skip


def test_experts_and_latents_have_sizes_that_fit_together() -> None:
    def experts(**changes: Any) -> ExpertSettings:
        return replace(MIXTURE, **changes)

    wide = "1 or more, and less than 2**24"
    check(
        experts,
        [
            {"num_experts": 4096}, {"per_token": 6}, {"per_token": 1}, {"width": 1}, {"width": 2**24 - 1},
            {"layers": (False, True)}, {"scale": 1e-9}, {"num_groups": 6, "groups_per_token": 6},
            {"num_groups": 3, "groups_per_token": 2, "per_token": 4}, {"shared_width": 2**24 - 1},
            {"num_groups": 3, "groups_per_token": 1, "group_score": "top2"},
            {"num_experts": 1, "per_token": 1, "group_score": "top2"},
        ],
        [
            ({"num_experts": 0}, "experts' num_experts is 0: expected 1 to 4096"),
            ({"num_experts": 4097}, "experts' num_experts is 4097: expected 1 to 4096"),
            ({"per_token": 0}, "experts' per_token is 0: expected 1 to num_experts (6)"),
            ({"per_token": 7}, "experts' per_token is 7: expected 1 to num_experts (6)"),
            ({"width": 0}, f"experts' width is 0: expected {wide}"),
            ({"width": 2**24}, f"experts' width is 16777216: expected {wide}"),
            ({"layers": (False, False)}, "experts' layers is (False, False): expected a layer that has experts"),
            *(({"scale": value}, f"experts' scale is {value}: expected above 0") for value in (0.0, INF, NAN)),
            ({"num_groups": 0}, "experts' num_groups is 0: expected 1 or more"),
            ({"num_groups": 4}, "experts' num_groups is 4: expected a divisor of num_experts (6)"),
            ({"num_groups": 3, "groups_per_token": 0}, "experts' groups_per_token is 0: expected 1 to num_groups (3)"),
            ({"num_groups": 3, "groups_per_token": 4}, "experts' groups_per_token is 4: expected 1 to num_groups (3)"),
            ({"num_groups": 3, "groups_per_token": 2, "per_token": 5},
             "experts' per_token is 5: expected no more than the 2 groups of a token hold"),
            ({"shared_width": -1}, "experts' shared_width is -1: expected 0 or more, and less than 2**24"),
            ({"shared_width": 2**24}, "experts' shared_width is 16777216: expected 0 or more, and less than 2**24"),
            ({"num_groups": 6, "per_token": 1, "group_score": "top2"},
             "experts' group_score is top2: expected max where a group has a single expert"),
        ],
    )  # fmt: skip
    four = ("rank", "nope_dim", "rope_dim", "value_dim")
    check(
        lambda **changes: replace(LATENT, **changes),
        [*({name: size} for name in four for size in (1, 2**20 - 1)), {"query_rank": 0}, {"query_rank": 2**24 - 1}],
        [
            *(({name: size}, f"latent attention's {name} is {size}: expected 1 or more, below 2**20")
              for name in four for size in (0, 2**20)),
            *(({"query_rank": size}, f"latent attention's query_rank is {size}: expected 0 or more, below 2**24")
              for size in (-1, 2**24)),
        ],
    )  # fmt: skip


def test_a_decoder_s_sizes_heads_windows_and_scales_have_limits() -> None:
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
             "max_position")  # fmt: skip
    wide = "a layer is 16777216 wide: expected vocabulary, hidden and head sizes below 2**24"
    heads = {"num_heads": 2**20, "num_kv_heads": 2**19}
    divided = (Rope(kind="divided", divisors=(1.0, 2.0)), Rope())
    check(
        lambda **changes: replace(A, **changes),
        [
            *({name: 2**24 - 1} for name in sizes[:3]), {"max_position": 2**31 - 1}, {"head_dim": 2},
            {"num_heads": 2**20 - 2}, {"num_kv_heads": 4}, {"num_kv_heads": 1}, {"norm_eps": 0.999}, {"norm_eps": 1e-30},
            {"windows": (1, None)}, {"attention_scale": 1e-9}, {"embed_scale": 1e-9}, {"attention_softcap": 1e-9},
            {"logit_softcap": 1e-9}, {"clip_qkv": 1e-9}, {"activation_limit": 1e-9}, {"rotary_dim": 16},
            {"rotary_dim": 4, "ropes": divided}, {"head_dim": 4, "ropes": divided}, {"learned_positions": 64},
            {"alibi_slopes": (0.5, 0.0, -0.5, 3.0)}, {"learned_positions": 2**24 - 1}, {"experts": MIXTURE},
            {"latent": LATENT, "num_kv_heads": 1, "rotary_dim": 4},
        ],
        [
            *(({name: size}, f"{name} is {size}: expected a whole number of 1 or more")
              for name in sizes for size in (0, 2**31)),
            *(({name: 2**24}, wide) for name in sizes[:3]), (heads, wide),
            ({"num_kv_heads": 3}, "num_heads is 4: expected a multiple of num_kv_heads (3)"),
            ({"head_dim": 7}, "head_dim is 7: expected an even number, since rotary positions turn pairs"),
            *(({"norm_eps": value}, f"norm_eps is {value}: expected between 0 and 1") for value in (0.0, 1.0)),
            ({"windows": (None,)}, "windows is (None,): expected one for each of 2 layers"),
            ({"windows": (3, 0)}, "windows is (3, 0): expected None or 1 and more for each layer"),
            ({"ropes": (Rope(),) * 3}, f"ropes is {(Rope(),) * 3}: expected one for each of 2 layers"),
            ({"ropes": divided}, f"ropes is {divided}: expected 8 divisors, one for each pair"),
            ({"ropes": divided, "rotary_dim": 6}, f"ropes is {divided}: expected 3 divisors, one for each pair"),
            *(({"attention_scale": value}, f"attention_scale is {value}: expected 0 (head_dim ** -0.5) or more")
              for value in (-0.1, INF)),
            *(({name: value}, f"{name} is {value}: expected above 0")
              for name in ("embed_scale", "activation_limit") for value in (0.0, INF)),
            *(({name: value}, f"{name} is {value}: expected None or above 0")
              for name in ("attention_softcap", "logit_softcap", "clip_qkv") for value in (0.0, INF)),
            *(({"rotary_dim": value}, f"rotary_dim is {value}: expected an even number of at most head_dim (16)")
              for value in (-2, 7, 18)),
            *(({"alibi_slopes": found}, f"alibi_slopes is {found}: expected 4 numbers, one for each head")
              for found in ((1.0,) * 3, (1.0, 2.0, 3.0, INF))),
            *(({"learned_positions": rows}, f"learned_positions is {rows}: expected 0 or more, and less than 2**24")
              for rows in (-1, 2**24)),
            ({"learned_positions": 63}, "learned_positions is 63: expected a row for each of max_position (64) or more"),
            ({"experts": replace(MIXTURE, layers=(True,))},
             f"experts is {replace(MIXTURE, layers=(True,))}: expected a choice for each of 2 layers"),
            *(({"latent": LATENT, "num_kv_heads": 1, "rotary_dim": 4, **more},
               f"latent is {LATENT}: expected one KV head of rank + rope_dim values")
              for more in ({"num_kv_heads": 2}, {"head_dim": 14})),
            *(({"latent": LATENT, "num_kv_heads": 1, "rotary_dim": turned},
               f"latent is {LATENT}: expected rope_dim values that are rotated") for turned in (0, 2, 16)),
        ],
    )  # fmt: skip
    assert replace(A, attention_scale=0).attention_scale == 0.25
    assert (A.rotated, replace(A, rotary_dim=6).rotated) == (16, 6)
    mixed = replace(A, experts=MIXTURE)
    assert [mixed.has_experts(0), mixed.has_experts(1), A.has_experts(0)] == [True, False, False]
    # two layers, keys and values, two heads of 16
    assert [A.kv_bytes_per_token(), A.kv_bytes_per_token(2), A.kv_bytes_per_token(1.0625)] == [512, 256, 136]
    assert replace(A, head_dim=2).kv_bytes_per_token(1.03) == 17  # of 16.48: bytes are whole


def test_an_encoder_decoder_s_sizes_and_positions_have_limits() -> None:
    sizes = ("vocab_size", "hidden_size", "num_encoder_layers", "num_decoder_layers", "encoder_heads", "decoder_heads",
             "head_dim", "encoder_width", "decoder_width", "max_position")  # fmt: skip
    check(
        lambda **changes: replace(T5, **changes),
        [
            *({name: 2**24 - 1} for name in sizes if name not in ("encoder_heads", "decoder_heads", "head_dim")),
            {"encoder_heads": 2**21, "head_dim": 4}, {"decoder_heads": 24}, {"norm_eps": 0.999}, {"num_buckets": 4},
            {"num_buckets": 2**16 - 1, "max_distance": 2**16}, {"max_distance": 9}, {"max_distance": 2**24 - 1},
            {"position_offset": 0}, {"position_offset": 2**16 - 1}, {"embed_scale": 1e-9}, {"logit_scale": 1e-9},
            {"decoder_start": 49}, {"decoder_start": 0}, {"positions": "learned", "num_buckets": 0, "max_distance": 0},
        ],
        [
            *(({name: size}, f"{name} is {size}: expected 1 or more, and less than 2**24")
              for name in sizes for size in (0, 2**24)),
            *(({"norm_eps": value}, f"norm_eps is {value}: expected between 0 and 1") for value in (0.0, 1.0)),
            ({"encoder_heads": 2**22, "head_dim": 4},
             f"encoder_heads is {2**22}: expected heads of less than 2**24 values together"),
            ({"decoder_heads": 5}, "decoder_heads is 5: expected a divisor of the attention width (24)"),
            *(({"num_buckets": count}, f"num_buckets is {count}: expected 4 or more, and less than 2**16")
              for count in (3, 2**16)),
            *(({"max_distance": far}, f"max_distance is {far}: expected above num_buckets") for far in (8, 2**24)),
            *(({"position_offset": rows}, f"position_offset is {rows}: expected 0 or more, and less than 2**16")
              for rows in (-1, 2**16)),
            *(({name: value}, f"{name} is {value}: expected above 0")
              for name in ("embed_scale", "logit_scale") for value in (0.0, INF)),
            *(({"decoder_start": token}, f"decoder_start is {token}: expected a token below 50") for token in (-1, 50)),
        ],
    )  # fmt: skip
    assert T5.attention_width == 24


def test_an_encoder_s_sizes_types_and_buckets_have_limits() -> None:
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "max_position")
    check(
        lambda **changes: replace(BERT, **changes),
        [
            *({name: 2**24 - 1} for name in ("vocab_size", "intermediate_size", "num_layers", "max_position")),
            {"num_heads": 32}, {"num_types": 0}, {"num_types": 2**24 - 1}, {"num_buckets": 8}, {"num_buckets": 127},
            {"first_position": 63}, {"first_position": 0}, {"norm_eps": 0.999},
        ],
        [
            *(({name: size}, f"{name} is {size}: expected 1 or more, and less than 2**24")
              for name in sizes for size in (0, 2**24)),
            *(({"num_types": count}, f"num_types is {count}: expected 0 or more, and less than 2**24")
              for count in (-1, 2**24)),
            *(({"num_buckets": count}, f"num_buckets is {count}: expected 0, or 8 and more below 128")
              for count in (-1, 7, 128)),
            ({"num_heads": 5}, "num_heads is 5: expected a divisor of hidden_size (32)"),
            *(({"first_position": row}, f"first_position is {row}: expected below 64") for row in (-1, 64)),
            *(({"norm_eps": value}, f"norm_eps is {value}: expected between 0 and 1") for value in (0.0, 1.0)),
        ],
    )  # fmt: skip
    assert (BERT.head_dim, BERT.max_tokens) == (8, 62)
