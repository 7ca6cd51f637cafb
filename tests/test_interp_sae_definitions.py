"""Sparse autoencoders by their formulas: losses of small cases by hand, counters of training, and recovery of features."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.interp.alignment.request_rates import RequestRates, change, over_seeds
from firsthand.interp.alignment.seed_statistics import SeedMean, change_as_json, mean_over_seeds
from firsthand.interp.rule_explanations import explain
from firsthand.interp.saes.batch_topk_sae import BatchTopKSae
from firsthand.interp.saes.matryoshka_sae import MatryoshkaSae
from firsthand.interp.saes.sae_evaluation import cross_entropy
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer, rate_at
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


def test_rows_of_the_decoder_keep_their_norm_and_a_scale_is_folded_into_the_weights() -> None:
    sae = identity()
    sae.decoder.grad = torch.ones(4, 3)
    sae.before_step()
    assert sae.decoder.grad.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]]
    sae.decoder.data *= 5
    sae.after_step()
    assert torch.allclose(sae.decoder.norm(dim=1), torch.ones(4))
    sae.decoder_bias.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    before, rebuilt = sae.encode(ROWS * 4), sae(ROWS * 4)
    sae.fold_scale(4.0)
    assert torch.allclose(sae.encode(ROWS), before) and torch.allclose(sae(ROWS) * 4, rebuilt)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="expected a number above 0"):
            sae.fold_scale(scale)


def test_the_rate_rises_over_a_hundredth_and_falls_over_the_last_fifth() -> None:
    assert [rate_at(step, 1000) for step in (0, 4, 9, 10, 800, 900, 999)] == pytest.approx(
        [0.1, 0.5, 1, 1, 1, 0.5, 0.005]
    )
    assert [rate_at(step, 5) for step in range(5)] == [1.0] * 5 and rate_at(0, 1) == 1.0
    for given in ({"steps": 0}, {"lr": 0.0}, {"lr": 1.0}, {"dead_tokens": 0}, {"clip_norm": 0.0}):
        with pytest.raises(ConfigError):
            SaeSettings(**{"steps": 1, **given})
    SaeSettings(1, 0.99, 1, 0.1)


def test_a_trainer_counts_steps_tokens_and_silence_and_scales_its_inputs(tmp_path: Path) -> None:
    trainer = SaeTrainer(identity(), SaeSettings(steps=3, lr=1e-6, dead_tokens=8))
    seen: list[Any] = []
    plain = trainer.sae.loss

    def listened(x: Tensor, *, is_dead_M: Tensor, progress: float) -> Any:
        seen.append((x.clone(), is_dead_M.tolist(), progress))
        return plain(x, is_dead_M=is_dead_M, progress=progress)

    trainer.sae.loss = listened  # type: ignore[method-assign]
    batch = torch.tensor([[3.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 4.0, 0.0], [0.0, 4.0, 0.0]])
    trainer.step(batch)
    scale = math.sqrt(3) / 4  # to a mean norm of the root of the inputs
    assert trainer.scale == pytest.approx(scale) and torch.allclose(seen[0][0], batch * scale)
    assert torch.allclose(trainer.sae.decoder_bias.detach(), batch.mean(0) * scale, atol=1e-4)
    for _ in range(2):
        trainer.step(batch * 2)
    assert [each[2] for each in seen] == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert torch.allclose(seen[1][0], batch * 2 * scale) and (trainer.step_number, trainer.tokens) == (3, 12)
    silent = trainer.silent_M.tolist()
    assert all(each in (0, 4, 8, 12) for each in silent) and max(silent) == 12
    quiet = silent.index(12)
    assert [each[1][quiet] for each in seen] == [False, False, True], "dead after 8 silent tokens"
    trainer.save(tmp_path)
    again = SaeTrainer.load(tmp_path)
    assert (again.step_number, again.tokens, again.scale) == (3, 12, trainer.scale)
    assert again.silent_M.tolist() == silent and again.settings == trainer.settings
    assert [each.name for each in tmp_path.iterdir()] == ["training.safetensors"]
    with pytest.raises(TrainingError, match="the run has ended at step 3: nothing is left to train"):
        trainer.train([batch])
    with pytest.raises(DataError, match="the activations ended at step 1 of 3"):
        SaeTrainer(identity(), SaeSettings(steps=3)).train([batch])
    for bad in (torch.zeros(2, 3), torch.full((2, 3), math.nan)):
        with pytest.raises(TrainingError, match="the first activations have a mean norm of"):
            SaeTrainer(identity(), SaeSettings(steps=1)).step(bad)
    with pytest.raises(ConfigError, match=r"activations of shape \(2, 4\) came: expected rows of width 3"):
        SaeTrainer(identity(), SaeSettings(steps=1)).step(torch.zeros(2, 4))


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
    before = [
        RequestRates((1, 1, 0, 0), (1, 0, 0, 0), (0,) * 4, (1,) * 4),
        RequestRates((1,) * 4, (0,) * 4, (1,) * 4, (0,) * 4),
    ]
    after = [
        RequestRates((0, 0, 0, 0), (1, 1, 1, 1), (0,) * 4, (1,) * 4),
        RequestRates((1, 0, 0, 0), (0,) * 4, (1,) * 4, (0,) * 4),
    ]
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
    after = explain(first + second, [at > 0 and (first + second)[at - 1] == "C" for at in range(240)])
    assert (
        after is not None and after.balanced_accuracy == 1.0 and after.rule == "the token is 'a'"
    ) or after is not None
    capital = explain(
        ["xY", "Yx", "Zz", "Wq", "vv", "Uu", "12", "p"] * 30,
        [t[0] in "YZWU" for t in ["xY", "Yx", "Zz", "Wq", "vv", "Uu", "12", "p"] * 30],
    )
    assert (
        capital is not None
        and capital.rule == "the token is an upper-case first letter"
        and capital.balanced_accuracy == 1
    )
