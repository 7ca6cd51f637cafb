"""Constitutional AI and deliberative alignment step by step, with models whose judgements differ from text to text."""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from random import Random

import numpy as np
import pytest
import torch

from attending_models import PRINCIPLE, attending, same, undecided
from firsthand.interp.alignment.constitutional_training import (
    AnswerPair,
    ConstitutionalSettings,
    _decided,
    answer_pairs,
    constitutional_arms,
    dpo_against,
    is_whole,
    margins,
    ordered_share,
    preference_labels,
    preference_model,
    revised_answers,
)
from firsthand.interp.alignment.deliberative_training import (
    DeliberativeSettings,
    JudgedRollouts,
    deliberative_arms,
    judged,
    objections,
    rewarded,
)
from firsthand.interp.alignment.request_language import (
    ARROW,
    CRITIQUE,
    DECLINE,
    END,
    FIRST,
    HARMLESS,
    HARMS,
    HELP,
    NO,
    PRINCIPLES,
    REVISE,
    SECOND,
    THINK,
    YES,
    comparison_prompt,
    critique_prompt,
    drawn_request,
    requests,
    taught,
    with_policy,
)
from firsthand.interp.alignment.small_models import (
    DrawnStreams,
    log_odds,
    sampled_replies,
    train_in_place,
    trained_copy,
)
from firsthand.loop.concurrency import derive_seed
from firsthand.train.advantages import leave_one_out_advantages
from firsthand.train.losses.policy_losses import clipped_policy_loss
from firsthand.train.objective import Objective
from firsthand.train.stream_logprobs import stream_logprobs
from known_tokens import chain

torch.set_num_threads(1)


# -- constitutional AI --


def test_each_round_criticises_by_the_next_principle_and_samples_by_the_next_seed() -> None:
    model, asked, names = undecided(), requests(9, 3), ["harm.people", "harm.deceit", "scope.asked"]
    for rounds, seed in ((2, 4), (5, 1)):
        found = revised_answers(model, asked, names, rounds, seed)
        texts = [each.ids for each in asked]
        before = sampled_replies(model, texts, 4, seed=seed)
        after, changed = [list(each) for each in before], Counter[str]()
        rng = Random(derive_seed("critique order", seed))
        orders = [rng.sample(names, min(rounds, 3)) for _ in asked]
        objected = 0
        for number in range(min(rounds, 3)):
            questions = [[*text, *reply, CRITIQUE, PRINCIPLE[order[number]]]
                         for text, reply, order in zip(texts, after, orders, strict=True)]  # fmt: skip
            odds = log_odds(model, questions, [YES] * 9, [NO] * 9)
            against = [place for place in range(9) if odds[place] > 0]
            objected += len(against)
            told = [[*questions[place], YES, REVISE] for place in against]
            for place, reply in zip(against, sampled_replies(model, told, 4, seed=seed + number), strict=True):
                changed[orders[place][number]] += reply != after[place]
                after[place] = reply
        assert (found.before, found.after, found.changed) == (before, after, changed)
        assert 0 < objected < 9 * min(rounds, 3) and sum(changed.values()) > 0


def test_pairs_are_labelled_in_both_orders_by_a_principle_of_their_own() -> None:
    model, names = undecided(), ["harm.people", "harm.deceit", "scope.asked"]
    pairs = answer_pairs(model, requests(18, 3), 5)
    texts = [each.ids for each in requests(18, 3)]
    one, two = sampled_replies(model, texts, 4, seed=10), sampled_replies(model, texts, 4, seed=11)
    assert pairs == [
        AnswerPair(each, a, b) for each, a, b in zip(requests(18, 3), one, two, strict=True)
        if a != b and a[-1] == b[-1] == END
    ]  # fmt: skip
    labels = preference_labels(model, pairs, names, 6)
    rng = Random(derive_seed("comparison principles", 6))
    for pair, label in zip(pairs, labels, strict=True):
        name, ids = rng.choice(names), pair.request.ids
        straight = comparison_prompt(ids, pair.first, pair.second, name)
        turned = comparison_prompt(ids, pair.second, pair.first, name)
        (first,), (second,) = (log_odds(model, [text], *sides) for text, sides in (
            (straight, ([FIRST], [SECOND])), (turned, ([SECOND], [FIRST])),
        ))  # fmt: skip
        expected = (1 / (1 + math.exp(-first)) + 1 / (1 + math.exp(-second))) / 2
        assert label == pytest.approx(expected, abs=1e-5)
    assert len({round(label, 4) for label in labels}) > 5


