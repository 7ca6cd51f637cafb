"""Standardised log-probs, orders of options, and the size and error of a corpus's index, worked out by hand."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.contamination import token_evidence
from firsthand.contamination.contamination_tests import TestName, contamination
from firsthand.contamination.corpus_texts import _of_lines
from firsthand.contamination.leak_evidence import paired_p_value
from firsthand.contamination.ngram_overlap import PROBES, CorpusIndex
from firsthand.contamination.option_order import option_evidence
from firsthand.contamination.order_test import order_evidence
from firsthand.contamination.text_twins import TwinWords, task_text, twin_text, twins_of, without_answers
from firsthand.contamination.token_evidence import min_k_evidence, standardised, text_standardised
from firsthand.errors import DataError
from firsthand.message import assistant
from firsthand.model import Completion, Usage
from firsthand.task import Task
from test_contamination import Reciter
from test_leak_figures import Known


class Distributed(Known):
    """A model whose distribution over four tokens follows from how many tokens stand before."""

    end_ids = frozenset({3})

    def __init__(self, chances: dict[int, list[float]]):
        super().__init__(lambda text: 0.0)
        self.chances = chances
        self.before: list[list[int]] = []

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        return [int(char) for char in prompt if char.isdigit()]

    async def next_logprobs(self, ids: Sequence[int]) -> Any:
        self.before.append(list(ids))
        return np.log(np.array(self.chances[len(ids) % len(self.chances)]))

    def token_id(self, text: str) -> int | None: ...
    async def tokenize_marked(self, text: str, marks: Any) -> list[int]: ...  # type: ignore[empty-body]


CHANCES = {1: [0.5, 0.25, 0.125, 0.125], 0: [0.7, 0.1, 0.1, 0.1]}


def test_each_token_after_the_first_is_standardised_at_its_place(monkeypatch: pytest.MonkeyPatch):
    model = Distributed(CHANCES)
    found = asyncio.run(text_standardised(model, "3 0 2"))
    first, second = (np.log(np.array(CHANCES[n])) for n in (1, 0))
    assert found.tolist() == [standardised(first[0], first), standardised(second[2], second)]
    assert model.before == [[3], [3, 0]] and found[0] > 0 > found[1]
    assert asyncio.run(text_standardised(model, "1")).shape == (0,)
    monkeypatch.setattr(token_evidence, "MAX_DISTRIBUTIONS", 3)
    assert len(asyncio.run(text_standardised(model, "0" * 9))) == 3
    monkeypatch.setattr(token_evidence, "MAX_TOKENS", 2)
    assert len(asyncio.run(token_evidence.text_logprobs(model, "0" * 9))) == 2


def test_min_k_plus_plus_takes_the_lowest_standardised_tokens():
    tasks = [Task(f"t{i}", "0 0 0" if i else "0 3 0") for i in range(8)]
    twins = {task.id: "0 3 3" for task in tasks}
    first, second = (np.log(np.array(CHANCES[n])) for n in (1, 0))

    def lowest(*ids: int) -> float:
        return min(standardised(first[ids[1]], first), standardised(second[ids[2]], second))

    found = asyncio.run(min_k_evidence(Distributed(CHANCES), tasks, twins, plus=True))
    differences = np.array([lowest(0, 3, 0) - lowest(0, 3, 3), *[lowest(0, 0, 0) - lowest(0, 3, 3)] * 7])
    assert (found.test, found.n, found.p_value) == ("min-k%++", 8, pytest.approx(paired_p_value(differences)))
    assert found.statistic == pytest.approx(differences.mean()) and differences[0] != differences[1]
    assert found.detail == f"items beat their twins by {differences.mean():+.3f} on average, 8 of 8 do"


def test_a_token_is_standardised_by_the_whole_distribution():
    even = np.log(np.array([0.25, 0.75]))
    mean = 0.25 * even[0] + 0.75 * even[1]
    deviation = math.sqrt(0.25 * (even[0] - mean) ** 2 + 0.75 * (even[1] - mean) ** 2)
    assert standardised(even[1], even) == pytest.approx((even[1] - mean) / deviation)
    assert standardised(-9.0, even) == pytest.approx((-9.0 - mean) / deviation)


def test_orders_of_options_are_others_and_follow_the_seed_and_the_task():
    def asked(*tasks: Task, **given: Any) -> list[list[str]]:
        model = Known(lambda text: 1.0)
        asyncio.run(option_evidence(model, tasks, **given))
        return [texts for _, texts in model.asked]

    tasks = [Task(f"t{i}", "Q?", ("d", "b", "a", "c")) for i in range(8)]
    five = asked(*tasks)
    own = "A. d\nB. b\nC. a\nD. c"
    assert all(texts[0] == own and len(set(texts)) == 6 for texts in five) and five[0] != five[1]
    assert asked(*tasks) == five != asked(*tasks, seed=1)
    assert {len(texts) for texts in asked(*tasks, orders=2)} == {3}
    assert {len(set(texts)) for texts in asked(*tasks, orders=99)} == {24}
    equal = [Task(f"e{i}", "Q?", ("c", "a", "b", "a")) for i in range(8)]
    assert {len(set(texts)) for texts in asked(*equal, orders=99)} == {12}, "of equal options there are fewer orders"


def test_orders_of_items_follow_the_seed_and_are_never_the_file_s():
    def totals(seed: int) -> list[str]:
        said: list[str] = []

        def value(text: str) -> float:
            if not said or said[-1] != text:
                said.append(text)
            return -1.0

        tasks = [Task(f"t{i}", f"item {7 * i % 18:02}") for i in range(18)]  # in no order of their own
        asyncio.run(order_evidence(Known(value), tasks, shards=6, permutations=4, seed=seed))
        return said

    own = "item 00\n\nitem 07\n\nitem 14"
    first = totals(0)
    assert first.count(own) == 1 and sum(sorted(each) == sorted(own) for each in first) >= 4
    assert totals(0) == first != totals(1)
    short = Known(lambda text: -1.0, context=21)
    found = asyncio.run(order_evidence(short, [Task(f"t{i}", f"item {7 * i % 12:02}") for i in range(12)], shards=6))
    assert found.n == 12 and found.statistic == 0.0 and found.p_value == 1.0


def test_an_index_has_room_for_what_a_packed_file_holds(tmp_path: Path):
    text = f"{Random(2).getrandbits(80_000):x} "
    with gzip.open(tmp_path / "a.gz", "wt") as file:
        file.write(text)
    size = (tmp_path / "a.gz").stat().st_size
    index = CorpusIndex.build(tmp_path / "a.gz", tmp_path / "index")
    assert len(index.bits) == 1 << math.ceil(math.log2(4 * size * 32 // 384)) > 1024
    assert index.read == len(text) and index.grams == 0 and index.false_rate == 0.0
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    assert about == {"version": 4, "grams": 0, "source": str(tmp_path / "a.gz"), "bytes": len(text), "unread": []}
    (tmp_path / "tiny").write_text("x")
    assert len(CorpusIndex.build(tmp_path / "tiny", tmp_path / "least").bits) == 1024
    half = np.zeros(8192, np.uint64)
    half[::2] = np.uint64(2**64 - 1)  # every second word is looked at
    np.save(tmp_path / "index" / "bits.npy", half)
    assert CorpusIndex(tmp_path / "index").false_rate == 1.0
    np.save(tmp_path / "index" / "bits.npy", half[:4096])
    assert CorpusIndex(tmp_path / "index").false_rate == pytest.approx(0.5**PROBES)


def test_a_row_s_fields_are_joined_in_a_fixed_order(tmp_path: Path):
    import io

    row = {"answer": "6", "question": "5", "completion": "4", "prompt": "3", "content": "2", "text": "1", "other": "7"}
    lone = {"text": 5, "answer": "\ud800x"}
    lines = io.BytesIO((json.dumps(row) + "\n" + json.dumps(lone)).encode())
    assert list(_of_lines(lines, tmp_path)) == [b"1\n2\n3\n4\n5\n6\n7", b"?x"]
    with pytest.raises(DataError, match="line 3: not JSON: is the file cut short"):
        list(_of_lines(io.BytesIO(b'"a"\n\n{"text'), tmp_path))


def test_a_twin_has_one_new_number_for_each_of_its_own():
    words = TwinWords.of(["11 12 13 14 15 16"])
    twins = {twin_text("11 and 11, Monday", words, Random(seed)) for seed in range(40)}
    assert all(twin is not None for twin in twins)
    parts = [str(twin).replace(",", "").split() for twin in twins]
    assert all(one == two and one in {"12", "13", "14", "15", "16"} for one, _, two, day in parts)
    assert {one for one, *_ in parts} == {"12", "13", "14", "15", "16"} and all(day != "Monday" for *_, day in parts)
    for seed in range(40):
        first, second, *rest = str(twin_text("1,250 and 12 and 1250 and 12 and 13", words, Random(seed))).split(" and ")
        assert first[1] == "," and first.replace(",", "") == rest[0] != "1250" and second == rest[1] != rest[2]


@pytest.mark.parametrize("kind", ["min-k%", "completion"])
def test_a_model_that_calculates_has_not_seen_the_items(kind: TestName):
    told = "Add {} and {}.\nThe sum of both is {}"
    pairs = [(i + 10, 3 * i + 20) for i in range(10)]
    tasks = [
        Task(f"t{i}", f"Add {one} and {two}.", secret={"solution": f"The sum of both is {one + two}"})
        for i, (one, two) in enumerate(pairs)
    ]

    def value(text: str) -> float:
        numbers = [int(each) for each in re.findall(r"\d+", text)]
        return -1.0 if len(numbers) < 3 or numbers[0] + numbers[1] == numbers[2] else -9.0

    class Adds(Known):
        async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
            numbers = [int(each) for each in re.findall(r"\d+", str(prompt))]
            return [Completion(assistant(f" of both is {sum(numbers)}"), "stop", Usage())]

    assert task_text(tasks[0]) == told.format(10, 20, 30)
    found = asyncio.run(contamination("sums", tasks, Adds(value), tests=(kind,)))
    assert found.verdict == "cleared", found.evidence[0]
    beyond = asyncio.run(contamination("sums", tasks, Adds(value), reference=Adds(value), tests=("min-k%",)))
    assert (beyond.verdict, beyond.evidence[0].statistic) == ("cleared", 0.0), "whole items beside a reference"


def test_commas_part_numbers_but_for_thousands_and_new_numbers_differ():
    assert {text: sorted(TwinWords.of([text]).numbers) for text in ("1,234", "1,234,56", "1,234,567", "12345,678")} == {
        "1,234": [4], "1,234,56": [1, 2, 3], "1,234,567": [7], "12345,678": [3, 5],
    }  # fmt: skip

    class Counts(Random):
        def choice(self, seq: Any) -> Any:
            self.drawn = getattr(self, "drawn", -1) + 1
            return seq[self.drawn]

    assert TwinWords({}, frozenset()).number("2", Counts(0), ("1", "3")) == "4"


def test_questions_alone_have_no_answer_that_is_wrong_in_a_twin():
    for answer in ("twelve", "yes", "12", "Monday"):
        task = Task("a", "Is 7 and 5 more than 11?", ("yes", "no"), secret={"answer": answer})
        assert without_answers([task]) == [Task("a", task.prompt, ("yes", "no"))]
    for choices in (("11", "12"), ("none", "12"), ("Ada", "nobody")):
        assert without_answers([Task("b", "7 + 5?", choices, secret={"target": 1})]) == [Task("b", "7 + 5?")]


@pytest.mark.parametrize("kind", ["words", "choices"])
def test_a_model_that_finds_answers_in_words_or_choices_has_not_seen_the_items(kind: str):
    tasks = []
    for one in range(10, 26):
        two = 3 * one
        if kind == "words":
            tasks.append(
                Task(f"t{one}", f"Are {one} and {two} even in sum?", secret={"answer": ("yes", "no")[one * 4 % 2]})
            )
        else:
            tasks.append(Task(f"t{one}", f"Add {one} and {two}.", tuple(str(one + two + more) for more in (1, 0, -2))))

    def value(text: str) -> float:
        one, two, *given = [int(each) for each in re.findall(r"\d+", text)]
        answer = "yes" if (one + two) % 2 == 0 else "no"
        return -1.0 if one + two in given or text.endswith(("?", ".", f"\n{answer}")) else -9.0

    assert np.mean([value(task_text(task)) for task in tasks]) == -1.0
    found = asyncio.run(contamination("sums", tasks, Known(value), tests=("min-k%",)))
    assert (found.verdict, found.evidence[0].statistic) == ("cleared", 0.0)


def test_tests_that_are_not_asked_for_are_not_run():
    tasks = [Task(f"t{i}", f"Ada has {i + 10} pens today", ("b", "c", "a")) for i in range(9)]
    for name in ("min-k%", "min-k%++", "order", "completion"):
        found = asyncio.run(contamination("set", tasks, Known(lambda text: -1.0, "x"), tests=(name,)))  # type: ignore[arg-type]
        assert [each.test for each in found.evidence] == [name]
    assert asyncio.run(contamination("set", tasks, Known(lambda text: -1.0), tests=())).verdict == "untested"


def test_min_k_plus_plus_subtracts_the_differences_of_the_reference():
    tasks = [Task(f"t{i}", f"Ada has {i + 10} pens and {91 - 7 * i} more") for i in range(12)]
    model, reference = (
        Distributed(
            {n: [float(share) for share in np.random.default_rng(first + n).dirichlet([1.0] * 10)] for n in (0, 1)}
        )
        for first in (0, 2)
    )
    found = asyncio.run(contamination("set", tasks, model, reference=reference, tests=("min-k%++",), seed=4)).evidence
    twins = twins_of(tasks, 4)

    def lowest(given: Distributed, text: str) -> float:
        return min(asyncio.run(text_standardised(given, text)))  # a fifth of three is one, the lowest

    own, theirs = (
        np.array([lowest(given, task.prompt) - lowest(given, twins[task.id]) for task in tasks])
        for given in (model, reference)
    )
    assert len(found) == 1 and (found[0].test, found[0].n) == ("min-k%++", 12) and own.mean() != theirs.mean() != 0
    assert found[0].statistic == pytest.approx((own - theirs).mean())
    assert found[0].p_value == pytest.approx(paired_p_value(own - theirs))
    beyond = f"on average, {((own - theirs) > 0).sum()} of 12 do, beyond the reference model"
    assert found[0].detail == f"items beat their twins by {(own - theirs).mean():+.3f} {beyond}"


class Places(Reciter):
    """A model to which a character's chance follows from its place."""

    def _logprob(self, before: str, char: str) -> float:
        return -float(len(before) * ord(char) % 11)


