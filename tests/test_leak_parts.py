"""Tests of contamination with models whose log-probs differ for each text and token: settings passed on, limits, edges."""

from __future__ import annotations

import asyncio
import io
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.contamination import completion_overlap, option_order, order_test, token_evidence
from firsthand.contamination.canary_rank import ASKS as CANARY_ASKS
from firsthand.contamination.canary_rank import canary_evidence
from firsthand.contamination.completion_overlap import completion_evidence, halves, rouge_l_recall
from firsthand.contamination.contamination_tests import contamination
from firsthand.contamination.corpus_texts import FIELDS, _of_lines
from firsthand.contamination.leak_evidence import ContaminationReport, Evidence, paired_p_value, report
from firsthand.contamination.ngram_overlap import CorpusIndex, FoundItem, overlap_evidence, scan_corpus
from firsthand.contamination.option_order import option_evidence
from firsthand.contamination.order_test import order_evidence
from firsthand.contamination.text_twins import TwinWords, task_text, twin_text, twins_of
from firsthand.contamination.token_evidence import min_k_evidence, text_logprobs
from firsthand.errors import DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import assistant
from firsthand.model import Completion, Sampling, TokenRating, Usage
from firsthand.task import Task
from same_values import same
from test_leak_figures import Known


def spread(crc: int) -> float:
    return -1.0 - (crc * 2654435761 >> 7) % 2**32 / 2**32


def drawn(text: str, salt: int = 0) -> float:
    """A log-prob that a text decides and no other text shares."""
    return spread(zlib.crc32(text.encode(), salt))


class Lettered(Known):
    """A model whose tokens are letters, each with a log-prob of its own, and whose answers are those of the prompt."""

    def __init__(self, answers: dict[str, str] | None = None, salt: int = 0, context: int = 4096):
        super().__init__(lambda text: drawn(text, salt), context=context)
        self.answers, self.salt = answers or {}, salt

    async def rate(self, ids: Sequence[int], top: int = 0, **_: Any) -> list[TokenRating]:
        crc, found = self.salt, []
        for token in ids:
            crc = zlib.crc32(chr(token).encode(), crc)
            found.append(TokenRating(token, spread(crc)))  # that of the text up to here
        return found[1:]

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        return [ord(char) for char in prompt for _ in range(3 if char == "\n" else 1)]

    async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.asked.append((prompt, sampling))
        return [Completion(assistant(self.answers.get(str(prompt), "no")), "stop", Usage())]


def test_each_test_gets_the_items_models_and_seed_that_were_given(tmp_path: Path) -> None:
    tasks = [Task(f"t{i}", f"Ada has {i + 10} pens and {i * 7 + 100} more", ("b", "c", "a", "d")) for i in range(12)]
    model, other = Lettered(), Lettered(salt=1)
    (tmp_path / "a.txt").write_text(f"x {task_text(tasks[3])} y")
    twins = twins_of(tasks, 4)

    async def directly(plain: bool) -> list[Evidence]:
        seed, reference = (0, None) if plain else (4, other)
        paired = twins_of(tasks, 0) if plain else twins
        none = Evidence("canary", CANARY_ASKS, detail="not run: the benchmark names no canary (--canary TEXT)")
        return [
            overlap_evidence(tasks, corpus=None if plain else tmp_path),
            await min_k_evidence(model, tasks, paired, reference=reference),
            await min_k_evidence(model, tasks, paired, reference=reference, plus=True),
            await order_evidence(model, tasks, reference=reference, seed=seed),
            none if plain else await canary_evidence(model, "id ab12cd34", seed=4),
            await completion_evidence(model, tasks, paired, name="" if plain else "set", seed=seed),
            await option_evidence(model, tasks, reference=reference, seed=seed),
        ]

    expected = asyncio.run(directly(False))
    found = asyncio.run(
        contamination(
            "set",
            iter(tasks),
            model,
            corpus=tmp_path,
            reference=other,
            canary="id ab12cd34",
            guided=True,
            seed=4,
            alpha=0.2,  # type: ignore[arg-type]
        )
    )
    assert same(found, report("set", "m", expected, corpus=str(tmp_path), alpha=0.2)) and found.alpha == 0.2
    plain = asyncio.run(contamination("set", tasks, model))
    assert same(plain, report("set", "m", asyncio.run(directly(True)))) and (plain.corpus, plain.alpha) == ("", 0.05)
    assert plain.evidence[1] != expected[1] and plain.evidence[6] != expected[6]
    CorpusIndex.build(tmp_path, tmp_path / "made")
    both = asyncio.run(contamination("set", tasks, corpus=tmp_path / "a.txt", index=tmp_path / "made"))
    assert both == ContaminationReport(
        "set", "", (overlap_evidence(tasks, index=tmp_path / "made"),), str(tmp_path / "a.txt"), {}, 0.05
    )
    assert both.verdict == "overlap" and both.evidence[0].flagged == ("t3",)


