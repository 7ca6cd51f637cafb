"""Parts of sparse autoencoders worked out by hand: products, steps, scales, thresholds, measures, and toy superposition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.interp.activations import read_activations, run_with_cache
from firsthand.interp.saes.batch_topk_sae import BatchTopKSae, candidates
from firsthand.interp.saes.relu_sae import ReluSae
from firsthand.interp.saes.sae_evaluation import SaeMeasures, cross_entropy, measure_sae
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer, rate_at
from firsthand.interp.saes.sparse_autoencoder import SaeLoss, SparseAutoencoder, l0_of
from firsthand.interp.saes.sparse_products import decoded, encoded, picks_at
from firsthand.interp.saes.toy_superposition import (
    Recovery,
    Superposition,
    ToyStudy,
    dictionary_recovery,
    recovery,
    spread_out,
)
from firsthand.stats.intervals import Interval

torch.set_num_threads(1)


def set_to(sae: SparseAutoencoder, **tensors: Tensor) -> SparseAutoencoder:
    """The autoencoder with these weights."""
    with torch.no_grad():
        for name, value in tensors.items():
            getattr(sae, name).copy_(value)
    return sae


def identity(kind: str, size: int, **more: Any) -> SparseAutoencoder:
    return set_to(sae_of(kind, size, size, **more), encoder=torch.eye(size), decoder=torch.eye(size))


def test_the_gradients_of_a_latent_of_two_tokens_add_up() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    encoder = torch.tensor([[1.0, -1.0], [0.5, 2.0]], requires_grad=True)
    bias, picks = torch.zeros(2, requires_grad=True), picks_at(torch.tensor([2, 0]), 2, 2)
    assert picks.token.tolist() == [0, 1] and picks.latent.tolist() == [0, 0]
    z = encoded(x, encoder, bias, picks, torch.tensor([-1.0, -1.0]))
    (z * torch.tensor([2.0, 5.0])).sum().backward()
    assert bias.grad.tolist() == [7.0, 0.0] and encoder.grad.tolist() == [[17.0, 24.0], [0.0, 0.0]]
    assert x.grad.tolist() == [[2.0, -2.0], [5.0, -5.0]]
    values, decoder = torch.tensor([10.0, 100.0], requires_grad=True), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    decoder.requires_grad_()
    out = decoded(values, decoder, picks)
    assert out.tolist() == [[10.0, 20.0], [100.0, 200.0]]
    (out * torch.tensor([[1.0, 0.0], [0.0, 1.0]])).sum().backward()
    assert values.grad.tolist() == [1.0, 2.0] and decoder.grad.tolist() == [[10.0, 100.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"lr": 0.0}, {"lr": 1.0}, {"lr": float("nan")}, {"dead_tokens": 0}, {"clip_norm": 0.0}],
)
def test_settings_of_a_run_have_limits(bad: dict[str, Any]) -> None:
    assert replace(SaeSettings(1), lr=0.999, dead_tokens=1, clip_norm=1e-9).steps == 1
    with pytest.raises(ConfigError, match="expected 1 or more, a rate between 0 and 1, 1 or more, and a bound above 0"):
        SaeSettings(**{"steps": 1} | bad)


def test_the_rate_rises_over_a_hundredth_and_falls_over_a_fifth() -> None:
    assert [rate_at(step, 200) for step in (0, 1, 100, 160, 161, 199)] == [0.5, 1, 1, 1, 39 / 40, 1 / 40]
    assert [rate_at(step, 3) for step in range(3)] == [1, 1, 1] and rate_at(0, 1) == 1


class Told(SparseAutoencoder):
    """An autoencoder whose loss is that of one weight, and that keeps what its loss was told."""

    kind = "topk"

    def __init__(self, fired: list[int]):
        super().__init__(4, 3)
        self.fired, self.told = torch.tensor(fired), []

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        self.told.append((x_ND, self.decoder_bias.detach().clone(), is_dead_M.tolist(), progress))
        loss = self.encoder_bias.sum() * 2
        return SaeLoss(loss, loss.detach(), torch.zeros(()), self.fired, 1.0)


def test_a_step_scales_its_inputs_counts_silence_and_names_the_dead() -> None:
    sae = Told([0, 1, 0])
    trainer = SaeTrainer(sae, SaeSettings(steps=4, lr=0.25, dead_tokens=4))
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]])  # norms 5 and 3, 4 in the mean
    trainer.step(x)
    assert trainer.scale == 0.5 and (trainer.step_number, trainer.tokens) == (1, 2)
    got, bias, dead, progress = sae.told[0]
    assert got.tolist() == (x * 0.5).tolist() and bias.tolist() == [0.75, 1.0, 0.0, 0.75]
    assert dead == [False] * 3 and progress == 0 and trainer.silent_M.tolist() == [2, 0, 2]
    torch.testing.assert_close(sae.encoder_bias.detach(), torch.full((3,), -0.25))  # Adam's first step is its rate
    trainer.step(x * 8)
    assert sae.told[1][0].tolist() == (x * 4).tolist() and sae.told[1][1].tolist() == bias.tolist()
    assert trainer.silent_M.tolist() == [4, 0, 4] and sae.told[1][2] == [False] * 3
    sae.fired = torch.tensor([1, 0, 0])
    trainer.step(x)
    assert sae.told[2][2:] == ([True, False, True], 0.5) and trainer.silent_M.tolist() == [0, 2, 6]
    assert trainer.train([x]).loss is not None and trainer.step_number == 4
    with pytest.raises(TrainingError, match="the run has ended at step 4: nothing is left to train"):
        trainer.train([x])
    encoder, decoder = sae.encoder.detach().clone(), sae.decoder.detach().clone()
    assert trainer.finished() is sae and (trainer.scale, trainer.step_number) == (1.0, 4)
    torch.testing.assert_close(sae.encoder, encoder * 0.5)
    torch.testing.assert_close(sae.decoder, decoder * 2)


def test_a_fresh_autoencoder_has_unit_rows_of_its_seed_and_a_scale_folds_into_it() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    sae = sae_of("relu", 4, 6, seed=3)
    torch.testing.assert_close(sae.decoder.detach(), rows / rows.norm(dim=1, keepdim=True))
    assert torch.equal(sae.encoder, sae.decoder) and not torch.equal(sae.encoder, sae_of("relu", 4, 6).encoder)
    assert not sae.encoder_bias.any() and not sae.decoder_bias.any() and (sae.d_in, sae.d_sae) == (4, 6)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    set_to(sae, encoder_bias=torch.linspace(-0.5, 1, 6), decoder_bias=torch.linspace(-1, 1, 4))
    z, out = sae.encode(x * 3).detach(), (sae(x * 3) / 3).detach()
    sae.fold_scale(3.0)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x), out)
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="expected a number above 0"):
            sae.fold_scale(scale)
    for sizes in ((0, 3), (3, 0)):
        with pytest.raises(ConfigError, match="expected 1 or more of each"):
            sae_of("relu", *sizes)
    assert l0_of(torch.tensor([2, 4]), 4) == 1.5


def test_dead_latents_rebuild_what_is_left() -> None:
    sae = set_to(sae_of("topk", 2, 3, k=1), encoder=torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 2.0]]))
    set_to(sae, decoder=torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]]))
    x, left = torch.tensor([[3.0, 1.0], [-1.0, -1.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    dead, pre = torch.tensor([False, True, True]), torch.tensor([[0.0, 1.0, 5.0], [0.0, 0.0, 0.0]])
    # one latent each: 3 of the first, and none, so (1 - 3)^2 + 1 and 4
    assert sae.auxiliary_loss(x, left, pre, dead).item() == 4.5
    assert sae.auxiliary_loss(x, left, pre.requires_grad_(), dead).item() == (1 + 16 + 4) / 2
    assert sae.auxiliary_loss(x, left, pre, torch.zeros(3, dtype=torch.bool)).item() == 0
    assert sae.auxiliary_loss(x, left * float("nan"), pre, dead).item() == 0
    bare, with_dead = (
        sae.loss(x, is_dead_M=each, progress=0.5).loss for each in (torch.zeros(3, dtype=torch.bool), dead)
    )
    rest = (x - sae(x)).detach()
    torch.testing.assert_close(
        (with_dead - bare) * 32, sae.auxiliary_loss(x, rest, pre.detach(), dead), rtol=1e-3, atol=1e-3
    )


def test_steps_keep_the_norms_of_rows_where_a_kind_keeps_them() -> None:
    for kind, gradient, rows in (
        ("topk", [[0.0, 4.0], [0.0, 0.0]], [[0.6, 0.8], [0.0, 0.0]]),
        ("relu", [[3.0, 4.0], [0.0, 2.0]], [[3.0, 4.0], [0.0, 0.0]]),
    ):
        sae = identity(kind, 2, **({"k": 1} if kind == "topk" else {}))
        sae.before_step()
        sae.decoder.grad = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        sae.before_step()
        assert sae.decoder.grad.tolist() == gradient
        set_to(sae, decoder=torch.tensor([[3.0, 4.0], [0.0, 0.0]])).after_step()
        torch.testing.assert_close(sae.decoder.detach(), torch.tensor(rows))


def test_the_threshold_of_a_batch_follows_its_smallest_kept_value() -> None:
    sae = identity("batch_topk", 2, k=1)
    assert isinstance(sae, BatchTopKSae) and float(sae.threshold) == -1
    picks, values, pre = sae.chosen(torch.tensor([[5.0, 1.0], [3.0, 2.0]]))
    assert (picks.token.tolist(), picks.latent.tolist(), values.tolist()) == ([0, 1], [0, 0], [5.0, 3.0])
    assert float(sae.threshold) == 3 and pre.tolist() == [[5.0, 1.0], [3.0, 2.0]]
    picks, _, _ = sae.chosen(torch.tensor([[1.0, 0.5], [0.2, 0.1]]))
    assert (picks.token.tolist(), picks.latent.tolist()) == ([0, 0], [0, 1])
    assert float(sae.threshold) == pytest.approx(0.5 + 0.9 * 2.5)
    assert len(sae.chosen(torch.full((2, 2), -1.0))[0].token) == 0
    assert float(sae.threshold) == pytest.approx(0.9 * 2.75)
    assert sae.encode(torch.tensor([[2.4, 2.5], [-3.0, 9.0]])).tolist() == [[0.0, 2.5], [0.0, 9.0]]
    assert candidates(torch.tensor([0.0, 7.9, 8.1, 20.0]), torch.tensor(10.0)).tolist() == [2, 3]


def test_kinds_hold_their_settings_and_refuse_others() -> None:
    for kind, settings in (
        ("relu", {"l1": 0.5}), ("topk", {"k": 4}), ("batch_topk", {"k": 24}), ("matryoshka", {"k": 3, "widths": [5, 24]}),
        ("jumprelu", {"k": 3.5, "weight": 0.0, "bandwidth": 0.2}),
    ):  # fmt: skip
        assert sae_of(kind, 8, 24, **settings).settings() == settings
    assert sae_of("matryoshka", 8, 24, k=1).settings() == {"k": 1, "widths": [3, 6, 12, 24]}
    assert sae_of("matryoshka", 8, 5, k=1).settings() == {"k": 1, "widths": [1, 2, 5]}
    for kind, bad in (
        *(("topk", {"k": k}) for k in (0, 25, True, 2.0)), *(("relu", {"l1": l1}) for l1 in (float("inf"), float("nan"))),
        *(("matryoshka", {"k": 1, "widths": widths}) for widths in ([3, 3, 24], [0, 24], [3, 9], [3, 25])),
        ("jumprelu", {"k": 24.5}), ("jumprelu", {"k": 1, "weight": -0.1}), ("jumprelu", {"k": 1, "bandwidth": 0}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="expected"):
            sae_of(kind, 8, 24, **bad)


def test_the_penalty_of_jumprelu_warms_up_and_a_relu_is_normalised_as_it_was() -> None:
    none = torch.zeros(2, dtype=torch.bool)
    jump = identity("jumprelu", 2, k=1, weight=8.0)
    x = torch.tensor([[1.0, 0.05], [0.05, 0.05]])  # one above the thresholds of 0.1: an L0 of a half
    error = (0.05**2 + 2 * 0.05**2) / 2
    for progress, share in ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.9, 1.0)):
        found = jump.loss(x, is_dead_M=none, progress=progress)
        assert float(found.loss.detach()) == pytest.approx(error + share * 8 * 0.25)
    assert (found.l0, found.fired.tolist(), float(found.sparsity)) == (0.5, [1, 0], 0.25)
    relu = set_to(sae_of("relu", 2, 3), decoder=torch.tensor([[3.0, 4.0], [0.5, 0.0], [0.0, 0.0]]))
    assert isinstance(relu, ReluSae)
    set_to(relu, encoder_bias=torch.tensor([0.5, 0.5, -0.5]))
    before = relu(x).detach()
    relu.normalised()
    torch.testing.assert_close(relu(x).detach(), before)
    assert relu.decoder.norm(dim=1).tolist() == [1, 1, 0]


def test_measures_are_written_with_the_loss_that_is_recovered() -> None:
    body = SaeMeasures(
        10, 2.0, 2.5, 4.0, Interval(0.5, 0.25, 0.75, 3, "t"), 0.125, 3.0, 0.25, 0.875, torch.arange(11) / 10
    ).to_json()
    quantiles = body.pop("density_quantiles")
    assert body == {
        "tokens": 10, "cross_entropy": 2.0, "with_sae": 2.5, "with_zeros": 4.0, "fvu": 0.125, "l0": 3.0, "dead": 0.25,
        "shrinkage": 0.875, "loss_recovered": 0.75, "ce_difference": 0.5, "ce_difference_interval": [0.25, 0.75],
    }  # fmt: skip
    assert quantiles == pytest.approx({"10%": 0.1, "50%": 0.5, "90%": 0.9})
    logits = torch.tensor([[0.0, 3.0], [1.0, 0.0], [9.0, 9.0]]).log()
    assert cross_entropy(torch.tensor([[1.0, 3.0], [1.0, 1.0], [9.0, 1.0]]).log(), [0, 1, 0]) == pytest.approx(
        (torch.tensor([0.75, 0.5]).log() * -0.5).sum()
    )
    assert cross_entropy(logits[[0, 0]], [1, 1]) == 0


def test_an_autoencoder_of_the_positive_parts_is_measured_by_its_definition() -> None:
    site, texts = "blocks.0.resid.post", [[5, 6, 7, 8], [9, 10, 11], [12, 13]]
    model, sae = tiny_model(), identity("relu", 32)
    set_to(sae, decoder=torch.eye(32) / 2, encoder_bias=torch.tensor([-1e9] * 8 + [0.0] * 24))
    found = measure_sae(SavedSae(sae, "", site), model, texts)
    rows = [read_activations(model, text, site)[site] for text in texts]
    x = torch.cat([each[1:] for each in rows])
    z = torch.cat([torch.zeros(len(x), 8), x[:, 8:].clamp_min(0)], 1)
    variance = (x - x.mean(0)).square().sum()
    assert found.tokens == 6 and found.l0 == pytest.approx(float((z > 0).sum() / 6))
    assert found.fvu == pytest.approx(float((x - z / 2).square().sum() / variance), rel=1e-5)
    assert found.shrinkage == pytest.approx(float((z / 2).norm(dim=1).sum() / x.norm(dim=1).sum()), rel=1e-5)
    assert (
        found.dead == float((z == 0).all(0).float().mean())
        and found.density.tolist() == (z > 0).float().mean(0).tolist()
    )
    plain, half, zero = [], [], []
    for text, row in zip(texts, rows, strict=True):
        new = torch.cat([row[:1], (row.clamp_min(0) / 2)[1:]])
        new[1:, :8] = 0
        none = torch.cat([row[:1], torch.zeros_like(row[1:])])
        plain.append(cross_entropy(run_with_cache(model, text, ()).logits, text))
        for kept, value in ((half, new), (zero, none)):
            edits = {site: lambda values, value=value: value}
            kept.append(cross_entropy(run_with_cache(model, text, (), edits=edits).logits, text))
    assert (found.cross_entropy, found.with_sae, found.with_zeros) == pytest.approx(
        tuple(sum(each) / 3 for each in (plain, half, zero)), rel=1e-6
    )
    assert found.difference.value == pytest.approx(sum(half) / 3 - sum(plain) / 3, abs=1e-6) and found.difference.n == 3
    for wrong in (texts[:1], [[5, 6], [7]]):
        with pytest.raises(DataError, match="expected 2 or more of 2 tokens or more"):
            measure_sae(SavedSae(sae, "", site), model, wrong)


def test_superposition_draws_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    x, strengths = Superposition(16, 8, l0=3.9, seed=4).sample(50)
    torch.manual_seed(2)
    truth = Superposition(16, 8, l0=3.9, seed=4)
    again, same = truth.sample(50)
    assert torch.equal(x, again) and torch.equal(strengths, same)
    assert not torch.equal(truth.sample(50)[1], strengths), "new ones at each call"
    assert not torch.equal(Superposition(16, 8, l0=3.9, seed=5).sample(50)[1], strengths)
    total = sum(1 / place for place in range(1, 17))
    expected = [min(0.9, 3.9 / total / place) for place in range(1, 17)]
    assert expected[0] == 0.9 > expected[1]
    torch.testing.assert_close(truth.frequencies, torch.tensor(expected))
    torch.testing.assert_close(truth.features.norm(dim=1), torch.ones(16))
    assert next(truth.batches(7)).shape == (7, 8)
    rows = torch.eye(2) + torch.tensor([[0.0, 0.0], [0.6, -0.2]])
    one = rows[1] / rows[1].norm()
    moved = spread_out(torch.stack([rows[0], one]), steps=1)
    turned = rows[0] - 0.5 * (rows[0] @ one) ** 3 * one
    torch.testing.assert_close(moved[0], turned / turned.norm())
    for bad in ((1, 8, 0.1), (8, 1, 1.0), (8, 8, 0.0), (8, 8, 2.0)):
        with pytest.raises(ConfigError, match="fewer than a quarter of the features active"):
            Superposition(bad[0], bad[1], l0=bad[2])


def test_a_dictionary_is_recovered_as_far_as_it_fires_with_its_features() -> None:
    def truth() -> Superposition:
        found = Superposition(8, 8, l0=1.5)
        found.features = torch.eye(8)
        return found

    sae = set_to(sae_of("relu", 8, 10), encoder=torch.eye(10, 8).flip(0), decoder=torch.eye(10, 8).flip(0))
    x, strengths = truth().sample(400)
    perfect = recovery(sae, truth(), samples=400)
    l0 = float((strengths > 0).sum(1).float().mean())
    assert perfect == Recovery(1.0, 1.0, 1.0, 1.0, pytest.approx(l0), 0.0, pytest.approx(0.2))
    set_to(sae, encoder_bias=torch.tensor([0.0] * 9 + [5.0]))  # the latent of feature 0 fires everywhere
    always = recovery(sae, truth(), samples=400)
    share = float((strengths[:, 0] > 0).float().mean())
    assert always.f1 == pytest.approx((7 + 2 * share / (1 + share)) / 8)
    assert always.l0 == pytest.approx(l0 - share + 1)
    assert always.fvu == pytest.approx(float(25 * 400 / (x - x.mean(0)).square().sum()), rel=1e-5)
    half = dictionary_recovery(torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.eye(2))
    assert (half.mmcs, half.above, half.uniqueness) == (pytest.approx(0.9), 0.5, 1.0)
    assert dictionary_recovery(torch.tensor([[1.0, 1.0]]), torch.eye(2)).uniqueness == 0.5


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True), ({"mmcs": 0.95}, False), ({"above": 0.94}, False), ({"uniqueness": 0.95}, False), ({"f1": 0.85}, False),
    ],
)  # fmt: skip
def test_a_toy_study_passes_by_four_measures(change: dict[str, float], passes: bool) -> None:
    found = replace(Recovery(0.951, 0.95, 0.951, 0.851, 4.0, 0.5, 0.5), **change)
    trainer = SaeTrainer(sae_of("relu", 2, 2), SaeSettings(1))
    assert ToyStudy("relu", 0, found, found, trainer).passes is passes


def test_the_penalty_of_a_relu_rises_over_a_twentieth_of_the_run_and_then_stays() -> None:
    relu = set_to(sae_of("relu", 2, 2, l1=8.0), encoder=torch.eye(2), decoder=2 * torch.eye(2))
    x = torch.tensor([[1.0, 2.0], [0.0, -3.0]])  # latents 1, 2 and 0, 0, rebuilt as 2, 4 and 0, 0
    none = torch.zeros(2, dtype=torch.bool)
    for progress, share in (
        (0.0, 0.0), (0.0125, 0.25), (0.025, 0.5), (0.05, 1.0), (0.0501, 1.0), (0.1, 1.0), (0.5, 1.0), (1.0, 1.0),
    ):  # fmt: skip
        found = relu.loss(x, is_dead_M=none, progress=progress)
        assert float(found.loss.detach()) == pytest.approx(7 + share * 8 * 3), progress
        assert (float(found.error), float(found.sparsity), found.fired.tolist(), found.l0) == (7.0, 3.0, [1, 1], 1.0)
        assert not (found.error.requires_grad or found.sparsity.requires_grad) and found.loss.requires_grad
    free = set_to(sae_of("relu", 2, 2, l1=0.0), encoder=torch.eye(2), decoder=2 * torch.eye(2))
    assert float(free.loss(x, is_dead_M=none, progress=1.0).loss.detach()) == 7.0
    assert (sae_of("relu", 2, 2).settings(), free.settings()) == ({"l1": 5.0}, {"l1": 0.0})
    for l1 in (-1e-9, float("inf"), float("nan")):
        with pytest.raises(ConfigError) as refused:
            sae_of("relu", 2, 2, l1=l1)
        assert str(refused.value) == f"l1 is {l1}: expected 0 or more"
