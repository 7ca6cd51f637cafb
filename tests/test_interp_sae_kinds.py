"""Losses, gradients and limits of each kind of sparse autoencoder, on numbers that can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_model
from firsthand.errors import ConfigError
from firsthand.interp.activations import read_activations
from firsthand.interp.saes.batch_topk_sae import candidates
from firsthand.interp.saes.jumprelu_sae import _Jump, _Step
from firsthand.interp.saes.sae_evaluation import measure_sae
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sparse_autoencoder import AUXILIARY_WEIGHT, SparseAutoencoder, l0_of
from firsthand.interp.saes.sparse_products import (
    _CHUNK,
    _products,
    _rows_by_latent,
    picks_at,
    products_by_mkl,
    products_by_parts,
)
from firsthand.interp.saes.toy_superposition import Superposition, recovery
from firsthand.interp.separation import separation

torch.set_num_threads(1)
DEAD = {
    "relu": {"l1": 0.5},
    "topk": {"k": 2},
    "batch_topk": {"k": 2},
    "jumprelu": {"k": 2},
    "matryoshka": {"k": 2, "widths": [3, 8]},
}


def made(kind: str, d_in: int = 4, d_sae: int = 8, **more: Any) -> SparseAutoencoder:
    """Weights that are no longer each other's transpose, and biases that are not 0."""
    sae = sae_of(kind, d_in, d_sae, seed=3, **(DEAD[kind] | more))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in (sae.encoder, sae.encoder_bias, sae.decoder_bias):
            weight += torch.randn(weight.shape, generator=generator) * 0.3
    return sae


@pytest.mark.parametrize("kind", list(DEAD))
def test_every_loss_adds_a_32nd_of_what_dead_latents_leave_and_trains_them_alone_by_it(kind: str) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(7)) * 2
    is_dead = torch.zeros(8, dtype=torch.bool)
    is_dead[[1, 4, 6]] = True
    with_dead, without = (made(kind).loss(x, is_dead_M=each, progress=0.5) for each in (is_dead, is_dead & False))
    sae = made(kind)
    with torch.no_grad():
        pre = (x - sae.decoder_bias) @ sae.encoder.T + sae.encoder_bias
        if kind == "topk":
            z = pre * (pre >= pre.topk(2, dim=1).values[:, -1:])
        elif kind in ("batch_topk", "matryoshka"):
            z = pre * (pre >= pre.flatten().topk(12).values[-1])
        else:
            z = pre * (pre > 0.1) if kind == "jumprelu" else pre
        residual = x - z.relu() @ sae.decoder - sae.decoder_bias
        dead = pre[:, is_dead]
        kept = (dead * (dead >= dead.topk(2, dim=1).values[:, -1:])).relu()  # half of the 4 inputs
        left = (residual - kept @ sae.decoder[is_dead]).square().sum(1).mean()
    assert float((with_dead.loss - without.loss).detach()) == pytest.approx(float(left) / 32, rel=1e-4)
    assert with_dead.error == without.error == pytest.approx(float(residual.square().sum(1).mean()), rel=1e-5)
    assert with_dead.fired.tolist() == (z > 0).sum(0).tolist() and AUXILIARY_WEIGHT == 1 / 32
    assert with_dead.l0 == l0_of(with_dead.fired, 6) == pytest.approx(float((z > 0).sum()) / 6)
    grads = []
    for each in (is_dead, is_dead & False):
        own = made(kind)
        grads.append(torch.autograd.grad(own.loss(x, is_dead_M=each, progress=0.5).loss, list(own.parameters())[:4]))
    decoder, encoder, bias, decoder_bias = (one - other for one, other in zip(*grads, strict=True))
    for gradient in (decoder, encoder, bias):
        assert gradient[~is_dead].abs().max() < 1e-6 < gradient[is_dead].abs().max()
    if kind in ("topk", "batch_topk", "matryoshka"):
        assert decoder_bias.abs().max() < 1e-6, "the bias of inputs is trained by the living latents"