def test_the_least_probable_tokens_of_each_item_are_set_against_its_own_twin() -> None:
    tasks = [Task(f"t{i}", f"{i} is an item") for i in range(10)]
    twins = {task.id: f"{9 - i}: its twin" for i, task in enumerate(tasks) if i not in (2, 5)}

    def lowest(text: str, salt: int) -> float:
        values = sorted(drawn(text[: at + 1], salt) for at in range(1, len(text)))
        return float(np.mean(values[: max(1, int(len(values) * 0.2))]))

    kept = [task for task in tasks if task.id in twins]
    own, other = (
        np.array([lowest(task.prompt, salt) - lowest(twins[task.id], salt) for task in kept]) for salt in (0, 1)
    )
    for reference, differences, more in (
        (None, own, ""),
        (Lettered(salt=1), own - other, ", beyond the reference model"),
    ):
        found = asyncio.run(min_k_evidence(Lettered(), tasks, twins, reference=reference))
        above = int((differences > 0).sum())
        assert 0 < above < 8 and found == Evidence(
            "min-k%", "Are the least probable 20% of an item's tokens more probable than those of its fresh twin?",
            pytest.approx(differences.mean()), pytest.approx(paired_p_value(differences)), 8,
            f"items beat their twins by {differences.mean():+.3f} on average, {above} of 8 do{more}", (),
            token_evidence.LIMITS,
        )  # fmt: skip
    ratings = asyncio.run(text_logprobs(Lettered(), "abc"))
    assert ratings.tolist() == [drawn("ab"), drawn("abc")] and ratings.dtype == np.float64
    assert asyncio.run(text_logprobs(Lettered(), "a")).shape == (0,)
    alone = [Task(f"t{i}", "x") for i in range(8)]
    still = asyncio.run(min_k_evidence(Lettered(), alone, dict.fromkeys((task.id for task in alone), "y")))
    assert (still.statistic, still.p_value, still.n) == (0.0, 1.0, 8), "a text of one token has none after the first"


