"""Sparse autoencoders by their formulas: losses of small cases by hand, counters of training, and recovery of features."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.interp.alignment.request_rates import RequestRates, change, over_seeds
from firsthand.interp.alignment.seed_statistics import SeedMean, change_as_json, mean_over_seeds
from firsthand.interp.rule_explanations import explain
from firsthand.interp.saes.batch_topk_sae import BatchTopKSae
from firsthand.interp.saes.matryoshka_sae import MatryoshkaSae
from firsthand.interp.saes.sae_evaluation import cross_entropy
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.toy_superposition import Superposition, dictionary_recovery
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference

ROWS = torch.tensor([[2.0, 0.5, 0.0], [0.1, 1.5, -1.0], [0.2, 0.3, 1.2], [-3.0, 0.0, 0.4]])


def identity(kind: Any = BatchTopKSae, **given: Any) -> Any:
    """An autoencoder of 3 inputs and 4 latents: the axes, and the first one turned round."""
    sae = kind(3, 4, k=1, **given)
    axes = torch.cat([torch.eye(3), -torch.eye(3)[:1]])
    sae.decoder.data.copy_(axes), sae.encoder.data.copy_(axes)
    return sae


def test_a_batch_keeps_its_largest_latents_and_the_threshold_follows_the_smallest_kept() -> None:
    sae = identity()
    nobody = torch.zeros(4, dtype=torch.bool)
    # of 4 tokens the 4 largest pre-activations are 3.0, 2.0, 1.5 and 1.2; what is left is squared
    found = sae.loss(ROWS, is_dead_M=nobody, progress=0.0)
    left = 0.5**2 + (0.1**2 + 1.0) + (0.2**2 + 0.3**2) + 0.4**2
    assert float(found.loss.detach()) == pytest.approx(left / 4) and float(found.error) == pytest.approx(left / 4)
    assert found.fired.tolist() == [1, 1, 1, 1] and found.l0 == 1.0 and float(found.sparsity) == 0.0
    assert float(sae.threshold) == pytest.approx(1.2)
    sae.loss(ROWS * 2, is_dead_M=nobody, progress=0.0)
    assert float(sae.threshold) == pytest.approx(0.9 * 1.2 + 0.1 * 2.4)
    sae.threshold.fill_(1.5)
    assert sae.encode(ROWS).tolist() == [[2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 3]], "1.5 is not above 1.5"
    sae.threshold.fill_(-1.0)
    assert (sae.encode(ROWS) >= 0).all()
    with pytest.raises(ConfigError, match="activations of width 2 came for an autoencoder of width 3"):
        sae.encode(ROWS[:, :2])


def test_prefixes_of_a_matryoshka_reconstruct_on_their_own() -> None:
    sae = identity(MatryoshkaSae, widths=[1, 3, 4])
    found = sae.loss(ROWS, is_dead_M=torch.zeros(4, dtype=torch.bool), progress=0.0)
    squares = ROWS.square().sum()
    first = squares - 2.0**2
    third = first - 1.5**2 - 1.2**2
    whole = third - 3.0**2
    assert float(found.loss.detach()) == pytest.approx(float(first + third + whole) / 3 / 4)
    assert float(found.error) == pytest.approx(float(whole) / 4) and sae.settings() == {"k": 1, "widths": [1, 3, 4]}
    assert MatryoshkaSae(2, 16, k=1).widths == [2, 4, 8, 16] and MatryoshkaSae(2, 2, k=1).widths == [1, 2]
    for widths in ([1, 3], [3, 1, 4], [0, 4], [2, 2, 4]):
        with pytest.raises(ConfigError, match="expected rising numbers of latents that end with 4"):
            MatryoshkaSae(3, 4, k=1, widths=widths)


def test_dead_latents_reconstruct_what_is_left_with_half_as_many_as_inputs() -> None:
    sae = identity()
    residual = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    pre = torch.tensor([[0.5, 9.0, 2.0, 9.0], [1.0, 9.0, -1.0, 9.0]])
    dead = torch.tensor([True, False, True, False])
    asked = pre.clone().requires_grad_()
    # 3 inputs: one dead latent a token. Token 0: latent 2 with 2.0; token 1: latent 0 with 1.0
    expected = ((1.0 + 2.0**2) + (1.0 + 3.0**2)) / 2
    assert float(sae.auxiliary_loss(ROWS[:2], residual, asked, dead).detach()) == pytest.approx(expected)
    assert float(sae.auxiliary_loss(ROWS[:2], residual, asked, torch.zeros(4, dtype=torch.bool))) == 0.0
    # without a gradient in the pre-activations those of the dead are computed: x0 and x2 of both rows
    expected = ((1 - 2.0) ** 2 + (3.0**2 + 0.1**2)) / 2
    assert float(sae.auxiliary_loss(ROWS[:2], residual, pre, dead).detach()) == pytest.approx(expected)
    whole = sae.loss(ROWS, is_dead_M=torch.tensor([False, False, True, False]), progress=0.0)
    left = ROWS - torch.tensor([[2.0, 0, 0], [0, 1.5, 0], [0, 0, 1.2], [-3.0, 0, 0]])
    more = left - torch.stack([torch.zeros(4), torch.zeros(4), ROWS[:, 2].relu()], 1)
    expected = float(left.square().sum() + more.square().sum() / 32) / 4
    assert float(whole.loss.detach()) == pytest.approx(expected)


def test_a_dictionary_is_measured_by_the_nearest_latent_of_each_feature() -> None:
    features = torch.eye(3)
    latents = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 0.0]])
    found = dictionary_recovery(latents, features)
    assert found.mmcs == pytest.approx((1 + 0.6 + 0.8) / 3) and found.above == pytest.approx(1 / 3)
    assert found.uniqueness == pytest.approx(2 / 3) and math.isnan(found.f1) and math.isnan(found.dead)
    truth = Superposition(10, 4, l0=2.0, seed=3)
    harmonic = sum(1 / n for n in range(1, 11))
    assert truth.frequencies.tolist() == pytest.approx([min(0.9, 2 / harmonic / n) for n in range(1, 11)])
    x, strengths = truth.sample(50)
    assert torch.allclose(x, strengths @ truth.features) and x.shape == (50, 4)
    on = strengths[strengths > 0]
    assert (
        float(on.min()) >= 0.5 and float(on.max()) < 1.5 and torch.allclose(truth.features.norm(dim=1), torch.ones(10))
    )
    for given in ((1, 4, 0.2), (10, 1, 2.0), (10, 4, 0.0), (10, 4, 2.5)):
        with pytest.raises(ConfigError, match="fewer than a quarter of the features active"):
            Superposition(given[0], given[1], l0=given[2])
    logits = torch.log(torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]))
    assert cross_entropy(logits, [0, 1, 0]) == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2)


def test_rates_of_several_seeds_are_pooled_and_compared_request_by_request() -> None:
    ones, zeros = (1, 1, 1, 1), (0, 0, 0, 0)
    before = [RequestRates((1, 1, 0, 0), (1, 0, 0, 0), zeros, ones), RequestRates(ones, zeros, ones, zeros)]
    after = [RequestRates(zeros, ones, zeros, ones), RequestRates((1, 0, 0, 0), zeros, ones, zeros)]
    assert before[0].rate("violations") == 0.5 and before[0].rate("jailbroken") == 0.25
    pooled = over_seeds(before, "violations")
    assert pooled.seeds == (0.5, 1.0) and pooled.pooled.value == 0.75 and pooled.pooled.n == 8
    assert pooled.range == "0.50 to 1.00" and pooled.to_json()["seeds"] == [0.5, 1.0]
    assert change(after, before, "violations").difference == pytest.approx(1 / 8 - 6 / 8)
    assert change(after, before, "jailbroken").difference == pytest.approx(4 / 8 - 1 / 8)
    assert str(SeedMean(Interval(0.5, 0.25, 0.875, 4), (1.0,))) == "0.500 [0.250, 0.875]"
    assert mean_over_seeds([[1.0, 0.0], [0.0, 0.0]]).seeds == (0.5, 0.0)
    made = PairedDifference(0.5, 0.25, math.nan, 0.01, 7, 2, 0, 5, "worse", 0.1, "Tango")
    assert change_as_json(made) == {
        "difference": 0.5, "low": 0.25, "high": None, "p_value": 0.01, "n": 7, "direction": "lower", "method": "Tango",
    }  # fmt: skip


def test_a_rule_is_chosen_on_the_first_half_and_scored_on_the_second() -> None:
    first = ["a", "b", "C"] * 40
    second = ["a", "b", "C"] * 40
    fires = [token == "b" for token in first] + [token == "b" and at % 2 == 0 for at, token in enumerate(second)]
    found = explain(first + second, fires)
    assert found is not None and found.rule == "the token is 'b'"
    # of 120 later tokens 20 fire, all on b, and of the 100 silent ones 80 are no b
    assert found.balanced_accuracy == pytest.approx((1.0 + 80 / 100) / 2)
    tokens = first + second
    after = explain(tokens, [at > 0 and tokens[at - 1] == "C" for at in range(240)])
    assert after is not None, "the first token is an a, and nothing fires on it"
    assert (after.rule, after.balanced_accuracy) == ("the token before is 'C'", 1.0)
    words = ["xY", "Yx", "Zz", "Wq", "vv", "Uu", "12", "p"] * 30
    capital = explain(words, [word[0] in "YZWU" for word in words])
    assert capital is not None and capital.balanced_accuracy == 1
    assert capital.rule == "the token is an upper-case first letter"


def test_a_relus_penalty_is_reported_as_it_is_and_weighs_more_as_the_run_goes_on() -> None:
    sae = sae_of("relu", 2, 3, l1=4.0)
    with torch.no_grad():
        sae.encoder.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).reshape(sae.encoder.shape))
        sae.decoder.copy_(torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]))
    x, none = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.zeros(3, dtype=torch.bool)
    z = sae.activate(sae.pre_activations(x)).detach()
    error = (x - z @ sae.decoder).square().sum(1).mean().item()
    penalty = (z @ torch.tensor([5.0, 2.0, 1.0])).mean().item()
    assert error > 0 and penalty > 0
    for progress, share in ((0.0, 0.0), (0.0125, 0.25), (0.05, 1.0), (0.0501, 1.0), (1.0, 1.0)):
        found = sae.loss(x, is_dead_M=none, progress=progress)
        assert float(found.loss.detach()) == pytest.approx(error + share * 4.0 * penalty)
        assert [float(found.error), float(found.sparsity)] == pytest.approx([error, penalty])
        assert not found.error.requires_grad and not found.sparsity.requires_grad and found.loss.requires_grad
        assert found.fired.tolist() == (z > 0).sum(0).tolist() and found.l0 == (z > 0).sum().item() / 2
