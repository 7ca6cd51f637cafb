"""Advantages against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from firsthand.train.advantages import (
    batch_advantages,
    gae,
    group_advantages,
    kl_penalised_rewards,
    leave_one_out_advantages,
    overlong_penalty,
    varied_groups,
    whiten,
)
from firsthand.train.importance import importance_weights


def test_grpo_divides_by_the_sample_deviation_of_the_group():
    rewards, groups = [1, 0, 0, 1, 5, 5], ["a", "b", "a", "b", "c", "c"]
    deviation = math.sqrt(0.5)  # of 1 and 0, with G - 1
    expected = [0.5 / (deviation + 1e-4), -0.5 / (deviation + 1e-4)]
    found = group_advantages(rewards, groups)
    assert found == pytest.approx([expected[0], expected[1], expected[1], expected[0], 0, 0], abs=1e-12)


def test_dr_grpo_only_centres_and_is_a_multiple_of_leaving_one_out():
    rewards, groups = [3.0, 1.0, 2.0, 10.0], ["a", "a", "a", "b"]
    centred = group_advantages(rewards, groups, divide_by_std=False)
    assert centred == pytest.approx([1, -1, 0, 0])
    left_out = leave_one_out_advantages(rewards, groups)
    assert left_out == pytest.approx([3 - 1.5, 1 - 2.5, 2 - 2, 0])
    assert left_out[:3] == pytest.approx(centred[:3] * 3 / 2)


def test_a_group_of_equal_rewards_gives_exact_zeros_and_is_left_out_by_dynamic_sampling():
    rewards = [0.1 + 0.2, 0.3, 1.0, 0.0]  # 0.1 + 0.2 is not 0.3 in binary
    groups = ["a", "a", "b", "b"]
    for found in (group_advantages(rewards, groups), leave_one_out_advantages(rewards, groups)):
        assert list(found[:2]) == [0.0, 0.0] and found[2] > 0 > found[3]
    assert varied_groups(rewards, groups).tolist() == [False, False, True, True]
    assert group_advantages([], []).tolist() == [] == varied_groups([], []).tolist()


def test_a_batch_baseline_is_the_mean_or_the_given_one():
    assert batch_advantages([1, 2, 6]).tolist() == [-2, -1, 3]
    assert batch_advantages([1, 2, 6], baseline=2.0).tolist() == [-1, 0, 4]
    assert batch_advantages([1, 2, 6], baseline=0.0).tolist() == [1, 2, 6]


def test_gae_by_hand_and_its_two_ends():
    rewards, values = [1.0, 0.0, 2.0], [0.5, 1.0, -1.0]
    deltas = [1 + 0.9 * 1.0 - 0.5, 0 + 0.9 * -1.0 - 1.0, 2 - -1.0]
    last = deltas[2]
    middle = deltas[1] + 0.9 * 0.5 * last
    first = deltas[0] + 0.9 * 0.5 * middle
    found = gae(rewards, values, discount=0.9, trace_decay=0.5)
    assert found.advantages == pytest.approx([first, middle, last])
    assert found.returns == pytest.approx([first + 0.5, middle + 1.0, last - 1.0])
    assert gae(rewards, values, trace_decay=1.0).returns == pytest.approx([3, 2, 2])  # the sum of what comes
    assert gae(rewards, values, trace_decay=0.0).advantages == pytest.approx([1 + 1 - 0.5, 0 - 1 - 1, 2 + 1])  # TD(0)


def test_the_kl_is_paid_token_by_token_and_the_score_at_the_end():
    found = kl_penalised_rewards(2.0, [-1.0, -2.0], [-1.5, -1.0], kl_weight=0.1)
    assert found == pytest.approx([-0.1 * 0.5, 2.0 - 0.1 * -1.0])
    assert kl_penalised_rewards(2.0, [], [], kl_weight=0.1).tolist() == []


def test_whitening_uses_the_sample_variance():
    found = whiten(np.array([1.0, 2.0, 6.0]))
    assert found.mean() == pytest.approx(0, abs=1e-12) and found.std(ddof=1) == pytest.approx(1)
    assert whiten(np.array([1.0, 2.0, 6.0]), shift_mean=False).mean() == pytest.approx(3)
    assert whiten(np.array([4.0])).tolist() == [0.0]


def test_the_punishment_of_long_answers_falls_over_the_buffer():
    found = [overlong_penalty(length, max_length=20, buffer=4) for length in (1, 16, 17, 20, 21)]
    assert found == pytest.approx([0, 0, -0.25, -1, -1])


def test_importance_weights_make_means_under_the_cut_those_of_the_model_where_it_was_sampled():
    model = np.array([0.5, 0.25, 0.2, 0.05])
    kept = np.array([True, True, False, False])  # top-k 2
    sampled = np.where(kept, model, 0) / model[kept].sum()
    reward = np.array([1.0, 3.0, 100.0, -7.0])
    weights = importance_weights(np.log(model[kept]), np.log(sampled[kept]), mode="token")
    assert (sampled[kept] * weights * reward[kept]).sum() == pytest.approx((model * reward)[kept].sum())
    assert weights == pytest.approx([0.75, 0.75])  # below 1: cuts make what is left more probable


def test_importance_weights_are_cut_at_the_cap_by_token_or_by_sequence():
    own, behaviour = np.log([0.8, 0.5]), np.log([0.2, 0.5])
    assert importance_weights(own, behaviour, cap=3) == pytest.approx([3, 1])
    assert importance_weights(own, behaviour, cap=3, mode="token_mask") == pytest.approx([0, 1])
    assert importance_weights(own, behaviour, cap=5, mode="sequence") == pytest.approx([4, 4])
    assert importance_weights(own, behaviour, cap=3, mode="sequence_mask") == pytest.approx([0, 0])