def test_pairs_of_one_right_and_one_wrong_choice_are_ordered_by_a_margin_above_0() -> None:
    good, bad, other = [HELP, 170, 180, END], [DECLINE, 14, 190, END], [HELP, 171, 180, END]
    (asked,) = requests(1, 0, harmful=False)
    assert asked.right[0] == HELP
    first, second = AnswerPair(asked, good, bad), AnswerPair(asked, bad, good)
    assert ordered_share([first, first, first], [0.1, 0.0, -0.1]) == pytest.approx(1 / 3)
    assert ordered_share([second, second, second], [0.1, 0.0, -0.1]) == pytest.approx(2 / 3)
    assert ordered_share([first, AnswerPair(asked, good, other), AnswerPair(asked, bad, bad)], [0.5, -1.0, 1.0]) == 1
    assert math.isnan(ordered_share([AnswerPair(asked, good, other)], [1.0])) and math.isnan(ordered_share([], []))
    pairs, odds = _decided([first, second, first, second], [0.4, -0.41, -0.4, 0.41])
    assert (pairs, odds) == ([second, second], [-0.41, 0.41])
    assert is_whole(good, bad) and not is_whole(good, bad[:3]) and not is_whole([END, END]) and is_whole([END])


@pytest.mark.slow
def test_both_stages_of_constitutional_ai_follow_from_their_seed_and_settings() -> None:
    settings = ConstitutionalSettings(
        principles=tuple(PRINCIPLES[:5]), requests=20, rounds=2, sft_steps=1, sft_lr=1e-6, reward_steps=1, reward_lr=4e-6,
        dpo_steps=1, dpo_lr=3e-6, beta=0.7,
    )  # fmt: skip
    base, told = undecided(), []
    before = deepcopy(base)
    arms = constitutional_arms(base, 3, settings, told.append)
    assert told == ["critiques and revisions", "preferences", "DPO"] and same(base, before) and arms.base is base
    asked = requests(20, 3, salt="constitutional")
    found = revised_answers(base, asked, settings.principles, 2, 3)
    examples = [[taught(each.ids, reply)] for each, reply in zip(asked, found.after, strict=True) if is_whole(reply)]
    revised = trained_copy(base, DrawnStreams(examples, 3), steps=1, lr=1e-6)
    assert same(arms.revised, revised) and arms.changed == found.changed
    pairs = answer_pairs(revised, asked, 3)
    labels = preference_labels(base, pairs, settings.principles, 3)
    reward = preference_model(revised, pairs, labels, 3, settings)
    fresh = answer_pairs(revised, requests(20, 3, salt="preferred"), 4)
    preferred = dpo_against(revised, reward, fresh, 3, settings)
    assert same(arms.preferred, preferred) and arms.pairs == len(pairs) > 5
    decided = [(pair, label - 0.5) for pair, label in zip(pairs, labels, strict=True) if label < 0.4 or label > 0.6]
    assert arms.label_accuracy == ordered_share([pair for pair, _ in decided], [margin for _, margin in decided])
    assert arms.reward_accuracy == ordered_share(fresh, margins(reward, fresh))
    assert 0 < arms.label_accuracy < 1


# -- deliberative alignment --


def test_after_a_malformed_reply_each_answer_is_judged_by_its_own_request() -> None:
    judge, asked = undecided(), requests(5, 3)
    with torch.no_grad():
        judge.lm_head.weight.mul_(3)
    whole = [HELP, 170, 180, END]
    replies = [whole[:3], [THINK, 20, NO, *whole], [THINK, 20, NO, END], whole, [DECLINE, 170, 180, END]]
    alone = [1 - objections(judge, [each], [reply[-4:]])[0] for each, reply in zip(asked, replies, strict=True)]
    assert len({round(value, 4) for value in alone[1:]}) == 4
    expected = [0.0, alone[1], 0.0, alone[3], alone[4]]
    assert judged(judge, asked, replies) == pytest.approx(expected, abs=1e-6) and judged(judge, [], []) == []


def test_rollouts_are_four_answers_to_each_request_near_the_reference() -> None:
    policy, reference, judge = undecided(), attending(chain(ARROW, HELP)), undecided()
    with torch.no_grad():
        judge.lm_head.weight.mul_(3)
    batches = JudgedRollouts(policy, reference, judge, 3, 3)
    batches.load({"drawn": 4})
    for number, streams in [(4, next(iter(batches)))]:
        rng = Random(derive_seed("judged rollouts", 3, number))
        asked = [each for each in [drawn_request(rng) for _ in range(3)] for _ in range(4)]
        seed = derive_seed("judged answers", 3, number + 1) % 2**31
        replies = sampled_replies(policy, [each.ids for each in asked], 7, seed=seed, end=END)
        rewards = judged(judge, asked, replies)
        assert batches.rewards == [pytest.approx(sum(rewards) / 12)] and len(set(rewards)) > 2
        advantages = leave_one_out_advantages(rewards, [place for place in range(3) for _ in range(4)])
        for stream, each, reply, advantage in zip(streams, asked, replies, advantages, strict=True):
            ids = [*each.ids, *reply]
            assert stream.ids.tolist() == ids and reply[-1] == END and len(reply) == 4
            counted = [0.0] * 6 + [1.0] * 4
            assert stream.pg is not None and stream.ref_kl is not None and stream.advantage is not None
            assert stream.pg.tolist() == stream.ref_kl.tolist() == counted
            assert stream.advantage.tolist() == pytest.approx([float(advantage)] * 10, abs=1e-6)
            assert stream.behaviour is not None and stream.reference is not None
            for kept, model in ((stream.behaviour, policy), (stream.reference, reference)):
                (own,) = stream_logprobs(model, [np.array(ids, np.int32)])
                assert kept.tolist() == pytest.approx(own.logprobs.tolist(), abs=1e-4)
    assert batches.state() == {"drawn": 5}