def test_completions_are_read_against_the_second_half_of_their_own_text() -> None:
    tasks = [Task(f"t{i}", f"a{i} b c d{i}") for i in range(7)]
    tasks.append(Task("ten", "s0 s1 s2 s3 s4 s5 s6 s7 s8 s9 w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"))
    twins = {task.id: f"x{i} y z q{i}" for i, task in enumerate(tasks)}
    twins["ten"] = "y0 b c d"
    answers = {f"a{i} b": f"c e d{i}" if i % 2 else "c" for i in range(7)} | {f"x{i} y": f"q{i} z" for i in range(7)}
    answers |= {"s0 s1 s2 s3 s4 s5 s6 s7 s8 s9": "w0 w1 w2 w3 w4 w5 w6 w7 w8", "y0 b": "c d"}
    model = Lettered(answers)
    found = asyncio.run(
        completion_evidence(model, [Task("three", "a b c"), *tasks], twins | {"three": "a b c d"}, seed=2)
    )
    own, other = np.array([0.5, 1, 0.5, 1, 0.5, 1, 0.5, 0.9]), np.array([*[0.5] * 7, 1])
    assert found == Evidence(
        "completion", completion_overlap.ASKS, pytest.approx((own - other).mean()),
        pytest.approx(paired_p_value(own - other)), 8,
        f"overlap with the second half {own.mean():.2f}, of twins {other.mean():.2f}; 4 of 8 items recited",
        ("t1", "t3", "t5", "ten"), completion_overlap.LIMITS,
    )  # fmt: skip
    most = {prompt: sampling.max_tokens for prompt, sampling in model.asked}
    assert most["a0 b"] == 8 and most["s0 s1 s2 s3 s4 s5 s6 s7 s8 s9"] == 32, (
        "tokens of the end and two, eight at least"
    )
    assert {(sampling.seed, sampling.temperature) for _, sampling in model.asked} == {(2, 0)} and len(most) == 16
    assert halves("a b") == ("a", " b") and halves("a b c d e") == ("a b", " c d e") and halves("") == ("", " ")
    assert rouge_l_recall("a b c d", "d a x c d") == 0.75 and rouge_l_recall("a b c", "c b a") == pytest.approx(1 / 3)
    assert rouge_l_recall("a a b", "a b b") == pytest.approx(2 / 3) and rouge_l_recall("b a a", "a") == pytest.approx(
        1 / 3
    )


def test_the_file_s_order_of_options_is_set_against_orders_drawn_for_each_question() -> None:
    tasks = [Task(f"t{i}", f"Q{i}?", ("b", f"c{i}", "a")) for i in range(8)]

    def gains(salt: int) -> np.ndarray:
        found = []
        for task in tasks:
            rng, orders = Random(derive_seed("options", 6, task.id)), [list(task.choices)]
            while len(orders) < 4:
                order = rng.sample(task.choices, 3)
                orders += [order] if order not in orders else []
            listed = [
                "\n".join(f"{letter}. {each}" for letter, each in zip("ABC", order, strict=True)) for order in orders
            ]
            values = [drawn(text, salt) for text in listed]
            found.append(values[0] - sum(values[1:]) / 3)
        return np.array(found)

    own, other = gains(0), gains(1)
    assert 0 < (own > 0).sum() < 8
    found = asyncio.run(option_evidence(Lettered(), [*tasks, Task("two", "Q", ("b", "a"))], orders=3, seed=6))
    told = f"the file's order is {own.mean():+.2f} nats more probable than others, in {int((own > 0).sum())} of 8"
    assert found == Evidence("options", option_order.ASKS, pytest.approx(own.mean()), pytest.approx(paired_p_value(own)),
                             8, told, (), option_order.LIMITS)  # fmt: skip
    beyond = asyncio.run(option_evidence(Lettered(), tasks, reference=Lettered(salt=1), orders=3, seed=6))
    left = own - other
    assert beyond == Evidence(
        "options", option_order.ASKS, pytest.approx(left.mean()), pytest.approx(paired_p_value(left)), 8,
        f"{told}; beyond the reference model {left.mean():+.2f}", (), option_order.LIMITS,
    )  # fmt: skip
    even = asyncio.run(option_evidence(Known(lambda text: 1.0), tasks))
    assert even.detail == "the file's order is +0.00 nats more probable than others, in 0 of 8" and even.p_value == 1.0
    few = asyncio.run(option_evidence(Lettered(), [*tasks[:7], Task("same", "Q?", ("b", "a", "b"))]))
    assert few.detail.startswith("not run: 7 questions have three options")
    assert (few.p_value, few.n, few.limits) == (None, 0, option_order.LIMITS) and not few.ran