def test_norms_of_reconstructions_have_the_bias_in_them_and_first_tokens_are_left_out() -> None:
    sae, model, texts = made("topk", 32, 8), tiny_model(), [[1, 2, 3], [4, 5]]
    found = measure_sae(SavedSae(sae, "", "blocks.0.resid.post"), model, texts)
    read = [read_activations(model, text, "blocks.0.resid.post")["blocks.0.resid.post"][1:] for text in texts]
    x = torch.cat(read)
    with torch.no_grad():
        out = sae(x)
        fires = sae.encode(x) > 0
    assert found.shrinkage == pytest.approx(float(out.norm(dim=1).sum() / x.norm(dim=1).sum()), rel=1e-5)
    assert found.fvu == pytest.approx(float((x - out).square().sum() / (x - x.mean(0)).square().sum()), rel=1e-4)
    assert (found.tokens, found.l0, found.dead) == (3, float(fires.sum()) / 3, float((~fires.any(0)).float().mean()))
    assert found.density.tolist() == pytest.approx(fires.float().mean(0).tolist())


def test_topk_keeps_no_latent_at_or_below_0() -> None:
    sae = sae_of("topk", 3, 3, k=2)
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(3))
        sae.decoder.copy_(torch.eye(3))
    x = torch.tensor([[2.0, 0.0, -1.0], [-3.0, -2.0, -4.0], [1.0, 5.0, 3.0]])
    assert sae.encode(x).tolist() == [[2, 0, 0], [0, 0, 0], [0, 5, 3]]
    found = sae.loss(x, is_dead_M=torch.zeros(3, dtype=torch.bool), progress=0.0)
    assert found.fired.tolist() == [1, 1, 1] and found.l0 == 1.0
    assert float(found.error) == pytest.approx((1 + 29 + 1) / 3)


def test_a_jump_passes_gradients_above_its_threshold_and_a_step_none() -> None:
    pre = torch.tensor([[0.4, 0.6, 2.0], [0.74, 0.26, 0.5]], requires_grad=True)
    theta = torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    out = _Jump.apply(pre, theta, 0.5)
    torch.testing.assert_close(out, torch.tensor([[0.0, 0.6, 2.0], [0.74, 0.0, 0.0]]))
    to_pre, to_theta = torch.autograd.grad((out * weights).sum(), (pre, theta))
    assert to_pre.tolist() == [[0, 2, 4], [8, 0, 0]], "what lies below its threshold has no gradient"
    # within a quarter of the threshold: .4 and .74; .6 and .26; .5
    assert to_theta.tolist() == [-9.0, -18.0, -32.0]
    far = torch.tensor([[0.75, 0.25, 0.76]], requires_grad=True)
    assert torch.autograd.grad(_Jump.apply(far, theta, 0.5).sum(), theta)[0].tolist() == [0, 0, 0]
    step = _Step.apply(pre, theta, 0.25)
    assert step.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert torch.autograd.grad((step * weights).sum(), theta)[0].tolist() == [-4.0, -8.0, -128.0]
    assert torch.autograd.grad(_Step.apply(pre, theta, 0.25).sum(), pre, allow_unused=True)[0] is None


def test_limits_of_the_kinds_belong_to_them() -> None:
    for kind, good in (
        ("relu", {"l1": 0.0}), ("jumprelu", {"k": 8}), ("jumprelu", {"k": 0.5, "weight": 0.0}), ("topk", {"k": 8}),
        ("batch_topk", {"k": 1}), ("matryoshka", {"k": 8, "widths": [1, 8]}),
    ):  # fmt: skip
        settings = sae_of(kind, 4, 8, **good).settings()
        assert {name: settings[name] for name in good} == good
    for kind, bad, told in (
        ("relu", {"l1": -0.1}, "l1 is -0.1: expected 0 or more"),
        ("topk", {"k": 9}, "k is 9: expected 1 to the 8 latents there are"),
        ("batch_topk", {"k": True}, "k is True: expected 1 to the 8 latents there are"),
        ("matryoshka", {"k": 2, "widths": [0, 8]}, "widths are [0, 8]: expected rising numbers of latents that end with 8"),
        (
            "jumprelu", {"k": 9},
            "k is 9, weight 1.0 and bandwidth 0.1: expected a target L0 of at most 8, a weight of 0 or more, and a width "
            "above 0",
        ),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            sae_of(kind, 4, 8, **bad)
        assert str(refused.value) == told
    for sizes in ((0, 8), (4, 0)):
        with pytest.raises(ConfigError) as small:
            sae_of("relu", *sizes)
        assert str(small.value) == (
            f"an autoencoder of {sizes[0]} inputs and {sizes[1]} latents came: expected 1 or more of each"
        )
    assert torch.equal(sae_of("relu", 4, 8, seed=2).decoder, sae_of("topk", 4, 8, k=1, seed=2).encoder)
    assert not torch.equal(sae_of("relu", 4, 8, seed=2).decoder, sae_of("relu", 4, 8, seed=1).decoder)
    sae = sae_of("jumprelu", 4, 8, k=2)
    torch.testing.assert_close(sae.threshold, torch.full((8,), 0.1))
    with pytest.raises(ConfigError) as width:
        sae.encode(torch.zeros(2, 5))
    assert str(width.value) == (
        "activations of width 5 came for an autoencoder of width 4: it was trained on another site or model"
    )
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"scale is {scale}: expected a number above 0"):
            sae.fold_scale(scale)