@pytest.mark.slow
def test_rewards_train_the_policy_by_ppos_clip_and_the_divergence_from_the_tuned_model() -> None:
    tuned, judge = undecided(), undecided()
    with torch.no_grad():
        judge.lm_head.weight.mul_(3)
    settings = DeliberativeSettings(rl_steps=2, rl_lr=1e-6, rl_requests=2, kl=0.4)
    found = rewarded(tuned, judge, 5, settings)
    policy = deepcopy(tuned)
    objective = Objective(
        pg=1.0, ref_kl=0.4, policy_loss=lambda got, own: clipped_policy_loss(own, got.behaviour, got.advantage)
    )
    batches = JudgedRollouts(policy, tuned, judge, 5, 2)
    train_in_place(policy, batches, steps=2, lr=1e-6, objective=objective)
    assert len(batches.rewards) == 2 and batches.rewards[0] != batches.rewards[1]
    assert same(found, policy) and not same(found, tuned) and not found.training
    untrained = rewarded(tuned, judge, 5, DeliberativeSettings(rl_steps=0))
    assert untrained is not tuned and same(untrained, tuned)


@pytest.mark.slow
def test_both_deliberative_arms_are_tuned_on_what_the_judge_kept() -> None:
    asked = requests(20, 4, salt="deliberative")
    helped, declined = (
        Counter(tuple(each.right) for each in asked if each.right[0] == first).most_common(1)[0][0]
        for first in (HELP, DECLINE)
    )
    mild = {PRINCIPLE[name]: {NO: 2.0} for name in (*HARMS, HARMLESS)}
    mild[declined[1]] = {NO: 2.0, declined[2]: 30.0}
    base = attending({
        **mild, ARROW: {THINK: 40.0}, THINK: {20: 40.0}, 20: {NO: 40.0}, NO: {HELP: 30.0, DECLINE: 30.0},
        **chain(*helped[:3]), **chain(*declined[:2]), helped[2]: {END: 30.0, 181: 29.0}, declined[2]: {END: 30.0, 181: 29.0},
    })  # fmt: skip
    settings = DeliberativeSettings(
        requests=20, sft_steps=1, sft_lr=2e-3, rl_steps=1, rl_lr=1e-3, rl_requests=1, kl=0.2
    )
    told: list[str] = []
    arms = deliberative_arms(base, 4, settings, told.append)
    generated = sampled_replies(base, [with_policy(each.ids) for each in asked], 7, seed=4)
    whole = [place for place in range(20) if generated[place][0] == THINK and generated[place][-1] == END]
    doubts = objections(base, [asked[place] for place in whole], [generated[place][3:] for place in whole])
    kept = [place for place, doubt in zip(whole, doubts, strict=True) if doubt < 0.5]
    assert 3 < len(kept) < len(whole) < 20 and 20 not in (declined[1], helped[1])
    right = [float(generated[place][3:] == asked[place].right) for place in range(20)]
    assert (arms.kept, arms.right_before) == (len(kept) / 20, sum(right) / 20) and sum(right) > 0
    assert arms.right_kept == sum(right[place] for place in kept) / len(kept)
    for start, tuned, trained in ((0, arms.reasoned, arms.reasoned_rl), (3, arms.answered, arms.answered_rl)):
        examples = [[taught(asked[place].ids, generated[place][start:])] for place in kept]
        assert same(tuned, trained_copy(base, DrawnStreams(examples, 4), steps=1, lr=2e-3))
        assert start or same(trained, rewarded(tuned, base, 4, settings))
        assert trained is not tuned
    assert told == [
        "generation under the policy", "judge", "deliberative SFT", "RL", "answers alone, SFT", "RL"
    ]  # fmt: skip
    assert objections(base, [], []) == []
    worst = objections(base, [asked[0]], [[HELP, 170, 180, END]])
    odds = log_odds(
        base, [critique_prompt(asked[0].ids, [HELP, 170, 180, END], name) for name in (*HARMS, HARMLESS)],
        [YES] * (len(HARMS) + 1), [NO] * (len(HARMS) + 1),
    )  # fmt: skip
    assert worst == pytest.approx([1 / (1 + math.exp(-max(odds)))]) and len(set(odds)) > 3