def test_the_orders_are_drawn_from_the_seed_of_the_whole():
    tasks = [Task(f"t{i}", f"Ada has {29 * i % 48 + 10} pens today") for i in range(48)]  # shards of three, unsorted
    knows = Places("of no text")
    by_seed = {}
    for seed in (0, 4, 5):
        (by_seed[seed],) = asyncio.run(contamination("set", tasks, knows, tests=("order",), seed=seed)).evidence
        assert by_seed[seed] == asyncio.run(order_evidence(knows, tasks, seed=seed))
    assert len({each.statistic for each in by_seed.values()}) == 3, "other orders, other figures"
    (plain,) = asyncio.run(contamination("set", tasks, knows, tests=("order",))).evidence
    assert plain == by_seed[0]


class Letters(Places):
    """A model to which a character's chance follows from itself alone, so that all orders are equally probable."""

    def __init__(self, context: int):
        super().__init__()
        self.context, self.longest = context, 0

    async def load(self) -> Any:
        return replace(await super().load(), context=self.context)

    async def rate(self, ids: Sequence[int], *args: Any, **more: Any) -> Any:
        self.longest = max(self.longest, len(ids))
        return await super().rate(ids, *args, **more)

    def _logprob(self, before: str, char: str) -> float:
        return -5.0 if char in "zqxj" else -1.0


@pytest.mark.parametrize(("own", "other"), [(4096, 4096), (4096, 400), (400, 4096)])
def test_a_reference_of_a_smaller_context_scores_the_same_items_in_each_order(own: int, other: int):
    rng = Random(0)
    tasks = [
        Task(str(i), "".join(rng.choice("zqxj" if rng.random() < 1 - i / 160 else "etao") for _ in range(60)))
        for i in range(160)  # from hard to easy
    ]
    model, reference = Letters(own), Letters(other)
    found = asyncio.run(order_evidence(model, tasks, reference=reference))
    assert found.p_value is not None and found.p_value > 0.9 and abs(found.statistic) < 1e-6
    assert found.n == 16 * (10 if min(own, other) == 4096 else 6)
    assert reference.longest == model.longest <= min(own, other)
