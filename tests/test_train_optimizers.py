"""Optimizers against torch and against their definitions; schedules at their corners."""

from __future__ import annotations

import math

import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.train.optimizers import Muon, newton_schulz, optimizer_for
from firsthand.train.recipe_settings import LoopSettings, ModelSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings, cosine, wsd
from train_tiny import model


def names_by_group(decoder, optimizer):
    names = {id(weight): name for name, weight in decoder.named_parameters()}
    return [({names[id(weight)] for weight in group["params"]}, group) for group in optimizer.param_groups]


def test_weight_decay_is_for_matrices_only_and_a_tied_head_counts_once():
    decoder = model()
    groups = names_by_group(decoder, optimizer_for(decoder, OptimizerSettings(weight_decay=0.3)))
    (matrices, decayed), (vectors, plain) = groups
    assert decayed["weight_decay"] == 0.3 and plain["weight_decay"] == 0.0
    assert matrices | vectors == {name for name, _ in decoder.named_parameters()} and not matrices & vectors
    assert all("norm" in name for name in vectors) and "embed.weight" in matrices


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    decoder = model()
    groups = names_by_group(decoder, optimizer_for(decoder, OptimizerSettings(optimizer="muon", weight_decay=0.3)))
    of = {name: group for names, group in groups for name in names}
    assert set(of) == {name for name, _ in decoder.named_parameters()}
    assert of["layers.0.attention.q_proj.weight"]["orthogonal"] and of["layers.1.mlp.down_proj.weight"]["orthogonal"]
    assert not of["embed.weight"]["orthogonal"] and of["embed.weight"]["weight_decay"] == 0.3
    assert not of["norm.weight"]["orthogonal"] and of["layers.0.mlp_norm.weight"]["weight_decay"] == 0.0


def test_frozen_weights_are_left_out():
    decoder = model()
    decoder.embed.weight.requires_grad_(False)
    names = set().union(*(found for found, _ in names_by_group(decoder, optimizer_for(decoder, OptimizerSettings()))))
    assert "embed.weight" not in names and "layers.0.mlp.up_proj.weight" in names


def test_muons_adamw_equals_torchs():
    torch.manual_seed(0)
    start = torch.randn(5, 7)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.03, "betas": (0.8, 0.9), "eps": 1e-6}
    muon = Muon([{"params": [ours], "orthogonal": False, "weight_decay": 0.2}], **settings)
    adamw = torch.optim.AdamW([theirs], weight_decay=0.2, **settings)
    for _ in range(6):
        gradient = torch.randn(5, 7)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    assert (ours - theirs).abs().max() < 1e-6 and (ours - start).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_newton_schulz_keeps_singular_vectors_and_evens_out_their_values(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape) * 3
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    moved = torch.diagonal(left.T @ newton_schulz(matrix) @ right.T)
    kept = values > 0.02 * values.max()
    assert newton_schulz(matrix).shape == shape
    assert ((moved[kept] > 0.6) & (moved[kept] < 1.3)).all()
    assert (newton_schulz(matrix) - left @ torch.diag(moved) @ right).abs().max() < 1e-3  # nothing beside the diagonal


def test_muons_update_has_the_momentum_and_the_size_that_the_papers_give():
    torch.manual_seed(2)
    weight = torch.nn.Parameter(torch.zeros(8, 32))
    muon = Muon([weight], lr=0.1, momentum=0.5)
    first, second = torch.randn(8, 32), torch.randn(8, 32)
    weight.grad = first.clone()
    muon.step()
    scale = 0.1 * 0.2 * math.sqrt(32)
    assert torch.allclose(weight, -scale * newton_schulz(first * 1.5), atol=1e-6)
    before = weight.detach().clone()
    weight.grad = second.clone()
    muon.step()
    ahead = second + 0.5 * (0.5 * first + second)
    assert torch.allclose(weight - before, -scale * newton_schulz(ahead), atol=1e-6)
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.25)


def test_muon_decays_its_matrices():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, momentum=0.9).step()
    assert torch.equal(weight, torch.ones(4, 4))
    muon = Muon([{"params": [weight], "weight_decay": 0.5}], lr=0.1)
    muon.step()
    assert torch.allclose(weight, torch.full((4, 4), 0.95))


def test_cosine_rises_falls_and_ends_at_its_final_rate():
    rate = ScheduleSettings("cosine", warmup_steps=10, final_lr=0.2).over(110)
    assert rate(1) == pytest.approx(0.1) and rate(10) == 1.0
    assert rate(60) == pytest.approx(0.6) and rate(110) == pytest.approx(0.2)
    assert cosine(35, 110, warmup_steps=10, final=0.2) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert [rate(step) for step in range(10, 111)] == sorted((rate(step) for step in range(10, 111)), reverse=True)


def test_wsd_is_constant_until_its_decay():
    rate = ScheduleSettings("wsd", warmup_steps=4, decay_steps=10, final_lr=0.0).over(50)
    assert [rate(step) for step in (1, 4, 20, 40)] == [0.25, 1.0, 1.0, 1.0]
    assert rate(41) == pytest.approx(0.9) and rate(45) == pytest.approx(0.5) and rate(50) == 0.0
    assert wsd(45, 50, decay_steps=10, final=0.5) == pytest.approx(0.75)
    assert ScheduleSettings("wsd", final_lr=0.0).over(50)(40) == 1.0
    assert ScheduleSettings("wsd", final_lr=0.0).over(50)(41) == pytest.approx(0.9)  # a fifth of the run


def test_constant_has_a_warm_up_alone():
    rate = ScheduleSettings("constant", warmup_steps=3).over(5)
    assert [rate(step) for step in range(1, 6)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert ScheduleSettings("constant").over(5)(1) == 1.0
    twentieth = ScheduleSettings("constant", warmup_steps=-1).over(200)
    assert (twentieth(5), twentieth(10)) == (0.5, 1.0) and ScheduleSettings(warmup_steps=-1).over(3)(1) > 0.7


def test_a_schedule_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="take 16 of 15 steps"):
        ScheduleSettings("wsd", warmup_steps=6, decay_steps=10).over(15)
    assert ScheduleSettings("wsd", warmup_steps=5, decay_steps=10).over(15)(5) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerSettings(lr=-1.0), "lr is -1.0: expected 0 or more"),
        (lambda: OptimizerSettings(beta2=1.0), "beta2 is 1.0"),
        (lambda: OptimizerSettings(weight_decay=float("nan")), "weight_decay is nan"),
        (lambda: ScheduleSettings(final_lr=1.5), "final_lr is 1.5"),
        (lambda: ScheduleSettings(warmup_steps=-2), "warmup_steps is -2"),
        (lambda: LoopSettings(micro_tokens=0), "micro_tokens is 0: expected 1 or more"),
        (
            lambda: ModelSettings(hidden_size=100, heads=6),
            "hidden_size is 100: expected a multiple of twice the 6 heads",
        ),
        (lambda: ModelSettings(context=1), "context is 1: expected 2 or more"),
        (lambda: ModelSettings(layers=0), "layers is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_mlp_has_eight_thirds_of_the_width():
    shape = ModelSettings(hidden_size=192, heads=6, kv_heads=2).architecture(100)
    assert (shape.intermediate_size, shape.num_kv_heads, shape.head_dim) == (512, 2, 32)
    assert ModelSettings(hidden_size=64, heads=2).architecture(100).intermediate_size == 192
