"""Figures and sentences of the tests of contamination, worked out by hand from models whose log-probs are known."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from firsthand.contamination import canary_rank, completion_overlap, option_order, order_test
from firsthand.contamination.canary_rank import canary_evidence, is_regular
from firsthand.contamination.completion_overlap import completion_evidence, halves, rouge_l_recall
from firsthand.contamination.contamination_tests import TESTS, contamination
from firsthand.contamination.leak_evidence import Evidence, _p, paired_p_value, report
from firsthand.contamination.ngram_overlap import CorpusIndex
from firsthand.contamination.option_order import natural_order, option_evidence
from firsthand.contamination.order_test import _shards, order_evidence, own_order
from firsthand.contamination.text_twins import TwinWords, task_text, twin_text, twins_of
from firsthand.contamination.token_evidence import min_k, min_k_evidence, standardised, text_logprobs
from firsthand.loop.concurrency import derive_seed
from firsthand.message import assistant, user
from firsthand.model import Completion, Likelihood, ModelFacts, Sampling, Scored, TokenRating, Usage
from firsthand.task import Task
from same_values import same
from test_contamination import Reciter


class Known(Reciter):
    """A model whose log-prob of a text, and of each token after the first, is a function; it keeps what it was asked."""

    def __init__(self, value: Callable[[str], float], answer: str = "", context: int = 4096):
        super().__init__()
        self.name = "m"
        self.value, self.answer, self.context = value, answer, context
        self.asked: list[Any] = []

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Scored:
        self.asked.append((prompt, list(continuations)))
        return Scored(tuple(Likelihood(text, self.value(text), 1, False) for text in continuations), Usage())

    async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.asked.append((prompt, sampling))
        return [Completion(assistant(self.answer), "stop", Usage())]

    async def load(self) -> ModelFacts:
        return ModelFacts(self.context, 256, None, False)

    async def rate(self, ids: Sequence[int], top: int = 0, **_: Any) -> list[TokenRating]:
        text = "".join(map(chr, ids))
        return [TokenRating(token, self.value(text)) for token in ids[1:]]


def bare(value: Callable[[str], float]) -> Any:
    """A model that scores and completes, without tokens."""
    known = Known(value, "three four five")
    return type("Bare", (), {"name": "b", "score": known.score, "complete": known.complete, "asked": known.asked})()


# -- models --


def test_the_rank_of_a_canary_counts_ties_against_it():
    strings: list[str] = []

    def value(text: str) -> float:
        strings.append(text)
        return {1: -2.0, 2: -3.0, 3: -2.0, 4: -1.0}.get(len(strings), -9.0)

    model = Known(value)
    canary = "BIG 3fb72Ac90 Gz"
    found = asyncio.run(canary_evidence(model, canary, before="see ", others=4, seed=7))
    assert found == Evidence(
        "canary", canary_rank.ASKS, 0.5, 0.6, 5, "rank 3 of 5", limits=canary_rank.LIMITS
    )  # fmt: skip
    ((prompt, asked),) = model.asked
    assert prompt == "see BIG" and asked[0] == " 3fb72Ac90 Gz" and len(set(asked)) == 5
    for text in asked[1:]:  # the words are those of the canary
        assert (text[0], text[10:]) == (" ", " Gz") and set(text[1:10]) <= set("0123456789abcdef")
    again = Known(lambda text: 0.0)
    asyncio.run(canary_evidence(again, "3fb72Ac90", others=4, seed=8))
    assert again.asked[0][0] == "\n" and again.asked[0][1][0] == "3fb72Ac90"
    assert again.asked[0][1][1] != asked[1].split()[0]
    asyncio.run(canary_evidence(again, canary))
    assert len(again.asked[1][1]) == 200


@pytest.mark.parametrize(
    "canary",
    ["Zorro " * 20, "defaced decade bad face feed", "DEFACEDFACADE", "of 2023-10-05", "20231005", "1234567890123456",
     "3f9a1b2",     "x26b5c67b", "26b5c67bx", "26b5c67b_", ""],
)  # fmt: skip
def test_words_and_numbers_are_no_identifier_of_a_canary(canary: str):
    model = Known(lambda text: 0.0)
    if canary.endswith("_"):  # a sign that is no letter ends it
        assert asyncio.run(canary_evidence(model, canary, others=1)).n == 2
        return
    told = (
        f"not run: {canary[:40]!r} has no identifier to vary: give the canary's GUID, or one of 8 or more hexadecimal "
        "digits"
    )
    none = asyncio.run(canary_evidence(model, canary))
    assert same(none, Evidence("canary", canary_rank.ASKS, detail=told, limits=canary_rank.LIMITS)) and not model.asked


def test_of_a_canary_sentence_its_guid_alone_is_drawn_anew():
    words = "BENCHMARK DATA 8fe01abc SHOULD NEVER APPEAR IN TRAINING CORPORA. canary GUID"
    for guid in ("26b5c67b-86ad-45d3-8fa5-3a9dcd1d0a5a", "26B5C67B-86AD-45D3-8FA5-3A9DCD1D0A5A"):
        model = Known(lambda text: 0.0)
        asyncio.run(canary_evidence(model, f"{words} {guid} ends.", others=60))
        ((before, (own, *others)),) = model.asked
        assert before == words and own == f" {guid} ends."
        digits = set("0123456789ABCDEF" if guid.isupper() else "0123456789abcdef")
        for text in others:
            assert text[0] == " " and text.endswith(" ends.") and [at for at, char in enumerate(text) if char == "-"] == [
                9, 14, 19, 24,
            ]  # fmt: skip
            assert (text[15], text[20]) == ("4", "8"), "the version of a GUID is no chance"
        drawn = [{text[at] for text in others} for at in range(1, 37) if at not in (9, 14, 15, 19, 20, 24)]
        assert all(each <= digits and len(each) > 9 for each in drawn)
    plain = Known(lambda text: 0.0)
    asyncio.run(canary_evidence(plain, "3fb72ac9d04e816b5ca17e29f6038dbb", others=60))
    assert all(len({text[at] for text in plain.asked[0][1]}) > 9 for at in range(32)), "such a run has no version"
    both = Known(lambda text: 0.0)
    asyncio.run(canary_evidence(both, "7c1e94fa0 and 9d83e06b", others=1))
    ((before, (own, other)),) = both.asked
    assert (before, own) == ("\n", "7c1e94fa0 and 9d83e06b") and other[9:14] == " and " and len(other) == len(own)
    assert other[:9] != own[:9] and other[14:] != own[14:]


@pytest.mark.parametrize(
    "identifier",
    ["12345678-90ab-cdef-1234-567890abcdef", "aaaaaaac-86ad-45d3-8fa5-3a9dcd1d0a5a", "1a2b3c4d", "DEADBEEFDEADBEEF00",
     "9876543210abcdee", "00000000-0000-0000-0000-000000000000", "c0ffee12c0ffee12", "3fb72ac9" * 4],
)  # fmt: skip
def test_a_canary_that_no_draw_would_give_is_not_tested(identifier: str) -> None:
    model = Known(lambda text: 0.0)
    found = asyncio.run(canary_evidence(model, f"b7 3fb72Ac90x {identifier} z", others=3))
    told = f"not run: {identifier!r} repeats or counts as no random identifier does: any model finds it more "
    told += "probable than those"
    assert same(found, Evidence("canary", canary_rank.ASKS, detail=told, limits=canary_rank.LIMITS)) and not model.asked


def test_random_identifiers_are_tested_but_for_fewer_than_one_in_ten_thousand() -> None:
    assert is_regular("aaaaaaa7c3e9") and not is_regular("aaaaaa07c3e9"), "chances of 9e-6 and 1.5e-4"
    draw = Random(3)
    for size in (8, 12, 32):
        drawn = ["".join(draw.choices("0123456789abcdef", k=size)) for _ in range(2000)]
        assert sum(map(is_regular, drawn)) <= 2, size
    # of 8 digits 22 pairs at distances up to 4, each with three steps: 66 places; a run of 5 is rarer than 1e-4
    assert (
        is_regular("000000a7") and not is_regular("00000ba7") and is_regular("7a543210") and not is_regular("7ab43210")
    )


def test_log_probs_that_are_no_finite_numbers_are_no_evidence():
    tasks = [Task(f"t{i}", f"Ada has {i + 10} pens and {i * 7 + 100} more", ("b", "c", "a", "d")) for i in range(32)]
    twins = twins_of(tasks, 0)
    told = "not run: the model gives log-probs that are no finite numbers: are its weights, or its endpoint, broken?"
    for value in (float("nan"), float("-inf"), float("inf")):
        broken = Known(lambda text, value=value: value if text.startswith("Ada has 13") else -1.0 - len(text) % 7)

        async def one_of_many(ids: Sequence[int], top: int = 0, value: float = value, **_: Any) -> list[TokenRating]:
            return [TokenRating(token, value if at == 3 else -1.0) for at, token in enumerate(ids[1:])]

        partly = Known(lambda text: -1.0)
        partly.rate = one_of_many  # type: ignore[method-assign, assignment]
        options = Known(lambda text, value=value: value if "A. c" in text else -1.0)
        fine = Known(lambda text: -1.0)
        found = [
            asyncio.run(min_k_evidence(broken, tasks, twins)),
            asyncio.run(min_k_evidence(partly, tasks, twins)),
            asyncio.run(min_k_evidence(fine, tasks, twins, reference=partly)),
            asyncio.run(order_evidence(partly, tasks, reference=fine)),
            asyncio.run(option_evidence(options, tasks)),
            asyncio.run(option_evidence(fine, tasks, reference=options)),
        ]
        assert [(each.detail, each.ran, bool(each.asks and each.limits)) for each in found] == [(told, False, True)] * 6
        assert [each.test for each in found] == ["min-k%"] * 3 + ["order", "options", "options"]
        assert report("b", "m", found).verdict == "untested"


def test_two_long_texts_are_compared_at_once():
    assert rouge_l_recall("a b c " * 20_000, "b a d " * 20_000) == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 3])
def test_a_canary_of_a_model_without_finite_log_probs_is_not_ranked(value: float, place: int):
    strings: list[str] = []

    def broken(text: str) -> float:
        strings.append(text)
        return value if len(strings) == place + 1 else -1.0

    found = asyncio.run(canary_evidence(Known(broken), "3fb72Ac90", others=4))
    told = "not run: the model gives log-probs that are no finite numbers: are its weights, or its endpoint, broken?"
    assert same(found, Evidence("canary", canary_rank.ASKS, detail=told, limits=canary_rank.LIMITS))


def test_completions_are_compared_with_those_of_twins():
    tasks = [Task(f"t{i}", f"one two three four {'five' if i else 'six'}") for i in range(8)]
    twins = {task.id: "one two three seven eight" for task in tasks}
    model = Known(lambda text: 0.0, "three four five and more")
    found = asyncio.run(completion_evidence(model, [*tasks, Task("few", "one two three"), Task("no", "a b c d")],
                                            {**twins, "few": "x"}, seed=3))  # fmt: skip
    # items: three words of three, but two for the first; twins: one of three
    p = paired_p_value(np.array([1 / 3, *[2 / 3] * 7]))
    assert found == Evidence(
        "completion", completion_overlap.ASKS, pytest.approx((1 / 3 + 7 * 2 / 3) / 8), pytest.approx(p), 8,
        "overlap with the second half 0.96, of twins 0.33; 7 of 8 items recited", tuple(f"t{i}" for i in range(1, 8)),
        completion_overlap.LIMITS,
    )  # fmt: skip
    assert ("one two", Sampling(temperature=0, max_tokens=len(" three four five") + 2, seed=3)) in model.asked
    unasked = asyncio.run(completion_evidence(model, tasks[:7], twins))
    assert unasked.detail == "not run: 7 items have a twin and four words, and 8 are needed" and unasked.p_value is None
    assert unasked.limits == completion_overlap.LIMITS
    told = bare(lambda text: 0.0)
    asyncio.run(completion_evidence(told, tasks, twins, name="GSM"))
    guided = completion_overlap.GUIDED.format(name="GSM", start="one two")
    assert ([user(guided)], Sampling(temperature=0, max_tokens=8 + 2, seed=0)) in told.asked
    assert halves("one") == ("one", " ") and halves("a b c") == ("a", " b c") and halves("a  b") == ("a", "  b")
    assert rouge_l_recall("a b c a", "b a c") == 0.5 and rouge_l_recall("a b", "") == 0.0 == rouge_l_recall("", "a")


def test_options_with_a_natural_order_are_known():
    for choices in (("1,000", "200", "$3"), ("10%", "20%", "30%"), ("b", "A ", "a"), ("x", "Both A and B", "c"),
                    ("None of these", "q", "b"), ("all of the above", "q", "b"), ("B", "c", "D"),
                    ("2", "2", "2")):  # fmt: skip
        assert natural_order(choices), choices
    for choices in (("3", "1", "2"), ("b", "c", "a"), ("1", "b", "a"), ("1", "3", "2")):
        assert not natural_order(choices), choices


def test_the_file_s_order_of_options_is_compared_with_all_others():
    tasks = [Task(f"t{i}", "Q?", ("b", "c", "a")) for i in range(9)]
    listed = "A. b\nB. c\nC. a"
    model, reference = (
        Known(lambda text: 3.0 if text == listed else 1.0),
        Known(lambda text: 0.5 if text == listed else 1.0),
    )
    less = [Task("two", "Q?", ("b", "a")), Task("same", "Q?", ("b", "b", "a")), Task("sorted", "Q?", ("a", "b", "c"))]
    found = asyncio.run(option_evidence(model, [*tasks, *less], reference=reference))
    told = "the file's order is +2.00 nats more probable than others, in 9 of 9; beyond the reference model +2.50"
    p = paired_p_value(np.full(9, 2.5))
    assert found == Evidence("options", option_order.ASKS, 2.5, p, 9, told, limits=option_order.LIMITS)
    prompt, texts = model.asked[0]
    assert prompt == "Q?\n" and texts[0] == listed and len(set(texts)) == 6
    assert model.asked[0] == reference.asked[0]  # both are asked the same orders
    few = asyncio.run(option_evidence(model, [*tasks[:7], *less]))
    assert few.detail == "not run: 7 questions have three options without a natural order, and 8 are needed"


def test_min_k_of_items_is_compared_with_that_of_their_twins():
    tasks = [Task(f"t{i}", f"item {i}") for i in range(9)]
    twins = {task.id: f"twin {task.id}" for task in tasks[:8]}
    values = {f"item {i}": -1.0 - i for i in range(9)} | {f"twin t{i}": -4.0 for i in range(9)}
    model, reference = Known(values.__getitem__), Known(lambda text: -2.0 if text.startswith("item") else -3.0)
    own = np.array([3.0 - i for i in range(8)])
    found = asyncio.run(min_k_evidence(model, tasks, twins))
    assert (found.test, found.statistic, found.p_value, found.n) == (
        "min-k%",
        -0.5,
        pytest.approx(paired_p_value(own)),
        8,
    )
    assert found.detail == "items beat their twins by -0.500 on average, 3 of 8 do"
    assert found.asks == "Are the least probable 20% of an item's tokens more probable than those of its fresh twin?"
    alone = asyncio.run(min_k_evidence(model, tasks, dict.fromkeys(twins, "x")))  # one token has nothing to be rated by
    assert (alone.statistic, alone.detail) == (-4.5, "items beat their twins by -4.500 on average, 0 of 8 do")
    same = asyncio.run(min_k_evidence(model, tasks, {task.id: task.question for task in tasks[:8]}))
    assert (same.statistic, same.p_value, same.detail[-9:]) == (0.0, 1.0, "0 of 8 do")
    beyond = asyncio.run(min_k_evidence(model, tasks, twins, reference=reference))
    assert beyond.statistic == -1.5
    assert beyond.detail == "items beat their twins by -1.500 on average, 2 of 8 do, beyond the reference model"
    lacking = "not run: the model does not give the log-probs of a text's tokens"
    assert asyncio.run(min_k_evidence(bare(abs), tasks, twins)).detail == lacking  # type: ignore[arg-type]
    assert asyncio.run(min_k_evidence(model, tasks, twins, reference=bare(abs))).detail == lacking  # type: ignore[arg-type]
    plus = asyncio.run(min_k_evidence(model, tasks, twins, plus=True))
    assert (plus.test, plus.detail) == ("min-k%++", "not run: the model does not give whole distributions")
    few = asyncio.run(min_k_evidence(model, tasks[2:], twins)).detail
    assert few == "not run: 6 items have a twin, and 8 are needed (numbers or names to replace)"
    assert len(asyncio.run(text_logprobs(Known(lambda text: -1.0), "x" * 300))) == 256
    assert min_k(np.array([-1.0, -9.0, *[-2.0] * 12])) == -5.5 and min_k(np.array([-7.0, -1.0, -2.0, -3.0])) == -7.0
    even = np.log(np.full(4, 0.25))
    assert standardised(even[0] + 1e-6, even) == pytest.approx(1.0, rel=1e-3)  # a deviation of 0 counts as 1e-6
    assert standardised(-1.0, np.array([math.log(0.5), math.log(0.5), -math.inf])) < 0


def test_the_order_of_items_is_tested_over_shards():
    names = [f"item {(i * 5 + 3) % 12:02}" for i in range(12)]
    tasks = [Task(f"t{i}", name) for i, name in enumerate(names)]
    pairs = [f"{names[i]}\n\n{names[i + 1]}" for i in range(0, 12, 2)]
    rates = {text: (2.0 + place) / (len(text) - 1) for place, text in enumerate(pairs)}
    model = Known(lambda text: rates.get(text, 1.0 / 15))
    found = asyncio.run(order_evidence(model, tasks, shards=6, permutations=3))
    told = "the file's order is +3.50 nats more probable than 3 others, over 6 shards, 6 of them above 0"
    p = paired_p_value(np.arange(1.0, 7.0))
    assert found == Evidence(
        "order", order_test.ASKS, pytest.approx(3.5), pytest.approx(p), 12, told, limits=order_test.LIMITS
    )  # fmt: skip
    few = asyncio.run(order_evidence(model, tasks[:11], shards=16))
    none = asyncio.run(order_evidence(bare(abs), tasks))  # type: ignore[arg-type]
    for unrun, told in (
        (few, "not run: the items make 5 shards of two or more, and 6 are needed"),
        (none, "not run: the model does not give the log-probs of a text's tokens"),
    ):
        assert same(unrun, Evidence("order", order_test.ASKS, detail=told, limits=order_test.LIMITS))


def test_items_with_an_order_of_their_own_are_tested_against_a_reference_alone() -> None:
    draw = Random(2)
    for name, texts in {
        "number": [f"{draw.choice('abcdef')} {draw.choice('xyz')} {i + 7}: {draw.random()}" for i in range(20)],
        "alphabet": [f"{letter} {'x' * draw.randint(1, 9)}" for letter in "abcdefghijklmnop"],
        "length": [draw.choice("abcdef") + "y" * (90 - i) for i in range(20)],
    }.items():
        assert own_order(texts) == name == own_order(texts[::-1])
        tasks = [Task(f"t{i}", text) for i, text in enumerate(texts)]
        first = "".join(texts[:1])
        model = Known(lambda text, first=first: 1.0 + text.startswith(first), context=4096)
        found = asyncio.run(order_evidence(model, tasks))
        assert (found.p_value, found.limits) == (None, order_test.LIMITS) and found.detail == (
            f"not run: the items have an order of their own, by {name}: name a model that cannot have seen them "
            "(--reference)"
        )
        same = asyncio.run(order_evidence(model, tasks, reference=model))
        assert same.p_value == 1.0 and same.statistic == 0.0
        assert same.detail.endswith(" of them above 0; beyond the reference model +0.00")
    refused = sum(
        bool(own_order([f"{draw.random()} {'x' * draw.randint(1, 30)}" for _ in range(20)])) for _ in range(200)
    )
    assert refused <= 16
    assert own_order(["same"] * 20) == "" == own_order([])
    none = asyncio.run(order_evidence(model, tasks, reference=bare(abs)))  # type: ignore[arg-type]
    assert none.detail == "not run: the reference model does not give the log-probs of a text's tokens"


def test_shards_are_runs_of_distinct_items_that_fit_the_context():
    def shards(most: int, context: int, *texts: str) -> list[list[str]]:
        model = Known(lambda text: 0.0, context=context)
        return asyncio.run(_shards([model], [Task(str(i), text) for i, text in enumerate(texts)], most))

    assert shards(2, 99, *"abacde") == [["a", "b"], ["c", "d"]]  # five distinct ones, two each
    assert shards(1, 99, *"abcde") == [["a", "b", "c", "d", "e"]] and shards(9, 99, *"abc") == [["a", "b"]]
    assert shards(2, 6, *"abcdef") == [["a", "b"], ["d", "e"]]  # 3 tokens each with the blank line
    assert shards(2, 5, *"abcdef") == [] and shards(2, 9, *"abcdef") == [["a", "b", "c"], ["d", "e", "f"]]
    assert shards(9, 99, "a") == [] == shards(9, 99)


# -- twins --


def test_twins_take_numbers_and_names_of_the_benchmark_where_it_has_enough():
    words = TwinWords.of(["Ada 12 and 345, 07 13", "Ben 14 Ada Monday 15", "Emma 16"])
    assert words.numbers == {2: ("07", "12", "13", "14", "15", "16"), 3: ("345",)}
    assert words.names == {"Ada", "Ben", "Emma", "Monday"}
    rng = Random(1)
    assert {words.number("12", rng) for _ in range(60)} == {"07", "13", "14", "15", "16"}
    few = {words.number("345", rng) for _ in range(60)}
    assert len(few) > 30 and all(len(each) == 3 and each[0] != "0" for each in few)
    assert all(words.number("012", rng)[0] == "0" for _ in range(20)) and "0" not in {
        words.number("5", rng) for _ in range(60)
    }
    four = TwinWords(
        {2: ("10", "11", "12", "13", "14")}, frozenset({"Ada", "Ben", "Clara", "Daniel", "Emma", "Monday"})
    )
    assert {four.number("10", rng) for _ in range(40)} == {"11", "12", "13", "14"}
    assert {four.name("Ada", {"Ada"}, rng) for _ in range(60)} == {"Ben", "Clara", "Daniel", "Emma"}
    assert len({four.name("Ada", {"Ben"}, rng) for _ in range(60)}) > 4  # three are too few
    days = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
    assert four.name("Monday", days, rng) == "Sunday" and four.name("Monday", {*days, "Sunday"}, rng) == "Monday"
    assert twin_text("Adamant Mondays", four, rng) is None
    task = Task("t", "Q", ("x", "y"), secret={"answer": "4", "solution": "2 + 2"})
    assert task_text(task) == "Q\nA. x\nB. y\n2 + 2" and task_text(Task("t", "Q", secret={"answer": "4"})) == "Q\n4"
    assert task_text(Task("t", "Q", secret={"answer": 4})) == "Q" == task_text(Task("t", "Q", secret={"answer": ""}))
    tasks = [Task("a", "Ada has 12"), Task("b", "nothing"), Task("c", "Ada has 12")]
    made = twins_of(tasks, 5)
    own = TwinWords.of([task_text(each) for each in tasks])
    assert list(made) == ["a", "c"] and made["c"] == twin_text("Ada has 12", own, Random(derive_seed("twin", 5, "c")))


# -- the report --


def test_the_p_value_of_differences_is_the_larger_of_two_tests():
    draw = np.random.default_rng(3).normal(0.3, 1, 12)
    sign = stats.norm.sf((int((draw > 0).sum()) - 6 - 0.5) / math.sqrt(3))
    mean = stats.ttest_1samp(draw, 0, alternative="greater").pvalue
    assert sign != mean and paired_p_value(draw) == pytest.approx(max(sign, mean))
    heavy = np.array([9.0, 1.0, -1.0, -1.0, -1.0, 0.0])
    assert paired_p_value(heavy) == pytest.approx(stats.norm.sf((2 - 2.5 - 0.5) / math.sqrt(5 / 4)))
    assert paired_p_value(np.array([2.0])) == pytest.approx(0.5) and paired_p_value(np.array([])) == 1.0
    assert paired_p_value(np.full(4, -1.0)) == pytest.approx(stats.norm.sf(-2.5)) and paired_p_value(np.zeros(3)) == 1.0
    assert [_p(each) for each in (0.0123, 1e-4, 0.9e-4, 0.0)] == ["0.012", "0.0001", "< 0.0001", "< 0.0001"]


def test_a_verdict_without_a_test_of_the_model_is_that_of_what_ran():
    ran, not_run = Evidence("n-grams", "?", 0.0, None, 9), Evidence("options", "?", detail="not run")
    found = Evidence("n-grams", "?", 0.5, None, 9, flagged=("t",))
    verdicts = [report("x", "m", evidence, corpus="c").verdict for evidence in
                ([ran, not_run], [not_run, ran], [not_run], [], [not_run, found], [ran])]  # fmt: skip
    assert verdicts == ["no overlap", "no overlap", "untested", "untested", "overlap", "no overlap"]
    limit = report("x", "m", [Evidence("a", "?", 1.0, 0.05, 9)])
    assert limit.verdict == "leaked" and report("x", "m", [Evidence("a", "?", 1.0, 0.0501, 9)]).verdict == "cleared"
    # a test with a p-value that also flags items does not make an overlap, and a leak goes before one
    flags = Evidence("completion", "?", 1.0, 0.9, 9, flagged=("t", "u", "v"))
    assert report("x", "m", [flags, ran]).verdict == "cleared"
    assert report("x", "m", [found, Evidence("a", "?", 1.0, 0.01, 9)]).verdict == "leaked"


def test_a_report_says_its_verdict_in_words_and_as_json():
    a, b, c = (Evidence(name, "?", 1.0, p, 10) for name, p in (("a", 0.0), ("b", 0.02), ("c", 0.9)))
    none = Evidence("d", "?", detail="not run")
    assert not none.ran and a.ran and Evidence("e", "?", n=1).ran and Evidence("e", "?", p_value=0.0).ran
    leaked = report("set", "m", [c, b, none, a], alpha=0.04)
    assert (
        leaked.corrected == {"c": 0.9, "b": 0.04, "a": 0.0}
        and leaked.caught == ("b", "a")
        and leaked.verdict == "leaked"
    )
    assert leaked.words == (
        "m behaves as if it had been trained on items of set: b (p 0.04), a (p < 0.0001), after correction for 3 tests. "
        "Its score on this benchmark is no evidence of what it can do."
    )
    assert report("set", "m", [c, b], alpha=0.039).words == (
        "No test tells m from a model that never saw set (2 tests, 4% chance of a false alarm for all together). A leak "
        "that was seen once in a large corpus, or in other words, would not be found."
    )
    few, many = (Evidence(n, "?", 0.5, None, 9, flagged=f) for n, f in (("x", ("t",)), ("n-grams", ("t", "u"))))
    over = report("set", "m", [c, few, many], corpus="here")
    assert (
        over.verdict == "overlap"
        and over.alpha == 0.05
        and over.words
        == (
            "2 of 9 items of set stand in here. A model that was trained on it has seen them; whether it learned them is "
            "another question."
        )
    )
    clean = report("set", "", [Evidence("n-grams", "?", 0.0, None, 9)], corpus="here")
    assert clean.words.startswith("No item of set stands in here in its own words. ") and clean.verdict == "no overlap"
    assert report("set", "m", [none]).words == "No test could be run on set: see the reasons."
    assert report("set", "m", [Evidence("a", "?", 1.0, 0.5, 9, flagged=("t",))]).verdict == "cleared"
    row = {
        "test": "d",
        "asks": "?",
        "statistic": None,
        "p_value": None,
        "n": 0,
        "detail": "not run",
        "flagged": [],
        "limits": "",
        "unread": [],
        "short": 0,
    }
    assert report("set", "m", [none], corpus="here", alpha=0.1).to_json() == {
        "benchmark": "set", "model": "m", "corpus": "here", "verdict": "untested", "alpha": 0.1, "corrected": {},
        "words": "No test could be run on set: see the reasons.", "evidence": [row],
    }  # fmt: skip
    assert many.to_json()["flagged"] == ["t", "u"] and many.to_json()["statistic"] == 0.5


def test_all_tests_are_run_in_order_with_the_settings_given(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text")
    tasks = [Task(f"t{i}", f"Ada has {i + 10} pens today", ("b", "c", "a")) for i in range(9)]
    model, reference = Known(lambda text: -1.0, "x"), Known(lambda text: -2.0)

    def run(**given: Any) -> Any:
        return asyncio.run(contamination("set", tasks, model, **given))

    found = run(corpus=tmp_path, canary="id ab12cd34", guided=True, seed=4, alpha=0.01, reference=reference)
    assert [each.test for each in found.evidence] == list(TESTS) and found.alpha == 0.01
    assert (found.benchmark, found.model, found.corpus) == ("set", "m", str(tmp_path))
    assert found.evidence[0].n == 9 and found.evidence[1].detail.endswith("beyond the reference model")
    assert found.evidence[6].detail.endswith("beyond the reference model +0.00") and reference.asked
    assert any("data set set." in str(prompt) for prompt, _ in model.asked)
    assert any(sampling == Sampling(temperature=0, max_tokens=sampling.max_tokens, seed=4)
               for _, sampling in model.asked if isinstance(sampling, Sampling))  # fmt: skip
    plain = run(tests=("canary", "options"))
    assert (
        [each.test for each in plain.evidence] == ["canary", "options"] and plain.corpus == "" and plain.alpha == 0.05
    )
    assert plain.evidence[0].detail == "not run: the benchmark names no canary (--canary TEXT)"
    alone = asyncio.run(contamination("set", tasks, corpus=tmp_path / "a.txt"))
    assert [each.test for each in alone.evidence] == ["n-grams"] and alone.model == ""
    CorpusIndex.build(tmp_path / "a.txt", tmp_path / "index")
    assert run(index=tmp_path / "index", tests=("n-grams",)).corpus == str(tmp_path / "index")
