"""Streams and objectives of the algorithms from unlike episodes: every option, every array, groups out of order."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.sampling import Sampling
from firsthand.train.episodes import Episode, Graded
from firsthand.train.objective import Targets
from firsthand.train.policy_streams import corrected, importance_metrics, policy_streams
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.sampled_policy import kept_tokens, sampled_policy
from firsthand.train.streams import Stream

SIZE = 5


def episode(number: int, reward: float, group: str, mask: Sequence[float], **more: Any) -> Episode:
    """Log-probs that depend on the episode and the place."""
    at = np.array(mask) > 0
    own = np.where(at, -0.1 * (number + 1) * np.arange(1, SIZE + 1), 0.0)
    ids = np.arange(SIZE, dtype=np.int32) + number
    return Episode(ids, np.array(mask, float), own, 1.5 * own, reward, group, f"t{number}", **more)


A = episode(0, 1.0, "a", (0, 1, 0, 0.5, 1))
B = episode(1, 0.25, "b", (0, 0, 1, 1, 0), adapter="lead")
C = episode(2, 4.0, "a", (0, 1, 1, 1, 1))
D = episode(3, 0.75, "b", (0, 0, 0, 0, 1))
E = episode(4, 2.0, "a", (0, 1, 0, 0, 0))
GRADED = Graded((A, B, C, D, E), {"reward": 1.6})


class View:
    """Log-probs and values that differ by episode and place."""

    def references(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [-0.3 - 0.01 * (each.ids[0] + 1) * np.arange(SIZE) for each in episodes]

    def values(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [0.1 * (each.ids[0] + 1) + 0.05 * np.arange(SIZE) ** 2 for each in episodes]


def streams(recipe: str, graded: Graded = GRADED, **settings: Any) -> list[Stream]:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    return list(module.streams(graded, View(), module.Config("x", **settings)))


def advantages(made: Sequence[Stream]) -> list[float]:
    """The advantage of the tokens of each answer, which must be one."""
    found = []
    for each in made:
        values = set(np.round(each.advantage[each.pg > 0].astype(float), 5).tolist())
        assert len(values) == 1 and not each.advantage[each.pg == 0].any()
        found.append(values.pop())
    return found


def normed(rewards: Sequence[float], epsilon: float) -> list[float]:
    return [(each - np.mean(rewards)) / (np.std(rewards, ddof=1) + epsilon) for each in rewards]


def test_each_algorithm_compares_the_answers_of_a_group_wherever_they_stand() -> None:
    first, second = normed([1, 4, 2], 0.5), normed([0.25, 0.75], 0.5)
    expected = [first[0], second[0], first[1], second[1], first[2]]
    for recipe in ("grpo", "gspo", "cispo", "dapo"):
        assert advantages(streams(recipe, epsilon=0.5)) == pytest.approx(expected, abs=1e-5)
    assert advantages(streams("dr_grpo")) == pytest.approx([1 - 7 / 3, -0.25, 4 - 7 / 3, 0.25, 2 - 7 / 3], abs=1e-5)
    assert advantages(streams("reinforce")) == pytest.approx([each.reward - 1.6 for each in GRADED.episodes], abs=1e-5)
    spread = np.std([1, 0.25, 4, 0.75, 2], ddof=1)
    white = [(each.reward - 1.6) / spread for each in GRADED.episodes]
    assert advantages(streams("reinforce", whiten=True)) == pytest.approx(white, abs=1e-5)
    assert advantages(streams("rloo", kl=0.0)) == pytest.approx([1 - 3, -0.5, 4 - 1.5, 0.5, 2 - 2.5], abs=1e-5)


def test_rloos_reward_pays_the_kl_under_the_distribution_that_is_trained() -> None:
    for to_model in (False, True):
        plan = RolloutSettings(correct_to_model=to_model, importance_cap=100.0)
        made = streams("rloo", kl=0.5, rollouts=plan)
        paid = []
        for each, reference in zip(GRADED.episodes, View().references(GRADED.episodes), strict=True):
            old = each.own if to_model else each.behaviour
            paid.append(each.reward - 0.5 * float((each.mask * (old - reference))[each.sampled].sum()))
        first, second, third, fourth, fifth = paid
        expected = [first - (third + fifth) / 2, second - fourth, third - (first + fifth) / 2, fourth - second,
                    fifth - (first + third) / 2]  # fmt: skip
        for stream, each, advantage in zip(made, GRADED.episodes, expected, strict=True):
            weight = np.exp(each.own - each.behaviour)[each.sampled] if to_model else 1.0
            assert stream.advantage[each.sampled] == pytest.approx(advantage * weight, abs=1e-4)
            assert stream.behaviour == pytest.approx(each.own if to_model else each.behaviour, abs=1e-6)
            assert stream.pg == pytest.approx(each.mask / each.mask.sum(), abs=1e-6)


def test_ppo_discounts_decays_and_reads_each_tokens_own_numbers() -> None:
    for to_model in (False, True):
        plan = RolloutSettings(correct_to_model=to_model, importance_cap=1.2)
        made = streams("ppo", kl=0.3, discount=0.9, trace_decay=0.6, rollouts=plan)
        raw, returns = [], []
        references, values = View().references(GRADED.episodes), View().values(GRADED.episodes)
        for each, reference, value in zip(GRADED.episodes, references, values, strict=True):
            at, old = each.sampled, each.own if to_model else each.behaviour
            rewards = -0.3 * (old - reference)[at]
            rewards[-1] += each.reward
            running, after, found = 0.0, 0.0, []
            for reward, here in zip(rewards[::-1], value[at][::-1], strict=True):
                running = reward + 0.9 * after - here + 0.9 * 0.6 * running
                after = here
                found.insert(0, running)
            raw.append(np.array(found))
            returns.append(np.array(found) + value[at])
        every, weights = np.concatenate(raw), np.concatenate([each.mask[each.sampled] for each in GRADED.episodes])
        mean = np.average(every, weights=weights)  # a token that branches share counts once
        variance = (weights * (every - mean) ** 2).sum() / (weights.sum() - 1)
        for stream, each, own, back, value in zip(
            made, GRADED.episodes, raw, returns, View().values(GRADED.episodes), strict=True
        ):
            weight = np.minimum(np.exp(each.own - each.behaviour)[each.sampled], 1.2) if to_model else 1.0
            white = (own - mean) / math.sqrt(variance + 1e-8)
            assert stream.advantage[each.sampled] == pytest.approx(white * weight, abs=1e-4)
            assert stream.returns[each.sampled] == pytest.approx(back, abs=1e-5) and stream.old_values == pytest.approx(
                value
            )
            assert stream.value == pytest.approx(each.mask) and stream.pg == pytest.approx(each.mask)
            assert stream.reference is None and not stream.returns[each.mask == 0].any()


def test_rejection_learns_the_first_of_the_best_answers_of_a_task_that_taught_something() -> None:
    same = [episode(5, 3.0, "c", (0, 1, 0, 0, 0)), episode(6, 3.0, "c", (0, 1, 0, 0, 0))]
    tie = [episode(7, 0.0, "d", (0, 1, 0, 0, 0)), episode(8, 5.0, "d", (0, 0, 0.5, 1, 0), adapter="x"),
           episode(9, 5.0, "d", (0, 1, 0, 0, 0))]  # fmt: skip
    graded = Graded((*GRADED.episodes, *same, *tie), {})
    made = streams("rejection", graded)
    assert [(each.source, each.group, each.adapter) for each in made] == [
        ("t2", "a", ""),
        ("t3", "b", ""),
        ("t8", "d", "x"),
    ]
    assert (
        made[2].ce.tolist() == [0, 0, 0.5, 1, 0] and made[2].ids.tolist() == [8, 9, 10, 11, 12] and made[0].pg is None
    )
    assert [each.source for each in streams("rejection", graded, least=4.0)] == ["t2", "t8"], "at least, so 4 is enough"
    assert streams("rejection", graded, least=5.5) == []


def test_dapo_takes_from_long_answers_in_proportion_to_the_last_tokens() -> None:
    rows = [
        episode(0, 1.0, "a", (0, 1, 1, 1, 1)),
        episode(1, 1.0, "a", (0, 1, 1, 1, 0)),
        episode(2, 1.0, "a", (0, 1, 0, 0, 0)),
    ]
    made = streams(
        "dapo", Graded(tuple(rows), {}), overlong_buffer=2, rollouts=RolloutSettings(max_tokens=4), epsilon=0.5
    )
    assert advantages(made) == pytest.approx(normed([0.0, 0.5, 1.0], 0.5), abs=1e-5)


def test_streams_carry_all_that_their_episodes_have() -> None:
    weighted = episode(1, 0.25, "b", (0, 0, 1, 1, 0), adapter="lead", importance=np.array([1, 1, 0.5, 2.0, 1]))
    references, values = View().references([A, weighted]), View().values([A, weighted])
    for mean_per_answer in (False, True):
        first, second = policy_streams(
            [A, weighted], [2.0, np.array([9, 9, 3.0, 4.0, 9])], RolloutSettings(), mean_per_answer=mean_per_answer,
            references=references, more=[{"value": A.mask, "returns": values[0]}, {"old_values": values[1]}],
        )  # fmt: skip
        shares = [A.mask / 2.5, weighted.mask / 2] if mean_per_answer else [A.mask, weighted.mask]
        for made, share in zip((first, second), shares, strict=True):
            assert made.pg == pytest.approx(share) and made.ref_kl == pytest.approx(share)
        assert first.advantage.tolist() == [0, 2, 0, 2, 2] and second.advantage.tolist() == [0, 0, 1.5, 8, 0]
        assert first.reference == pytest.approx(references[0]) and second.reference == pytest.approx(references[1])
        assert first.behaviour == pytest.approx(A.behaviour) and first.returns == pytest.approx(values[0])
        assert (
            first.value == pytest.approx(A.mask)
            and second.old_values == pytest.approx(values[1])
            and second.value is None
        )
        assert (second.group, second.source, second.adapter, first.adapter) == ("b", "t1", "lead", "")
    plan = RolloutSettings(correct_to_model=True, importance_cap=1.15, importance_mode="sequence_mask")
    (kept, dropped) = policy_streams([E, A], [2.0, 3.0], plan)
    total = math.exp(float((A.own - A.behaviour)[A.sampled].sum()))
    assert kept.advantage[1] == pytest.approx(0.0 if math.exp(0.5) > 1.15 else 2 * math.exp(0.5))
    assert dropped.advantage[A.sampled] == pytest.approx([0.0 if total > 1.15 else 3 * total] * 3)


def test_a_samplers_episodes_are_corrected_to_the_trainers_numbers() -> None:
    trainer = [each.behaviour + 0.2 * (row + 1) * np.array([5, 1, -1, 0.5, 2]) for row, each in enumerate((A, B))]
    graded = corrected(Graded((A, B), {"reward": 1.0}), trainer, RolloutSettings(importance_cap=1.3))
    ratios = []
    for now, was, new in zip(graded.episodes, (A, B), trainer, strict=True):
        ratio = np.exp(new - was.behaviour)[was.sampled]
        ratios.append(ratio)
        expected = np.ones(SIZE)
        expected[was.sampled] = np.minimum(ratio, 1.3)
        assert now.importance == pytest.approx(expected)
        assert now.behaviour[was.sampled] == pytest.approx(new[was.sampled]) and now.own == pytest.approx(now.behaviour)
        assert not now.behaviour[was.mask == 0].any() and (now.reward, now.adapter) == (was.reward, was.adapter)
    every = np.concatenate(ratios)
    assert graded.metrics == pytest.approx({
        "reward": 1.0, "sampler_gap": np.abs(np.log(every)).max(), "importance_ratio": every.mean(),
        "importance_capped": (every > 1.3).mean(),
    })  # fmt: skip
    assert A.importance is None and A.behaviour[1] == pytest.approx(-0.3)
    own = np.exp(np.concatenate([(each.own - each.behaviour)[each.sampled] for each in (A, B)]))
    assert importance_metrics((A, B), 1.2) == pytest.approx(
        {"importance_ratio": own.mean(), "importance_capped": (own > 1.2).mean()}
    )


def test_cuts_keep_tokens_in_the_samplers_order() -> None:
    logits = torch.tensor([[0.6, 0.2, 0.15, 0.05], [0.05, 0.3, 0.35, 0.3]]).double().log()

    def kept(**cuts: Any) -> list[list[int]]:
        return kept_tokens(logits, **cuts).int().tolist()

    assert kept() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert kept(top_k=2) == [[1, 1, 0, 0], [0, 1, 1, 0]], "the first of equal ones"
    assert kept(top_p=0.6001) == [[1, 1, 0, 0], [0, 1, 1, 0]] and kept(top_p=0.599) == [[1, 0, 0, 0], [0, 1, 1, 0]]
    assert kept(top_p=0.01) == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert kept(min_p=0.3) == [[1, 1, 0, 0], [0, 1, 1, 1]] and kept(min_p=0.9) == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert kept(top_k=3, top_p=0.8) == [[1, 1, 0, 0], [0, 1, 1, 1]], "top-p is of what top-k left"
    assert kept(top_p=0.99, min_p=0.3) == [[1, 1, 0, 0], [0, 1, 1, 1]]
    logits = torch.zeros(1, 4)  # a quarter each, without rounding
    for top_p, count in ((0.25, 1), (0.26, 2), (0.5, 2), (0.51, 3), (0.75, 3), (0.76, 4), (1.0, 4)):
        assert kept(top_p=top_p) == [[1] * count + [0] * (4 - count)], "the fewest whose sum is top-p"
    assert kept(min_p=1.0) == [[1] * 4] == kept(top_k=4, min_p=1.0) == kept(top_k=9)
    assert kept(top_k=1, top_p=0.5) == [[1, 0, 0, 0]] and kept(top_k=2, top_p=0.5) == [[1, 0, 0, 0]]
    assert kept(top_k=2, top_p=0.51) == [[1, 1, 0, 0]]
    logits = torch.tensor([[0.6, 0.2, 0.15, 0.05], [0.05, 0.3, 0.35, 0.3]]).double().log()
    policy = sampled_policy(Sampling(temperature=0.5, top_k=2))
    ids = torch.tensor([1, 0])
    found = policy(logits, Targets(ids, ids, *[torch.zeros(2)] * 9))
    assert found.tolist() == pytest.approx([
        math.log(0.2**2 / (0.6**2 + 0.2**2)), math.log(0.05**2 / (0.05**2 + 0.35**2 + 0.3**2))
    ])  # fmt: skip
    for settings in ({"temperature": 2.0}, {"top_k": 1}, {"top_p": 0.5}, {"min_p": 0.1}):
        assert sampled_policy(Sampling(**{"temperature": 1.0, **settings})) is not None
    both = Sampling(temperature=1.0, presence_penalty=0.5, frequency_penalty=0.25, allowed_token_ids=(1,))
    with pytest.raises(ConfigError) as refused:
        sampled_policy(both)
    assert str(refused.value) == (
        "rollouts are sampled with presence_penalty, frequency_penalty, allowed_token_ids, which the trainer cannot compute "
        "from logits alone: leave it out, or train the model's own distribution (correct_to_model) by importance weights"
    )


def test_objectives_take_their_clips_and_weights_from_the_settings() -> None:
    now, old = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([-0.5, 0.5, -1.0])
    advantage, row = torch.tensor([2.0, -3.0, 1.0]), torch.tensor([0, 0, 1])
    zeros = torch.zeros(3)
    targets = Targets(row, row, zeros, zeros, zeros, zeros, advantage, old, zeros, torch.tensor([1.0, 2.0, 3.0]), zeros)

    def loss(recipe: str, **settings: Any) -> list[float]:
        module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
        return module.objective(module.Config("x", **settings)).policy_loss(targets, now).tolist()

    up, down = math.exp(0.5), math.exp(-0.5)
    assert loss("grpo", clip=0.1) == pytest.approx([-2 * 1.1, 3 * 0.9, -1.0])
    assert loss("dr_grpo", clip=0.25) == pytest.approx([-2 * 1.25, 3 * 0.75, -1.0])
    assert loss("ppo", clip=0.3) == pytest.approx([-2 * 1.3, 3 * 0.7, -1.0])
    assert loss("dapo", clip_low=0.1, clip_high=0.4) == pytest.approx([-2 * 1.4, 3 * 0.9, -1.0])
    assert loss("cispo", clip_low=0.1, clip_high=0.4) == pytest.approx([0.0, 0.0, 1.0])
    assert loss("reinforce") == pytest.approx([0.0, 0.0, 1.0]) and up * down == pytest.approx(1)
    assert loss("gspo") == pytest.approx([-2.0, 3.0, -1.0]) and loss("rloo") == pytest.approx([-2.0, 3.0, -1.0])
    old[1] = -0.5
    assert loss("gspo", clip_low=0.1, clip_high=0.2) == pytest.approx([-2 * 1.2, 3 * up, -1.0])
    assert loss("rloo", clip=0.3) == pytest.approx([-2 * 1.3, 3 * math.e, -1.0])
    ppo = importlib.import_module("firsthand.train.recipes.ppo")
    objective = ppo.objective(ppo.Config("x", value=0.25, value_clip=0.5))
    assert objective.value_loss(targets, torch.tensor([1.0, 1.0, 4.0])).tolist() == pytest.approx([0.125, 1.125, 3.125])
    assert (objective.value, objective.ce) == (0.25, 0.0)