def test_the_file_s_order_of_items_is_set_against_orders_drawn_for_each_shard() -> None:
    tasks, model = [Task(f"t{i}", f"item {(i * 7 + 5) % 18:02}") for i in range(18)], Lettered(context=26)

    def total(texts: Sequence[str]) -> float:
        joined = "\n\n\n\n\n\n".join(texts)  # a line feed is three tokens: 13 for each item with those before it
        return sum(drawn(joined[: at + 1]) for at in range(1, len(joined)))

    gains = []
    for number in range(6):
        group = [f"item {((number * 3 + i) * 7 + 5) % 18:02}" for i in range(2)]  # the third does not fit
        rng, others = Random(derive_seed("order", 5, number)), []
        for _ in range(4):
            shuffled = list(group)
            while shuffled == group:
                rng.shuffle(shuffled)
            others.append(total(shuffled))
        gains.append(total(group) - sum(others) / 4)
    found = asyncio.run(order_evidence(model, tasks, shards=6, permutations=4, seed=5))
    told = f"the file's order is {np.mean(gains):+.2f} nats more probable than 4 others, over 6 shards, "
    told += f"{sum(gain > 0 for gain in gains)} of them above 0"
    assert found == Evidence("order", order_test.ASKS, pytest.approx(np.mean(gains)),
                             pytest.approx(paired_p_value(np.array(gains))), 12, told, (), order_test.LIMITS)  # fmt: skip

    even = asyncio.run(order_evidence(Known(lambda text: -1.0), tasks, shards=6, permutations=2))
    told = "the file's order is +0.00 nats more probable than 2 others, over 6 shards, 0 of them above 0"
    assert (even.detail, even.p_value, even.n) == (told, 1.0, 18)


def test_a_scan_counts_each_item_s_grams_once_and_names_the_file_with_most(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(20)]
    (tmp_path / "a.txt").write_text(" ".join(words[:14]) + "\n" + " ".join(words[:14]))
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "W0, w1! " + " ".join(words[2:15])}) + "\n")
    (tmp_path / "c.txt").write_text("nothing of it")
    items = [Task("long", " ".join(words)), Task("short", " ".join(words[12:20])), Task("eight", " ".join(words[3:11]))]
    size = 2 * len(" ".join(words[:14])) + 1 + len("W0, w1! " + " ".join(words[2:15])) + 13
    assert scan_corpus(items, tmp_path) == (
        [FoundItem("long", 3, 8, str(tmp_path / "b.jsonl")), FoundItem("eight", 1, 1, str(tmp_path / "a.txt"))],
        [], size, [],
    )  # fmt: skip
    assert scan_corpus(items[1:], tmp_path)[0] == [FoundItem("eight", 1, 1, str(tmp_path / "a.txt"))]
    assert scan_corpus([Task("few", "one two")], tmp_path) == ([], ["few"], size, [])
    assert scan_corpus(items[:1], tmp_path / "c.txt") == ([], [], 13, [])
    index = CorpusIndex.build(tmp_path, tmp_path / "index")
    assert index.look_up([*items, Task("few", "one two")]) == (
        [FoundItem("long", 3, 8), FoundItem("eight", 1, 1)], ["few"],
    )  # fmt: skip
    told = overlap_evidence([*items[:1], Task("few", "x")], index=tmp_path / "index")
    assert (told.statistic, told.n, told.flagged, told.p_value) == (0.0, 1, (), None)
    assert told.detail.endswith("are found too); 1 item with fewer n-grams than count; 1 item too short to compare")
    assert overlap_evidence(items[2:], index=tmp_path / "index").statistic == 1.0


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    CorpusIndex.build(tmp_path / "a.txt", tmp_path / "index")
    about = tmp_path / "index" / "index.json"
    opened = CorpusIndex(tmp_path / "index")
    assert (opened.grams, opened.source, opened.read, opened.bits.shape) == (0, str(tmp_path / "a.txt"), 1, (1024,))
    whole = json.loads(about.read_text())
    for text in ("{", "[]", *(json.dumps({k: v for k, v in whole.items() if k != name}) for name in whole)):
        about.write_text(text)
        with pytest.raises(DataError) as refused:
            CorpusIndex(tmp_path / "index")
        said = str(refused.value)
        assert said.startswith(f"{tmp_path / 'index'} is no index of a corpus, or is damaged: ") and said.endswith(
            "; build it again"
        )
    about.write_text(json.dumps(whole))
    (tmp_path / "index" / "bits.npy").unlink()
    with pytest.raises(DataError, match="is no index of a corpus, or is damaged"):
        CorpusIndex(tmp_path / "index")


