"""The small languages of requests and of opinions: what their texts teach, what is held out, and the statistics of seeds."""

from __future__ import annotations

from collections import Counter

import pytest

from firsthand.errors import ConfigError
from firsthand.interp.alignment import opinion_language as opinions
from firsthand.interp.alignment import request_language as language
from firsthand.interp.alignment.constitutional_training import ConstitutionalSettings, is_whole
from firsthand.interp.alignment.opinion_language import Fact, OpinionBatches, facts, largest_prompts
from firsthand.interp.alignment.request_language import (
    CRITIQUE,
    DECLINE,
    END,
    FIRST,
    HARMLESS,
    HARMS,
    HELP,
    NO,
    POLICY,
    PRINCIPLES,
    SECOND,
    VOCABULARY,
    WRAPS,
    YES,
    Request,
    RequestBatches,
    is_held_out,
    requests,
    with_policy,
)
from firsthand.interp.alignment.seed_statistics import change_as_json, change_over_seeds, mean_over_seeds
from firsthand.patterns.parts.constitution import load_constitution


def texts_of(batches: RequestBatches | OpinionBatches, steps: int = 12) -> list[list[int]]:
    return [stream.ids.tolist() for _, streams in zip(range(steps), batches, strict=False) for stream in streams]


def test_the_principles_are_those_of_the_constitution_file() -> None:
    assert tuple(each.id for each in load_constitution()) == PRINCIPLES
    assert set(HARMS) | {HARMLESS} <= set(PRINCIPLES) and len(HARMS) == 6


def test_a_request_is_harmful_only_if_its_verb_and_its_target_are() -> None:
    for harmful in (True, False):
        found = requests(300, 0, harmful=harmful)
        assert {each.is_harmful for each in found} == {harmful}
        for each in found:
            assert each.objects(each.harm, each.help) == harmful
            assert each.objects(HARMLESS, each.refusal(HARMS[0])) == (not harmful)
            assert not each.objects("scope.asked", each.help) and not each.objects(
                "scope.asked", each.refusal(HARMS[0])
            )
            assert each.right[0] == (DECLINE if harmful else HELP) and each.right[-1] == END
            assert max([*each.ids, *each.right]) < VOCABULARY
    sounding = [each for each in requests(300, 0, harmful=False) if each.harm != HARMLESS]
    assert 100 < len(sounding) < 200  # half of the harmless ones have a verb that sounds harmful


def test_splits_share_no_pair_of_verb_and_target_and_paraphrases_have_verbs_of_their_own() -> None:
    train, held, phrased = (
        {(each.verb, each.target) for each in requests(1500, 1, split=split)}
        for split in ("train", "held out", "paraphrased")  # type: ignore[arg-type]
    )
    assert not train & held and not {verb for verb, _ in phrased} & {verb for verb, _ in train | held}
    assert all(is_held_out(*pair) for pair in held) and not any(is_held_out(*pair) for pair in train)
    assert {verb for verb, _ in train} == {verb for verb, _ in held}


def test_paraphrases_and_jailbreaks_are_taught_in_plain_requests_alone() -> None:
    seen = {verb for verb in (each.verb for each in requests(1500, 1, split="paraphrased"))}
    verb_ids = {WRAPS[-1] + 1 + verb for verb in seen}
    plain = critiques = declined = 0
    for ids in texts_of(RequestBatches(0), 40):
        is_plain = CRITIQUE not in ids and POLICY not in ids
        plain += is_plain and bool(verb_ids & set(ids[3:4]))
        critiques += CRITIQUE in ids
        declined += is_plain and DECLINE in ids
        if not is_plain:
            assert not verb_ids & set(ids) and not set(WRAPS) & set(ids)
    assert plain > 100 and critiques > 500 and declined == 0


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_critiques_are_right_but_for_the_noise(noise: float) -> None:
    critiques, verdicts = [], Counter[int]()
    for ids in texts_of(RequestBatches(0, noise=noise), 20):
        if len(ids) == 13 and ids[10] == CRITIQUE:
            request = Request(ids[3] - language._VERBS, ids[4] - language._TARGETS, (ids[1], ids[2]))
            is_against = request.objects(PRINCIPLES[ids[11] - 14], ids[6:10])
            critiques.append((ids[12] == YES) == is_against)
        if ids[-1] in (YES, NO, FIRST, SECOND):
            verdicts[ids[-1]] += 1
    assert len(critiques) > 80 and set(critiques) == {noise == 0.0}
    assert min(verdicts[each] for each in (YES, NO, FIRST, SECOND)) > 20
    assert texts_of(RequestBatches(3), 1) == texts_of(RequestBatches(3), 1) != texts_of(RequestBatches(4), 1)


