"""The streams that each algorithm makes from graded episodes, against numbers worked out by hand."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import tensor

from firsthand.engine.decoding.sampler import candidates
from firsthand.errors import ConfigError
from firsthand.grammar import choice
from firsthand.sampling import Sampling
from firsthand.train.advantages import whiten
from firsthand.train.episodes import Episode, Graded
from firsthand.train.live_line import line_of
from firsthand.train.objective import Targets
from firsthand.train.policy_streams import corrected, importance_metrics, policy_streams
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.sampled_policy import sampled_policy

REFERENCE = -0.5


class View:
    """A reference whose log-probs are all -0.5, and values that rise by token."""

    def references(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [np.full(len(each.ids), REFERENCE) for each in episodes]

    def values(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [np.arange(len(each.ids)) / 10 for each in episodes]


def episode(reward: float, group: str, sampled: Sequence[int], size: int = 6, *, source: str = "") -> Episode:
    """A rollout of one branch, or one of the branches of `source`."""
    mask = np.zeros(size)
    mask[list(sampled)] = 1
    return Episode(
        np.arange(size, dtype=np.int32), mask, -2.0 * mask, -1.0 * mask, reward, group, source or f"{group}{sampled}"
    )


GRADED = Graded(
    (episode(1.0, "a", (2, 3, 5)), episode(0.0, "a", (1,)), episode(0.5, "b", (4, 5)), episode(0.5, "b", (3,))), {}
)


def streams(recipe: str, graded: Graded = GRADED, **settings: Any) -> list[Any]:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    return list(module.streams(graded, View(), module.Config("x", **settings)))


@pytest.mark.parametrize("recipe", ["grpo", "gspo"])
def test_answers_count_alike_and_tokens_share_their_answers_advantage(recipe: str) -> None:
    first, second, *others = streams(recipe)
    advantage = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert first.pg.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 0, 1 / 3]) and second.pg.tolist() == [
        0,
        1,
        0,
        0,
        0,
        0,
    ]
    assert first.advantage[[2, 3, 5]].tolist() == pytest.approx([advantage] * 3, rel=1e-6)
    assert second.advantage[1] == pytest.approx(-advantage, rel=1e-6)
    assert all(not each.advantage.any() for each in others)  # a group of equal rewards
    assert (first.reference is not None) == (recipe == "grpo")
    assert first.behaviour[2] == -1 and first.behaviour[1] == 0


@pytest.mark.parametrize("recipe", ["dr_grpo", "dapo", "cispo", "reinforce"])
def test_tokens_count_alike(recipe: str) -> None:
    first, second, *_ = streams(recipe)
    assert first.pg.tolist() == [0, 0, 1, 1, 0, 1] and second.pg.tolist() == [0, 1, 0, 0, 0, 0]
    expected = {"dr_grpo": 0.5, "reinforce": 0.5}.get(recipe, 0.5 / (math.sqrt(0.5) + 1e-4))
    assert first.advantage[2] == pytest.approx(expected, rel=1e-6) == -second.advantage[1]


def test_rloo_pays_the_kl_of_the_whole_answer_in_the_reward() -> None:
    first, second, *_ = streams("rloo", kl=0.1)
    rewards = 1.0 - 0.1 * 3 * (-1.0 - REFERENCE), 0.0 - 0.1 * 1 * (-1.0 - REFERENCE)
    assert first.advantage[2] == pytest.approx(rewards[0] - rewards[1]) == -second.advantage[1]
    assert streams("rloo", kl=0.0)[0].advantage[2] == 1.0


def test_ppo_gives_every_token_its_own_advantage_and_return() -> None:
    graded = Graded((episode(1.0, "a", (2, 3, 5)), episode(0.0, "a", (1,))), {})
    first, second = streams("ppo", graded, kl=0.2, trace_decay=0.5)
    rewards, values = [0.2 * 0.5, 0.2 * 0.5, 0.2 * 0.5 + 1], [0.2, 0.3, 0.5]
    third = rewards[2] - values[2]
    middle = rewards[1] + values[2] - values[1] + 0.5 * third
    start = rewards[0] + values[1] - values[0] + 0.5 * middle
    assert first.returns[[2, 3, 5]] == pytest.approx([start + 0.2, middle + 0.3, third + 0.5], abs=1e-6)
    raw = np.array([start, middle, third, 0.2 * 0.5 - 0.1])
    white = (raw - raw.mean()) / np.sqrt(raw.var(ddof=1) + 1e-8)
    assert first.advantage[[2, 3, 5]] == pytest.approx(white[:3], abs=1e-5)
    assert second.advantage[1] == pytest.approx(white[3], abs=1e-5)
    assert first.value.tolist() == first.pg.tolist() and first.old_values[3] == pytest.approx(0.3)
    assert not first.advantage[[0, 1, 4]].any()


def test_dapo_punishes_answers_near_the_limit() -> None:
    from firsthand.train.rollout_settings import RolloutSettings

    graded = Graded((episode(1.0, "a", (2, 3, 4)), episode(1.0, "a", (1,))), {})
    near: dict[str, Any] = {"overlong_buffer": 2, "rollouts": RolloutSettings(max_tokens=4)}
    first, second = streams("dapo", graded, **near)
    assert first.advantage[2] < 0 < second.advantage[1]
    assert not any(each.advantage.any() for each in streams("dapo", graded))
    turns = Graded((episode(1.0, "a", (2, 3, 5)), episode(1.0, "a", (1,))), {})  # two answers, of two tokens and of one
    assert not any(each.advantage.any() for each in streams("dapo", turns, **near))
    longest = Graded((episode(1.0, "a", (0, 2, 3, 4)), episode(1.0, "a", (0, 1, 3, 5))), {})
    first, second = streams("dapo", longest, **near)
    assert first.advantage[2] < 0 < second.advantage[1]


def test_rejection_learns_the_first_of_the_best_answers_and_nothing_from_equal_ones() -> None:
    graded = Graded((*GRADED.episodes, episode(1.0, "a", (4,)), episode(-1.0, "c", (2,)), episode(-3.0, "c", (3,))), {})
    found = streams("rejection", graded)
    assert [(each.group, np.flatnonzero(each.ce).tolist()) for each in found] == [("a", [2, 3, 5]), ("c", [2])]
    assert [each.group for each in streams("rejection", graded, least=0.0)] == ["a"]


BRANCHED = Graded((
    episode(1.0, "a", (2, 3, 5), source="x"), episode(0.5, "a", (1,), source="y"), episode(1.0, "a", (4,), source="x"),
    *(episode(0.0, "a", (place,), source="z") for place in (1, 2, 3)), episode(5.0, "b", (2,), source="w"),
), {})  # fmt: skip
"""Rollouts of one task with 2, 1 and 3 branches, and one of another task."""


@pytest.mark.parametrize("recipe", ["rloo", "grpo", "gspo", "cispo", "dapo", "dr_grpo", "reinforce"])
def test_a_rollout_of_several_branches_is_one_member_of_its_group(recipe: str) -> None:
    given = {"kl": 0.0} if recipe in ("rloo", "grpo", "dr_grpo") else {}
    of_rollouts = {"rloo": (0.75, 0.0, -0.75, 0.0), "dr_grpo": (0.5, 0.0, -0.5, 0.0),
                   "reinforce": (1 - 1.625, 0.5 - 1.625, -1.625, 5 - 1.625)}  # fmt: skip
    x, y, z, w = of_rollouts.get(recipe, (0.5 / (0.5 + 1e-4), 0.0, -0.5 / (0.5 + 1e-4), 0.0))
    made = streams(recipe, BRANCHED, **given)
    assert [float(each.advantage[each.pg > 0][0]) for each in made] == pytest.approx([x, y, x, z, z, z, w], rel=1e-6)
    if recipe in ("grpo", "gspo"):  # an answer is all that its rollout sampled, and counts as one
        assert [float(each.pg.sum()) for each in made] == pytest.approx([3 / 4, 1, 1 / 4, 1 / 3, 1 / 3, 1 / 3, 1])
    if recipe == "rloo":  # its loss is of whole branches
        assert [float(each.pg.sum()) for each in made] == pytest.approx([1] * 7)


def test_rejection_learns_all_branches_of_the_best_rollout() -> None:
    equal = (episode(1.0, "a", (1,), source="later"), episode(9.0, "b", (1,), source="x"))  # x of another task
    graded = Graded((*BRANCHED.episodes, *equal), {})
    found = [(each.group, each.source, np.flatnonzero(each.ce).tolist()) for each in streams("rejection", graded)]
    assert found == [("a", "x", [2, 3, 5]), ("a", "x", [4]), ("b", "x", [1])]
    assert [each.group for each in streams("rejection", graded, least=1.0)] == ["a", "a", "b"]
    assert [each.group for each in streams("rejection", graded, least=1.1)] == ["b"]
    shared = [replace(each, mask=each.mask / 2) for each in BRANCHED.episodes[:3:2]]
    made = streams("rejection", Graded((*shared, BRANCHED.episodes[1]), {}))
    assert [float(each.ce.sum()) for each in made] == [1.5, 0.5], "tokens that branches share count as they are masked"
    parts = Graded(tuple(episode(reward, "a", (1,), source="x") for reward in (1.0, 0.0, 1.0)), {})
    assert len(streams("rejection", parts)) == 2, "branches with a lower reward of their own are not learned"


def test_branches_with_rewards_of_their_own_keep_them() -> None:
    rewards, rollouts = (1.0, 0.0, 0.5, 0.5), ("x", "x", "y", "y")
    branches = [episode(reward, "a", (1,), source=source) for reward, source in zip(rewards, rollouts, strict=True)]
    graded = Graded(tuple(branches), {})
    assert [float(each.advantage[1]) for each in streams("dr_grpo", graded, kl=0.0)] == [0.5, -0.5, 0, 0]
    assert [float(each.advantage[1]) for each in streams("rloo", graded, kl=0.0)] == [0.5, -0.5, 0, 0]
    deviation = math.sqrt((0.5**2 + 0.5**2) / 2 / (2 - 1))  # the mean over x's branches, of two rollouts less one
    assert streams("grpo", graded, kl=0.0)[0].advantage[1] == pytest.approx(0.5 / (deviation + 1e-4))
    alone = Graded(tuple(branches[:2]), {})
    for recipe in ("dr_grpo", "rloo", "grpo"):
        assert not any(each.advantage.any() for each in streams(recipe, alone, kl=0.0)), (
            "one rollout has none beside it"
        )


def test_agents_of_one_rollout_are_members_of_their_own_groups() -> None:
    both = [episode(reward, f"t/{agent}", (1,), source=source)
            for source, reward in (("x", 1.0), ("y", 0.0)) for agent in ("lead", "worker")]  # fmt: skip
    assert [float(each.pg.sum()) for each in streams("grpo", Graded(tuple(both), {}))] == [1.0] * 4
    assert [float(each.advantage[1]) for each in streams("dr_grpo", Graded(tuple(both), {}))] == [0.5, 0.5, -0.5, -0.5]


def test_rloo_pays_the_kl_of_all_branches_of_a_rollout() -> None:
    shared = replace(episode(1.0, "a", (2, 3), source="x"), mask=np.array([0, 0, 0.5, 1, 0, 0]))
    other = replace(shared, mask=np.array([0, 0, 0.5, 0, 1, 0]))
    graded = Graded((shared, episode(0.0, "a", (1,), source="y"), other), {})
    per_token = -1.0 - REFERENCE
    behaviour = replace(other, behaviour=-1.0 * (other.mask > 0))
    graded = replace(graded, episodes=(*graded.episodes[:2], behaviour))
    paid = 1.0 - 0.1 * 3 * per_token, 0.0 - 0.1 * per_token  # three tokens were sampled, one of them shared
    x, y, again = streams("rloo", graded, kl=0.1)
    assert x.advantage[3] == again.advantage[4] == pytest.approx(paid[0] - paid[1]) == -y.advantage[1]


def test_ppo_whitens_over_tokens_of_which_a_shared_one_counts_once() -> None:
    other = episode(0.0, "a", (1,), source="y")
    for parts in (2, 3):
        # branches that differ by their last token alone
        branches = [episode(float(n), "a", (2, 3), source="x") for n in range(parts)]
        for each in branches:
            each.mask[2] /= parts
        made = streams("ppo", Graded((*branches, other), {}), kl=0.0)
        white = np.concatenate([each.advantage[each.pg > 0] for each in made])
        weights = np.concatenate([each.pg[each.pg > 0] for each in made])
        assert weights.sum() == pytest.approx(parts + 2), "one shared token, each branch's own and the other rollout's"
        assert (weights * white).sum() == pytest.approx(0, abs=1e-5)
        assert (weights * white**2).sum() == pytest.approx(parts + 2 - 1, rel=1e-5)
    values, thirds = np.array([1.0, 3.0, 5.0, 7.0]), np.array([1.0, 1 / 3, 1 / 3, 1 / 3])
    assert whiten(values, weights_N=thirds) == pytest.approx((values - 3) / np.sqrt((4 + 0 + 4 / 3 + 16 / 3) + 1e-8))
    assert whiten(values, weights_N=np.ones(4)).tolist() == whiten(values).tolist()
    assert whiten(values[:1], weights_N=np.ones(1)).tolist() == [0.0]
    assert whiten(values, weights_N=np.ones(4), shift_mean=False).mean() == pytest.approx(4.0)


def test_dapo_punishes_each_branch_for_its_own_length_within_one_member() -> None:
    long = (2, 3, 4, 5, 6, 7, 8, 9)
    both = (episode(1.0, "a", (1,), 12, source="x"), episode(1.0, "a", long, 12, source="x"),
            episode(0.0, "a", (1,), 12, source="y"))  # fmt: skip
    plan = RolloutSettings(max_tokens=8)
    short, cut, other = (float(each.advantage.sum() / each.pg.sum()) for each in
                         streams("dapo", Graded(both, {}), overlong_buffer=4, rollouts=plan))  # fmt: skip
    rewards = np.array([1.0, 0.0, 0.0])  # of 8 tokens in a limit of 8 with a buffer of 4: -1
    deviation = math.sqrt((0.5 * 0.75**2 + 0.5 * 0.25**2 + 0.25**2) / (2 - 1))
    assert [short, cut, other] == pytest.approx(((rewards - 0.25) / (deviation + 1e-4)).tolist())


def test_reinforce_whitens_over_rollouts() -> None:
    made = streams("reinforce", BRANCHED, whiten=True)
    rewards = np.array([1.0, 0.5, 0.0, 5.0])
    x, y, z, w = (rewards - rewards.mean()) / np.sqrt(rewards.var(ddof=1) + 1e-8)
    assert [float(each.advantage[each.pg > 0][0]) for each in made] == pytest.approx([x, y, x, z, z, z, w], rel=1e-5)


def test_importance_weights_are_in_the_advantages_where_the_model_itself_is_trained() -> None:
    from firsthand.train.rollout_settings import RolloutSettings

    corrected = streams("dr_grpo", rollouts=RolloutSettings(correct_to_model=True, importance_cap=0.3))[0]
    assert corrected.behaviour[2] == -2.0
    assert corrected.advantage[2] == pytest.approx(0.5 * 0.3)  # exp(-2 + 1) is above the cap
    free = streams("dr_grpo", rollouts=RolloutSettings(correct_to_model=True))[0]
    assert free.advantage[2] == pytest.approx(0.5 * math.exp(-1), rel=1e-6)


SETTINGS = [
    {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_k": 5, "top_p": 0.5, "min_p": 0.1},
    {"temperature": 2.0, "top_p": 0.9, "min_p": 0.05}, {"temperature": 0.7, "top_k": 4},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_trainers_distribution_after_cuts_is_the_samplers(settings: dict[str, float]) -> None:
    sampling = Sampling(**{"temperature": 1.0, **settings})
    logits = torch.randn(40, 12, generator=torch.Generator().manual_seed(0)) * 2
    policy = sampled_policy(sampling)
    assert policy is not None
    for row in logits:
        ids, found = candidates(row, sampling)
        expected = (found / found.sum()).log()
        targets = Targets(ids, ids * 0, *[expected * 0] * 9)
        assert torch.allclose(policy(row.expand(len(ids), -1), targets).double(), expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-30, 1e-39, 5e-324])
@pytest.mark.parametrize("cuts", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_the_best_token_has_log_prob_0_at_a_tiny_temperature(temperature: float, cuts: dict[str, Any]) -> None:
    logits = tensor([[-3.0, 2.0, 1.5], [2e4, 1e4, -torch.inf]], requires_grad=True)
    policy = sampled_policy(Sampling(temperature=temperature, **cuts))
    assert policy is not None
    found = policy(logits, Targets(tensor([1, 0]), tensor([0, 1]), *[torch.zeros(2)] * 9))
    found.sum().backward()
    assert found.tolist() == [0, 0] and logits.grad is not None and not logits.grad.any()


def test_a_token_outside_the_cut_stays_finite_and_keeps_its_gradient() -> None:
    logits = tensor([[3.0, 2.0, 0.0]], requires_grad=True)
    policy = sampled_policy(Sampling(temperature=1.0, top_k=1))
    assert policy is not None
    found = policy(logits, Targets(tensor([2]), tensor([0]), *[torch.zeros(1)] * 9))
    found.sum().backward()
    assert found.item() == pytest.approx(-math.log1p(math.exp(3.0))) and logits.grad[0, 2] > 0 == logits.grad[0, 1]


def test_the_live_line_shows_the_reward_and_the_gap_between_sampler_and_trainer() -> None:
    metrics = {"loss": 0.0, "reward": 0.25, "answer_tokens": 2.5, "sampler_gap": 3e-6, "grad_norm": 1.0}
    assert "reward 0.250  tokens/answer 2.5  sampler gap 3.0e-06" in line_of(metrics, 1, 2, None)


def test_distributions_that_logits_alone_do_not_give_are_refused() -> None:
    assert sampled_policy(Sampling(temperature=1.0)) is None
    for settings in (
        {"repetition_penalty": 1.2},
        {"logit_bias": ((0, 1.0),)},
        {"min_tokens": 3},
        {"bad_words": ("a",)},
    ):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            sampled_policy(Sampling(temperature=1.0, **settings))
    given: dict[str, Any] = {
        "repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": -0.5, "logit_bias": ((0, 1.0),),
        "grammar": choice(["a"]), "allowed_token_ids": (1,), "bad_words": ("a",), "min_tokens": 1,
    }  # fmt: skip
    for names in (*([name] for name in given), list(given)):
        for heat in (0.0, 0.5, 1.0):
            with pytest.raises(ConfigError) as refused:
                sampled_policy(Sampling(temperature=heat, **{name: given[name] for name in names}))
            assert str(refused.value).startswith(
                f"rollouts are sampled with {', '.join(names)}, which the trainer cannot"
            )
    for other in ({"seed": 3}, {"max_tokens": 9}, {"stop": ("x",)}, {"top_k": 0, "top_p": 1.0, "min_p": 0.0}):
        assert sampled_policy(Sampling(temperature=1.0, **other)) is None, other
    for cold in ({}, {"top_k": 2}, {"top_p": 0.5}):
        with pytest.raises(ConfigError) as nothing:
            sampled_policy(Sampling(**cold))
        assert str(nothing.value) == (
            "rollouts at temperature 0 are all alike, so nothing can be learned: give a temperature above 0"
        )


@pytest.mark.parametrize(
    ("corrects", "importance", "advantages"),
    [
        (False, None, [0, 2, 2, 2]),
        (True, None, [0, 4, 1, 6]),
        (False, [9, 2, 3, 0.5], [0, 4, 6, 1]),
        (True, [9, 2, 3, 0.5], [0, 8, 3, 3]),
    ],
)
@pytest.mark.parametrize("mean", [False, True])
def test_advantages_are_multiplied_by_both_weights(
    corrects: bool, importance: list[float] | None, advantages: list[float], mean: bool
) -> None:
    mask, own, sampled = np.array([0, 1, 1, 0.5]), np.log([1, 0.5, 0.25, 0.5]), np.log([1, 0.25, 0.5, 0.125])
    factors = None if importance is None else np.array(importance)
    one = Episode(np.arange(4, dtype=np.int32), mask, own, sampled, 1.0, "g", "s", importance=factors, adapter="p")
    other = replace(one, mask=np.array([0, 0, 1.0, 0]), importance=None, group="h", source="t", adapter="")
    settings = RolloutSettings(correct_to_model=corrects)
    references = [np.full(4, -1.0), np.full(4, -2.0)]
    given = np.array([7.0, 7, 5, 7])
    first, second = policy_streams([one, other], [2.0, given], settings, mean_per_answer=mean, references=references,
                                   more=[{"label": 1.0, "pair": 0}, {"label": -1.0, "pair": 0}])  # fmt: skip
    weight = mask / 2.5 if mean else mask
    assert first.advantage.tolist() == pytest.approx(advantages)
    assert second.advantage.tolist() == pytest.approx([0, 0, 2.5 if corrects else 5, 0])
    assert first.pg.tolist() == pytest.approx(weight.tolist()) and first.ref_kl.tolist() == pytest.approx(
        weight.tolist()
    )
    assert first.behaviour.tolist() == pytest.approx((own if corrects else sampled).tolist())
    assert second.pg.tolist() == [0, 0, 1, 0] and second.reference.tolist() == [-2.0] * 4
    assert [(each.group, each.source, each.adapter, each.label) for each in (first, second)] == [
        ("g", "s", "p", 1.0), ("h", "t", "", -1.0),
    ]  # fmt: skip
    assert given.tolist() == [7, 7, 5, 7] and (factors is None or factors.tolist() == importance), "left as they were"
    (bare,) = policy_streams([one], [2.0], settings, mean_per_answer=mean)
    assert bare.advantage.tolist() == pytest.approx(advantages) and not np.any(bare.ref_kl)
    assert policy_streams([], [], settings) == []


def test_a_sampler_of_other_arithmetic_is_corrected_by_the_trainers_log_probs() -> None:
    mask, sampled = np.array([0, 1, 1, 0.5]), np.log([1, 0.25, 0.5, 0.125])
    trainer = np.log([0.9, 0.5, 0.25, 0.5])
    one = Episode(np.arange(4, dtype=np.int32), mask, sampled - 1, sampled, 1.0, "g", "s")
    none = replace(one, mask=np.zeros(4))
    graded = Graded((one, none), {"reward": 0.5, "sampler_gap": 9.0})
    found = corrected(graded, [trainer, trainer], RolloutSettings(importance_cap=3.0))
    assert found.metrics == pytest.approx(
        {"reward": 0.5, "sampler_gap": math.log(4), "importance_ratio": 6.5 / 3, "importance_capped": 1 / 3}
    )
    assert graded.metrics == {"reward": 0.5, "sampler_gap": 9.0} and one.importance is None
    first, second = found.episodes
    old = np.array([sampled[0], *trainer[1:]])
    assert first.behaviour.tolist() == pytest.approx(old.tolist()) == first.own.tolist()
    assert first.importance is not None and first.importance.tolist() == pytest.approx([1, 2, 0.5, 3])
    assert second.behaviour.tolist() == sampled.tolist() and second.importance is not None
    assert second.importance.tolist() == [1.0] * 4 and sampled[1] == math.log(0.25), "arrays that were given stay"
    masked = corrected(graded, [trainer, trainer], RolloutSettings(importance_cap=3.0, importance_mode="token_mask"))
    assert masked.episodes[0].importance is not None
    assert masked.episodes[0].importance.tolist() == pytest.approx([1, 2, 0.5, 0])
    equal = replace(one, own=sampled)
    assert importance_metrics([equal, none], 1.0) == {"importance_ratio": 1.0, "importance_capped": 0.0}, "at the cap"
    assert importance_metrics([equal, replace(one, own=trainer)], 1.0) == pytest.approx(
        {"importance_ratio": (3 + 6.5) / 6, "importance_capped": 2 / 6}
    )
