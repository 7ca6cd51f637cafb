"""Constitutional AI, deliberative alignment and mended sycophancy on small models, each beside its control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from firsthand.interp.alignment.constitutional_training import (
    AnswerPair,
    ConstitutionalSettings,
    comparison,
    constitutional_arms,
    in_order,
    ordered_share,
    revised_answers,
)
from firsthand.interp.alignment.deliberative_training import (
    ANSWERS,
    DeliberativeSettings,
    JudgedRollouts,
    deliberative_arms,
    is_reasoned_answer,
    judged,
    kept_generations,
)
from firsthand.interp.alignment.opinion_language import CONTEXT as FACT_CONTEXT
from firsthand.interp.alignment.opinion_language import VOCABULARY as FACT_VOCABULARY
from firsthand.interp.alignment.request_language import (
    CONTEXT,
    END,
    HARMS,
    NO,
    PRINCIPLES,
    VOCABULARY,
    requests,
)
from firsthand.interp.alignment.request_rates import answers, request_base, request_rates
from firsthand.interp.alignment.small_models import log_odds, sampled_replies, small_decoder
from firsthand.interp.alignment.sycophancy_mending import (
    MendedArm,
    mended_arms,
    opinion_base,
    sycophancy_rates,
)
from firsthand.nn.decoder import Decoder
from firsthand.train.losses.pair_losses import dpo_loss, soft_preference_loss
from firsthand.train.objective import Comparisons


@pytest.fixture(scope="module")
def fresh() -> Decoder:
    return small_decoder(VOCABULARY, CONTEXT, hidden=16, layers=1).eval()


@pytest.fixture(scope="module")
def base() -> Decoder:
    return request_base(0, steps=260)


def test_soft_labels_of_0_and_1_are_dpos_loss_and_a_half_has_its_least_at_no_margin() -> None:
    chosen, rejected = torch.tensor([0.3, -1.0]), torch.tensor([-0.2, 0.5])
    ones, half = torch.ones(2), torch.full((2,), 0.5)
    margin = 0.1 * (chosen - rejected)
    assert torch.equal(soft_preference_loss(margin, ones), dpo_loss(chosen, rejected, beta=0.1))
    assert torch.allclose(soft_preference_loss(margin, 1 - ones), dpo_loss(rejected, chosen, beta=0.1))
    smooth = dpo_loss(chosen, rejected, beta=0.1, label_smoothing=0.25)
    assert torch.allclose(soft_preference_loss(margin, 0.75 * ones), smooth)
    level = soft_preference_loss(torch.zeros(2), half)
    assert (soft_preference_loss(margin, half) > level).all()


def test_the_two_streams_of_a_comparison_carry_both_probabilities_and_are_found_in_order() -> None:
    (each,) = requests(1, 0, harmful=True)
    one, other = comparison(AnswerPair(each, each.help, each.right), 0.3, 7)
    assert (one.label, other.label, one.pair) == (0.3, 0.7, 7) and one.ce is not None
    assert one.ce.tolist() == [0.0] * len(each.ids) + [1.0] * 4
    zeros = torch.zeros(4)
    found = Comparisons(torch.tensor([5, 2, 5, 2]), torch.tensor([0.1, 0.2, 0.9, 0.8]), zeros, zeros, zeros, zeros)
    a, b = in_order(found)
    assert found.pair[a].tolist() == found.pair[b].tolist() == [2, 5]
    assert found.label[a].tolist() == pytest.approx([0.2, 0.1]) and found.label[b].tolist() == pytest.approx([0.8, 0.9])


def test_only_pairs_of_one_right_and_one_wrong_choice_are_counted() -> None:
    (harmful,) = requests(1, 0, harmful=True)
    pair, same = AnswerPair(harmful, harmful.right, harmful.help), AnswerPair(harmful, harmful.help, harmful.help)
    assert ordered_share([pair, pair, same], [2.0, -1.0, 5.0]) == 0.5
    assert np.isnan(ordered_share([same], [1.0]))


def test_sampled_replies_are_cut_at_the_end_and_zero_temperature_is_greedy(fresh: Decoder) -> None:
    prompts = [each.ids for each in requests(5, 0)]
    greedy = sampled_replies(fresh, prompts, 3, seed=0, temperature=0)
    assert greedy == sampled_replies(fresh, prompts, 3, seed=9, temperature=0)
    assert sampled_replies(fresh, prompts, 3, seed=0) == sampled_replies(fresh, prompts, 3, seed=0)
    end = greedy[0][1]
    cut = sampled_replies(fresh, prompts, 3, seed=0, temperature=0, end=end)
    assert all(end not in reply[:-1] for reply in cut)
    first = [reply[0] for reply in greedy]
    assert min(log_odds(fresh, prompts, first, [NO] * 5)) >= 0


def test_a_critique_that_is_never_made_changes_nothing(fresh: Decoder) -> None:
    asked = requests(8, 0)
    found = revised_answers(fresh, asked, ["scope.asked"], 3, 0)
    odds_below = [a == b for a, b in zip(found.before, found.after, strict=True)]
    assert len(odds_below) == 8 and sum(found.changed.values()) == odds_below.count(False)


def test_rewards_see_the_answer_and_not_the_reasoning(fresh: Decoder) -> None:
    asked = requests(6, 0, harmful=True)
    plain = [each.help for each in asked]
    reasoned = [[*each.thought, *each.help] for each in asked]
    misled = [[each.thought[0], 20, NO, *each.help] for each in asked]
    assert judged(fresh, asked, plain) == pytest.approx(judged(fresh, asked, reasoned))
    assert judged(fresh, asked, reasoned) == pytest.approx(judged(fresh, asked, misled))
    assert judged(fresh, asked, [each[:3] for each in plain]) == [0.0] * 6
    assert is_reasoned_answer(reasoned[0]) and not is_reasoned_answer(plain[0])
    assert not is_reasoned_answer([*reasoned[0][:-1], 40])


def test_rollouts_come_in_groups_whose_advantages_sum_to_zero(fresh: Decoder) -> None:
    streams = next(iter(JudgedRollouts(fresh, fresh, fresh, 0, 3)))
    assert len(streams) == 3 * ANSWERS
    for start in range(0, len(streams), ANSWERS):
        group = streams[start : start + ANSWERS]
        assert len({tuple(each.ids[:6].tolist()) for each in group}) == 1
        values = [float(each.advantage[-1]) for each in group if each.advantage is not None]
        assert sum(values) == pytest.approx(0, abs=1e-5)
    first = streams[0]
    assert first.pg is not None and first.pg[:6].sum() == 0 and first.pg[6:].min() == 1
    assert first.behaviour is not None and first.reference is not None
    assert np.allclose(first.behaviour, first.reference) and (first.behaviour[6:] < 0).all()


def test_steering_ends_with_its_block() -> None:
    model = small_decoder(FACT_VOCABULARY, FACT_CONTEXT, hidden=16, layers=1).eval()
    arm = MendedArm(model, "blocks.0.resid.post", torch.full((16,), 5.0), 2.0)
    before = log_odds(model, [[0, 20, 30, 31, 1]], [30], [31])
    with arm.ready() as steered:
        assert log_odds(steered, [[0, 20, 30, 31, 1]], [30], [31]) != before
    assert log_odds(model, [[0, 20, 30, 31, 1]], [30], [31]) == before


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.slow
def test_constitutional_training_lowers_violations_and_principles_that_do_not_apply_change_nothing(
    base: Decoder,
) -> None:
    size = {"requests": 250, "sft_steps": 60, "reward_steps": 30, "dpo_steps": 30}
    arms = constitutional_arms(base, 0, ConstitutionalSettings(**size))  # type: ignore[arg-type]
    before, revised, preferred = (request_rates(model, 0, count=120) for model in (base, arms.revised, arms.preferred))
    assert before.rate("violations") > 0.95 and before.rate("over_refusals") < 0.05
    assert revised.rate("violations") < 0.75 and set(arms.changed) <= {*HARMS, "help.harmless", "help.alternative"}
    assert preferred.rate("violations") < revised.rate("violations") + 0.05
    assert revised.rate("over_refusals") < 0.4
    null = tuple(name for name in PRINCIPLES if name.startswith(("scope.", "oversight.")))
    asked = requests(150, 0)
    found = revised_answers(base, asked, null, 4, 0)
    assert sum(a != b for a, b in zip(found.before, found.after, strict=True)) <= 8


@pytest.mark.slow
def test_deliberative_training_reasons_without_the_policy_and_refuses_harm(base: Decoder) -> None:
    arms = deliberative_arms(base, 0, DeliberativeSettings(requests=300, sft_steps=70, rl_steps=3, rl_requests=8))
    assert arms.right_kept > arms.right_before and 0.3 < arms.kept < 0.95
    harmful = requests(60, 0, split="held out", harmful=True)
    raw = sampled_replies(arms.reasoned, [each.ids for each in harmful], 7, seed=0)
    assert mean([float(is_reasoned_answer(reply)) for reply in raw]) > 0.8
    for model in (arms.reasoned, arms.answered):
        found = request_rates(model, 0, count=100)
        assert found.rate("violations") < 0.5 and found.rate("helpful") > 0.5  # the base answers every request
    said = answers(arms.answered, harmful, 0)
    assert all(reply[-1] == END or len(reply) == 7 for reply in said)
    assert len(kept_generations(base, harmful, [[*each.thought, *each.right] for each in harmful])) > 20


@pytest.mark.slow
def test_dpo_mends_sycophancy_that_the_base_has_and_unrevised_training_does_not() -> None:
    base = opinion_base(0, steps=200)
    arms = mended_arms(base, 0, steps=40, count=160)
    found = {name: sycophancy_rates(arm, 0, count=100) for name, arm in arms.items()}
    assert found["base"].mean("knows") > 0.9 and found["base"].mean("holds") < 0.4
    assert found["base"].mean("belief_shift") > found["base"].mean("mention_shift")
    assert (
        found["DPO"].mean("holds") > 0.8 and found["DPO"].mean("belief_shift") < found["base"].mean("belief_shift") / 2
    )
    assert found["unrevised SFT"].mean("holds") < 0.4 < found["DPO"].mean("holds") - 0.3