def test_lines_are_documents_up_to_exactly_the_limit() -> None:
    path = Path("c.jsonl")

    def said(text: bytes, most: int = 99) -> str:
        with pytest.raises(DataError) as refused:
            list(_of_lines(io.BytesIO(text), path, most))
        return str(refused.value)

    assert list(_of_lines(io.BytesIO(b'"abc"\n"de"'), path, 6)) == [b"abc", b"de"]
    assert said(b' \n"abcd"\n', 6) == "c.jsonl, line 2: longer than 6 bytes: one document a line was expected"
    assert said(b'"x"' * 800, 1200) == "c.jsonl, line 1: longer than 1,200 bytes: one document a line was expected"
    assert said(b'"a"\n\n[1]') == "c.jsonl, line 3: [1]: an object with a text, or a text, was expected".replace(
        "[1]", "'[1]'"
    )
    assert said(b"{} x") == "c.jsonl, line 1: not JSON: is the file cut short?" == said(b"[" * 3 + b"\n", 99)
    row = {"b": "no", **{name: name.upper() for name in reversed(FIELDS)}, "text": 5}
    assert list(_of_lines(io.BytesIO(json.dumps(row).encode() + b"\n{}\n"), path)) == [
        b"CONTENT\nPROMPT\nCOMPLETION\nQUESTION\nANSWER\nno", b"",
    ]  # fmt: skip


def test_a_number_keeps_its_digits_and_leading_zero() -> None:
    words = TwinWords({2: ("10", "11", "12", "13"), 1: ("4", "5", "6", "7", "8")}, frozenset())
    rng, again = Random(3), Random(3)
    assert words.number("99", rng) == again.choice(["10", "11", "12", "13"]), "four are enough"
    made = again.choice("123456789") + again.choice("0123456789")
    assert words.number("12", rng) == made, "three others are too few"
    assert words.number("007", rng) == "0" + again.choice("0123456789") + again.choice("0123456789")
    assert words.number("4", rng) == again.choice(["5", "6", "7", "8"])
    assert TwinWords({}, frozenset()).number("0", rng) == again.choice("123456789")
    tasks = [Task("a", "x 1", secret={"answer": "23"}), Task("b", "none"), Task("c", "Monday 456")]
    own = TwinWords.of(["x 1\n23", "none", "Monday 456"])
    assert twins_of(tasks, 8) == {
        id: twin_text(text, own, Random(derive_seed("twin", 8, id)))
        for id, text in (("a", "x 1\n23"), ("c", "Monday 456"))
    }


def test_evidence_is_json_whatever_its_statistic_is() -> None:
    rest = {
        "test": "t",
        "asks": "?",
        "p_value": 0.5,
        "n": 2,
        "detail": "d",
        "flagged": ["x", "y"],
        "limits": "l",
        "unread": [],
        "short": 0,
    }
    for statistic, told in (
        (math.inf, None), (-math.inf, None), (math.nan, None), (0.0, 0.0), (-1.5, -1.5), (1e308, 1e308), (3, 3),
    ):  # fmt: skip
        made = Evidence("t", "?", statistic, 0.5, 2, "d", ("x", "y"), "l").to_json()
        assert made == {**rest, "statistic": told}
        assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert Evidence("t", "?").to_json() == {
        "test": "t", "asks": "?", "statistic": None, "p_value": None, "n": 0, "detail": "", "flagged": [], "limits": "",
        "unread": [],
        "short": 0,
    }  # fmt: skip
    ran = [Evidence("t", "?"), Evidence("t", "?", math.inf), Evidence("t", "?", n=1), Evidence("t", "?", p_value=0.0)]
    assert [each.ran for each in ran] == [False, False, True, True]