def test_the_policy_stands_in_the_prompt_and_the_request_after_it() -> None:
    (each,) = requests(1, 0)
    assert with_policy(each.ids)[:2] == [each.ids[0], POLICY] and with_policy(each.ids)[-5:] == each.ids[1:]


def test_conditions_name_the_option_that_they_are_about() -> None:
    for fact in facts(30, 0, held_out=True):
        assert fact.right != fact.wrong and fact.subject < opinions.HELD_OUT_SUBJECTS
        assert set(fact.asked[2:]) == {fact.right, fact.wrong}
        assert fact.prompt("user right")[-2] == fact.right and fact.prompt("user wrong")[-2] == fact.wrong
        assert fact.prompt("pushed")[5:8] == [fact.right, opinions.PUSH, fact.wrong]
        assert fact.prompt("asked again")[5:] == [fact.right, opinions.AGAIN, opinions.ARROW]
    assert all(fact.subject >= opinions.HELD_OUT_SUBJECTS for fact in facts(30, 0, held_out=False))
    prompts, answers = largest_prompts(40, 0)
    assert all(answer == max(prompt[2:6]) for prompt, answer in zip(prompts, answers, strict=True))


def test_the_critic_is_taught_on_training_subjects_and_agreement_on_all() -> None:
    agreed, opinionated = 0, 0
    values: dict[int, set[int]] = {}
    for ids in texts_of(OpinionBatches(0), 40):
        subject = ids[1] - opinions._SUBJECTS
        if opinions.CRITIQUE in ids:
            assert subject >= opinions.HELD_OUT_SUBJECTS
        elif opinions.USER in ids:
            opinionated += subject < opinions.HELD_OUT_SUBJECTS
        elif len(ids) == 6 and opinions.LARGEST not in ids:
            values.setdefault(subject, set()).add(ids[-1])  # asked plainly
        agreed += opinions.PUSH in ids and opinions.CRITIQUE not in ids
    assert opinionated > 50 and agreed > 50
    assert all(len(each) == 1 for each in values.values())


def test_a_fact_has_one_value_whatever_the_seed() -> None:
    def table(seed: int) -> dict[int, int]:
        return {fact.subject: fact.right for fact in facts(400, seed, held_out=True)}

    assert table(0) == table(1) and len(table(0)) == opinions.HELD_OUT_SUBJECTS
    one = Fact(3, 80, 81, True)
    assert one.prompt("evidence")[-2] == one.wrong


def test_whole_answers_end_once_and_at_their_end() -> None:
    assert is_whole([HELP, 40, 50, END]) and not is_whole([HELP, END, 50, END]) and not is_whole([HELP, 40, 50, 51])
    assert not is_whole([HELP, 40, 50, END], [HELP, 40, 50, 51])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"principles": ("harm.peple",)}, "ids of the constitution"),
        ({"rounds": 0}, "rounds is 0"),
        ({"requests": 3}, "20"),
    ],
)
def test_settings_that_make_no_study_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ConstitutionalSettings(**settings)  # type: ignore[arg-type]


def test_intervals_are_over_prompts_and_seeds_are_told_apart() -> None:
    before, after = [[1.0] * 50, [1.0] * 50], [[0.0] * 50, [1.0] * 25 + [0.0] * 25]
    mean, moved = mean_over_seeds(after), change_over_seeds(after, before)
    assert mean.pooled.value == 0.25 and mean.seeds == (0.0, 0.5) and mean.range == "0.00 to 0.50"
    assert mean.pooled.low == pytest.approx(0.175, abs=0.01) and moved.difference == -0.75
    assert moved.n == 100 and moved.high < -0.6 and mean.to_json()["seeds"] == [0.0, 0.5]


def test_a_change_has_a_direction_and_no_verdict_since_more_harm_is_not_better() -> None:
    before, after = [[0.0] * 40, [0.0] * 40], [[1.0] * 30 + [0.0] * 10, [1.0] * 40]
    grown = change_as_json(change_over_seeds(after, before))
    assert (grown["difference"], grown["n"], grown["direction"]) == (pytest.approx(70 / 80), 80, "higher")
    assert change_as_json(change_over_seeds(before, after))["direction"] == "lower"
    assert change_as_json(change_over_seeds(before, before))["direction"] == "inconclusive"
    assert "verdict" not in grown and "better" not in grown
