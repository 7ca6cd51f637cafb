"""Routing and experts against the rules written out, balancing losses against transformers, and the newer positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from engine_tiny import tiny_model
from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.experts import ExpertRouter, MixtureOfExperts, load_balancing_loss, router_z_loss
from firsthand.nn.blocks.mlp import activate, clamped_silu
from firsthand.nn.blocks.rope import frequencies
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.matrices import num_active_parameters, num_parameters

SETTINGS: dict[str, dict[str, Any]] = {
    "softmax": dict(renormalise=False),
    "renormalised": dict(renormalise=True, scale=1.7),
    "of_chosen": dict(score="softmax_of_chosen", has_bias=True),
    "groups_by_best": dict(num_groups=4, groups_per_token=2, renormalise=False),
    "sigmoid_with_correction": dict(
        score="sigmoid", has_correction=True, num_groups=4, groups_per_token=2, group_score="top2", scale=2.5
    ),
}


def router(name: str) -> ExpertRouter:
    made = ExpertRouter(16, ExpertSettings(8, 3, 24, (True, True), **SETTINGS[name]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return made


def spelled_out(made: ExpertRouter, x: Tensor) -> dict[int, float]:
    """The experts of one token and their weights, with Python's numbers."""
    s = made.settings
    logits = [
        float(x @ row) + (float(made.bias[e]) if made.bias is not None else 0.0) for e, row in enumerate(made.weight)
    ]
    if s.score == "softmax_of_chosen":
        best = sorted(range(8), key=lambda e: -logits[e])[: s.per_token]
        whole = sum(math.exp(logits[e]) for e in best)
        return {e: math.exp(logits[e]) / whole * s.scale for e in best}
    whole = sum(math.exp(each) for each in logits)
    scores = [1 / (1 + math.exp(-each)) if s.score == "sigmoid" else math.exp(each) / whole for each in logits]
    choice = [
        score + (float(made.correction[e]) if made.correction is not None else 0.0) for e, score in enumerate(scores)
    ]
    size = 8 // s.num_groups
    groups = [sorted(choice[g * size : (g + 1) * size], reverse=True) for g in range(s.num_groups)]
    rated = [sum(group[: 2 if s.group_score == "top2" else 1]) for group in groups]
    kept = sorted(range(s.num_groups), key=lambda g: -rated[g])[: s.groups_per_token if s.num_groups > 1 else 1]
    allowed = [e for e in range(8) if e // size in kept]
    best = sorted(allowed, key=lambda e: -choice[e])[: s.per_token]
    divisor = sum(scores[e] for e in best) if s.renormalise else 1.0
    return {e: scores[e] / divisor * s.scale for e in best}


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_go_to_the_experts_that_the_rules_choose(name: str) -> None:
    made = router(name)
    x_ND = torch.randn(40, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        routes = made(x_ND)
        for row in range(40):
            expected = spelled_out(made, x_ND[row])
            found = dict(zip(routes.experts[row].tolist(), routes.weights[row].tolist(), strict=True))
            assert found == pytest.approx(expected, abs=1e-5)


def with_experts(**changes: Any) -> Architecture:
    a = replace(tiny_model().architecture, tie_embeddings=False)
    settings = dict(num_experts=6, per_token=2, width=20, layers=(False, True), shared_width=12, has_shared_gate=True)
    return replace(a, experts=ExpertSettings(**{**settings, **changes}))


def test_each_token_is_the_weighted_sum_of_its_experts_whatever_is_beside_it() -> None:
    model = initialise(Decoder(with_experts()), seed=4, std=0.4)
    mixture = model.layers[1].mlp
    assert isinstance(mixture, MixtureOfExperts) and not isinstance(model.layers[0].mlp, MixtureOfExperts)
    x_ND = torch.randn(23, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        routes, found = mixture.router(x_ND), mixture(x_ND)
        assert routes.experts.unique().numel() > 3, "several experts are at work"
        for row in range(23):
            one = x_ND[row : row + 1]
            expected = mixture.shared_gate(one).sigmoid() * mixture.shared(one)
            for expert, weight in zip(routes.experts[row], routes.weights[row], strict=True):
                expected = expected + weight * mixture.experts[expert](one)
            torch.testing.assert_close(found[row : row + 1], expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(mixture(one), expected, atol=1e-5, rtol=1e-4)
        assert mixture(x_ND[:0]).shape == (0, 32)


def test_the_tap_shows_the_routers_logits_and_the_losses_are_those_of_the_papers() -> None:
    model = initialise(Decoder(with_experts(layers=(True, True))), seed=4, std=0.4)
    seen: list[Tensor] = []
    ids = torch.arange(30)
    model(ids, ids, Packed([30]), taps={f"blocks.{layer}.mlp.router": seen.append for layer in range(2)})
    assert [tuple(each.shape) for each in seen] == [(30, 6), (30, 6)]
    torch.testing.assert_close(load_balancing_loss(seen, 2), load_balancing_loss_func(tuple(seen), 6, 2))
    torch.testing.assert_close(router_z_loss(seen), (torch.cat(seen).exp().sum(-1).log() ** 2).mean())
    even = torch.eye(6)[torch.arange(12) % 6] * 50
    assert float(load_balancing_loss([even], 1)) == pytest.approx(1.0, abs=1e-4)
    assert float(load_balancing_loss([torch.eye(6)[:1].repeat(12, 1) * 50], 1)) == pytest.approx(6.0, abs=1e-4)
    (load_balancing_loss(seen, 2) + router_z_loss(seen)).backward()
    assert all(layer.mlp.router.weight.grad.abs().sum() > 0 for layer in model.layers)


def test_parameters_and_active_parameters_of_mixtral_and_deepseek_v3_are_the_published_ones() -> None:
    rope, none = (Rope(1e6),), (None,)
    mixtral = Architecture(
        "mixtral", 32_000, 4096, 14_336, 32, 32, 8, 128, 32_768, 1e-5, none * 32, rope * 32, False,
        experts=ExpertSettings(8, 2, 14_336, (True,) * 32),
    )  # fmt: skip
    assert num_parameters(mixtral) == 46_702_792_704
    assert num_active_parameters(mixtral) == 12_879_925_248
    third = Architecture(
        "deepseek_v3", 129_280, 7168, 18_432, 61, 128, 1, 576, 4096, 1e-6, none * 61, rope * 61, False, rotary_dim=64,
        experts=ExpertSettings(256, 8, 2048, (False,) * 3 + (True,) * 58, score="sigmoid", has_correction=True,
            num_groups=8, groups_per_token=4, group_score="top2", shared_width=2048),
        latent=LatentSettings(512, 128, 64, 128, 1536),
    )  # fmt: skip
    assert num_parameters(third) == pytest.approx(671e9, rel=1e-3)
    assert num_active_parameters(third) == pytest.approx(37.6e9, rel=0.01)


def test_layers_without_positions_do_not_know_them() -> None:
    a = replace(tiny_model().architecture, ropes=(Rope(kind="none"),) * 2)
    model = initialise(Decoder(a), seed=1, std=0.3)
    ids = torch.tensor([5, 9, 9, 30])
    with torch.no_grad():
        first, moved = (model(ids, torch.arange(4) + shift, Packed([4])) for shift in (0, 50))
    assert torch.equal(first, moved)
    assert not frequencies(a.ropes[0], 16).any(), "the compiled step turns by angles of 0"


def test_ntk_keeps_the_shortest_wavelength_and_stretches_the_longest_by_the_factor() -> None:
    plain, stretched = frequencies(Rope(1e4), 16), frequencies(Rope(1e4, "ntk", 4.0), 16)
    ratio = plain / stretched
    assert float(ratio[0]) == pytest.approx(1.0) and float(ratio[-1]) == pytest.approx(4.0, rel=1e-5)
    assert bool((ratio.diff() > 0).all())
    dynamic = Rope(1e4, "dynamic", 4.0, 32)
    assert torch.equal(frequencies(dynamic, 16, length=32), plain) and torch.equal(frequencies(dynamic, 16), plain)
    torch.testing.assert_close(frequencies(dynamic, 16, length=64), frequencies(Rope(1e4, "ntk", 5.0), 16))


def test_longrope_takes_the_long_divisors_only_beyond_the_trained_length() -> None:
    rope = Rope(1e4, "longrope", 4.0, 32, divisors=(2.0,) * 8, short_divisors=(1.0,) * 8)
    plain = frequencies(Rope(1e4), 16)
    assert torch.equal(frequencies(rope, 16, length=32), plain)
    assert torch.equal(frequencies(rope, 16, length=33), plain / 2)
    with pytest.raises(ConfigError, match="short_divisors"):
        Rope(1e4, "longrope", 4.0, 32, divisors=(2.0,) * 8, short_divisors=(1.0,) * 7)


def test_solu_and_the_clamped_swiglu_are_their_formulas() -> None:
    x = torch.tensor([[1.0, 2.0, -3.0]])
    weights = [math.exp(each) for each in (1.0, 2.0, -3.0)]
    expected = [each * weight / sum(weights) for each, weight in zip((1.0, 2.0, -3.0), weights, strict=True)]
    assert activate(x, "solu")[0].tolist() == pytest.approx(expected)
    assert activate(x, "relu")[0].tolist() == [1.0, 2.0, 0.0]
    gate, up = torch.tensor([9.0, -9.0, 1.0]), torch.tensor([9.0, -9.0, 0.5])
    sigmoid = [1 / (1 + math.exp(-1.702 * each)) for each in (7.0, -9.0, 1.0)]
    expected = [8.0 * 7.0 * sigmoid[0], -6.0 * -9.0 * sigmoid[1], 1.5 * sigmoid[2]]
    assert clamped_silu(gate, up, 7.0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(num_experts=0), "num_experts is 0"),
        (dict(per_token=7), "per_token is 7"),
        (dict(width=0), "width is 0"),
        (dict(layers=(False, False)), "a layer that has experts"),
        (dict(num_groups=4), "a divisor of num_experts"),
        (dict(num_groups=3, groups_per_token=4), "groups_per_token is 4"),
        (dict(num_groups=6, groups_per_token=1), "the 1 groups of a token hold"),
        (dict(num_groups=6, groups_per_token=3, group_score="top2"), "max where a group has a single expert"),
        (dict(scale=0.0), "scale is 0.0"),
        (dict(layers=(True,)), "a choice for each of 2 layers"),
    ],
)
def test_experts_that_cannot_be_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_experts(**changes)