def test_a_scale_is_folded_so_that_latents_and_reconstructions_stay() -> None:
    for kind in DEAD:
        sae = made(kind)
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            latents, rebuilt = sae.encode(x * 0.25), sae(x * 0.25) / 0.25
            sae.fold_scale(0.25)
            torch.testing.assert_close(sae.encode(x), latents)
            torch.testing.assert_close(sae(x), rebuilt)


@pytest.mark.parametrize("count", [1, _CHUNK, _CHUNK + 1, 2 * _CHUNK, 2 * _CHUNK + 9])
def test_products_at_picks_of_one_part_or_several_are_those_of_the_dense_matrix(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randn(40, 6, generator=generator), torch.randn(60, 6, generator=generator)
    flat = torch.randperm(2400, generator=generator)[:count]
    picks = picks_at(flat, 40, 60)
    ordered = sorted(flat.tolist())
    assert picks.token.tolist() == [place // 60 for place in ordered]
    assert picks.latent.tolist() == [place % 60 for place in ordered] and picks[2:] == (40, 60)
    dense = (rows @ columns.T).flatten()[ordered]
    for products in (products_by_mkl, products_by_parts, _products):
        torch.testing.assert_close(products(rows, columns, picks), dense)
    weights = torch.randn(len(ordered), generator=generator)
    full = torch.zeros(2400)
    full[ordered] = weights
    torch.testing.assert_close(
        _rows_by_latent(weights, rows, picks), full.reshape(40, 60).T @ rows, atol=1e-5, rtol=1e-4
    )


def test_the_candidates_of_a_batch_are_above_four_fifths_of_the_last_threshold() -> None:
    flat = torch.tensor([0.9, 0.79, 0.81, -2.0, 1.5])
    assert candidates(flat, torch.tensor(1.0)).tolist() == [0, 2, 4]
    assert candidates(flat, torch.tensor(-1.0)).tolist() == [0, 1, 2, 4]


def test_matched_latents_of_rare_features_have_their_own_scores() -> None:
    class Drawn(Superposition):
        def sample(self, count: int) -> tuple[Tensor, Tensor]:
            strengths = torch.zeros(6, 3)
            strengths[0, 0], strengths[1, 0], strengths[2, 1] = 1.0, 0.5, 1.5
            return strengths @ self.features, strengths

    truth = Drawn(8, 8, l0=1.0)
    truth.features = torch.eye(8)[:3]
    sae = sae_of("relu", 8, 4)
    with torch.no_grad():
        rows = torch.stack(
            [torch.eye(8)[1], torch.eye(8)[0] + 0.6 * torch.eye(8)[2], torch.eye(8)[5], torch.eye(8)[2] * 0.7]
        )
        sae.decoder.copy_(rows)
        sae.encoder.copy_(torch.eye(8)[[1, 0, 5, 2]])
        sae.encoder_bias.copy_(torch.tensor([0.0, -0.75, 0.0, 1.0]))
    found = recovery(sae, truth, samples=6)
    # feature 0 fires twice, its latent once: F1 2/3; feature 1: 1; feature 2 never, its latent always: 0
    assert found.f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    near = 1 / math.sqrt(1.36)
    assert (found.mmcs, found.above, found.uniqueness) == (pytest.approx((near + 1 + 1) / 3), pytest.approx(2 / 3), 1.0)
    assert (found.l0, found.dead) == (pytest.approx(8 / 6), 0.25)


def test_a_very_small_area_still_has_a_lower_end_above_0() -> None:
    found = separation([0.5] + [-1.0] * 199, [0.0, 1.0])
    assert found.auroc == 1 / 400 and 0 < found.low < 1 / 400 < found.high < 1
    assert separation([0.0], [1.0]).low == 0.0 and separation([1.0], [0.0]).high == 1.0
