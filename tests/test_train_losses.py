"""Losses against numbers worked out by hand, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, tensor

from firsthand.train.losses import kl_estimators
from firsthand.train.losses.pair_losses import (
    bradley_terry_loss,
    dpo_loss,
    ipo_loss,
    kto_baseline,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from firsthand.train.losses.policy_losses import (
    cispo_loss,
    clipped_policy_loss,
    clipped_value_loss,
    reinforce_loss,
    sequence_ratio_loss,
    whole_sequence_loss,
)


def close(found: Tensor, *expected: float) -> bool:
    return found.tolist() == pytest.approx(list(expected), abs=1e-6)


def log_of_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_the_clip_takes_the_gradient_only_where_it_would_go_on_in_the_same_direction():
    ratios = tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    logprob = ratios.log().requires_grad_()
    losses = clipped_policy_loss(logprob, torch.zeros(5), advantages, clip_low=0.2, clip_high=0.3)
    assert close(losses.detach(), -1.3, 1.5, -0.5, 0.8, -2.2)
    losses.sum().backward()
    assert close(logprob.grad, 0, 1.5, -0.5, 0, -2.2)


def test_cispo_keeps_the_gradient_of_clipped_tokens():
    logprob = tensor([2.0, 0.1, 2.0]).log().requires_grad_()
    losses = cispo_loss(logprob, torch.zeros(3), tensor([1.0, 1.0, -1.0]), clip_high=0.5)
    losses.sum().backward()
    assert close(logprob.grad, -1.5, -0.1, 1.5)
    low = cispo_loss(tensor([0.1]).log(), torch.zeros(1), tensor([1.0]), clip_low=0.2, clip_high=0.2)
    assert close(low, -0.8 * math.log(0.1))


def test_gspo_has_one_ratio_per_sequence_the_geometric_mean():
    old = torch.zeros(3)
    logprob = tensor([0.2, 0.4, -0.5], requires_grad=True)
    sequence = tensor([0, 0, 1])
    losses = sequence_ratio_loss(logprob, old, tensor([1.0, 1.0, 1.0]), sequence, clip_low=0.6, clip_high=0.6)
    assert close(losses.detach(), -math.exp(0.3), -math.exp(0.3), -math.exp(-0.5))
    (losses[:2].mean()).backward()
    assert close(logprob.grad, -math.exp(0.3) / 2, -math.exp(0.3) / 2, 0)
    clipped = sequence_ratio_loss(logprob, old, tensor([1.0, 1.0, -1.0]), sequence, clip_low=0.1, clip_high=0.1)
    assert close(clipped.detach(), -1.1, -1.1, 0.9)


def test_the_ratio_of_a_whole_answer_is_the_product_of_its_tokens():
    logprob = tensor([0.1, 0.2, 0.3], requires_grad=True)
    losses = whole_sequence_loss(logprob, torch.zeros(3), tensor([1.0, 1.0, -1.0]), tensor([0, 0, 1]), clip_high=9.0)
    assert close(losses.detach(), -math.exp(0.3), -math.exp(0.3), math.exp(0.3))
    on_policy = tensor([-1.0, -2.0], requires_grad=True)
    whole_sequence_loss(on_policy, tensor([-1.0, -2.0]), tensor([2.0, 2.0]), tensor([0, 0])).mean().backward()
    assert close(on_policy.grad, -2, -2)  # REINFORCE on the log-prob of the whole answer
    assert close(reinforce_loss(tensor([-1.0]), tensor([2.0])), 2)


def test_the_value_loss_takes_the_larger_error():
    value, old, target = tensor([1.0, 1.0, 0.1]), tensor([0.0, 0.0, 0.0]), tensor([2.0, 0.0, 2.0])
    assert close(clipped_value_loss(value, old, target, clip=0.2), 0.5 * 1.8**2, 0.5 * 1.0, 0.5 * 1.9**2)
    assert close(clipped_value_loss(value, old, target, clip=None), 0.5, 0.5, 0.5 * 1.9**2)


def test_kl_estimators_and_their_mean_over_the_policy():
    policy, reference = tensor([0.7, 0.2, 0.1]), tensor([0.4, 0.3, 0.3])
    exact = float((policy * (policy / reference).log()).sum())
    k1, k2, k3 = (getattr(kl_estimators, name)(policy.log(), reference.log()) for name in ("k1", "k2", "k3"))
    assert float((policy * k1).sum()) == pytest.approx(exact, abs=1e-6) == float((policy * k3).sum())
    assert (k3 > 0).all() and float((policy * k2).sum()) != pytest.approx(exact, abs=1e-3)
    assert close(k2, *(0.5 * math.log(a / b) ** 2 for a, b in zip([0.7, 0.2, 0.1], [0.4, 0.3, 0.3], strict=True)))


def test_dpo_and_its_smoothing():
    chosen, rejected = tensor([1.0, -2.0]), tensor([0.0, 1.0])
    assert close(dpo_loss(chosen, rejected, beta=0.5), -log_of_sigmoid(0.5), -log_of_sigmoid(-1.5))
    smooth = dpo_loss(chosen[:1], rejected[:1], beta=0.5, label_smoothing=0.1)
    assert close(smooth, -0.9 * log_of_sigmoid(0.5) - 0.1 * log_of_sigmoid(-0.5))


def test_ipo_wants_a_margin_of_one_over_two_beta_and_no_more():
    assert close(ipo_loss(tensor([3.0, 6.0, 5.0]), tensor([0.0, 0.0, 0.0]), beta=0.1), 4.0, 1.0, 0.0)


def test_kto_pulls_on_both_sides_of_its_baseline():
    ratio, label = tensor([1.0, 1.0], requires_grad=True), tensor([1.0, -1.0])
    losses = kto_loss(ratio, label, baseline=0.5, beta=2.0, undesirable_weight=3.0)
    assert close(losses.detach(), 1 - 1 / (1 + math.exp(-1.0)), 3 * (1 - 1 / (1 + math.exp(1.0))))
    losses.sum().backward()
    assert ratio.grad[0] < 0 < ratio.grad[1]
    judged = kto_loss(tensor([1.0] * 4), tensor([0.0, 0.25, 3.0, -0.5]), baseline=0.5, beta=2.0, desirable_weight=5.0)
    good, bad = 5 * (1 - 1 / (1 + math.exp(-1.0))), 1 - 1 / (1 + math.exp(1.0))
    assert close(judged, bad, good, good, bad), "a label above 0 is desirable, and 0 is not"
    assert kto_baseline(tensor([1.0, -3.0])).item() == 0 and kto_baseline(tensor([3.0, -1.0])).item() == 1


def test_orpo_is_the_log_of_the_ratio_of_odds():
    p, q = 0.8, 0.3
    found = orpo_loss(tensor([math.log(p)]), tensor([math.log(q)]), weight=0.5)
    assert close(found, -0.5 * log_of_sigmoid(math.log(p / (1 - p)) - math.log(q / (1 - q))))
    sure = tensor([-1e-9, 0.0], requires_grad=True)
    orpo_loss(sure, tensor([-3.0, -3.0])).sum().backward()
    assert sure.grad.isfinite().all()
    tiny = orpo_loss(tensor([-200.0]), tensor([-100.0]), weight=1.0)
    assert close(tiny / 100, 1.0)


def test_simpo_has_a_margin_and_no_reference():
    assert close(simpo_loss(tensor([-0.5]), tensor([-1.0]), beta=2.0, margin=0.4), -log_of_sigmoid(2.0 * 0.5 - 0.4))


def test_bradley_terry_averages_all_pairs_of_a_prompt():
    rewards, ranks = tensor([2.0, 1.0, 0.0, 5.0, 7.0, 3.0]), tensor([3.0, 2.0, 1.0, 1.0, 1.0, 4.0])
    groups = tensor([0, 0, 0, 1, 1, 2])
    found = bradley_terry_loss(rewards, ranks, groups)
    assert close(found, -(2 * log_of_sigmoid(1) + log_of_sigmoid(2)) / 3, 0.0, 0.0)
    centred = bradley_terry_loss(rewards[:2], ranks[:2], groups[:2], centering=0.1)
    assert close(centred, -log_of_sigmoid(1) + 0.1 * 9)
    turned = bradley_terry_loss(rewards[:2], -ranks[:2], groups[:2])
    assert close(turned, -log_of_sigmoid(-1))
