"""Texts and verdicts of contamination, each rule on a small case: pieces, grams, twins, shards, p-values, words."""

from __future__ import annotations

import asyncio
import gzip
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from firsthand.contamination import corpus_texts
from firsthand.contamination.canary_rank import ASKS, LIMITS, _identifiers, _like, canary_evidence
from firsthand.contamination.corpus_texts import BETWEEN, _joined, corpus_files, pieces
from firsthand.contamination.leak_evidence import ContaminationReport, Evidence, _p, paired_p_value, report
from firsthand.contamination.ngram_overlap import FoundItem, hashes_of, item_grams
from firsthand.contamination.option_order import natural_order
from firsthand.contamination.order_test import _shards
from firsthand.contamination.text_twins import TwinWords, task_text, twin_text
from firsthand.contamination.token_evidence import min_k, standardised
from firsthand.errors import ConfigError, DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.model import ModelFacts
from firsthand.task import Task
from test_leak_figures import Known

# -- texts --


def test_a_file_is_read_in_pieces_by_its_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_texts, "PIECE_BYTES", 5)
    monkeypatch.setattr(corpus_texts, "OVERLAP_BYTES", 3)
    assert list(_joined(iter([b"ab", b"cd", b"e", b"fghij", b"k", b""]))) == [
        b"ab" + BETWEEN + b"cd" + BETWEEN + b"e", b"fghij", b"k" + BETWEEN,
    ]  # fmt: skip
    assert (
        list(_joined(iter([]))) == []
        and list(_joined(iter([b""]))) == [b""]
        and list(_joined(iter([b"12345"]))) == [b"12345"]
    )
    lines = '{"text": "ab"}\n"cde"\n"f"\n'
    written = {"a.txt": b"0123456789ab", "b.md": b"12345", "c": b"", "d.jsonl": lines.encode(), "e.JSONL": b'"x"'}
    for name, raw in written.items():
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"0123456789ab"))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert list(pieces(tmp_path / "a.txt")) == [b"01234", b"23456789", b"789ab"] == list(pieces(tmp_path / "a.txt.gz"))
    assert list(pieces(tmp_path / "b.md")) == [b"12345"] and list(pieces(tmp_path / "c")) == []
    documents = [b"ab" + BETWEEN + b"cde", b"f"]
    assert list(pieces(tmp_path / "d.jsonl")) == documents == list(pieces(tmp_path / "d.jsonl.gz"))
    assert list(pieces(tmp_path / "e.JSONL")) == [b"x"], "the suffix may be in capitals"
    for name, raw in (("cut.gz", gzip.compress(b"x" * 99)[:-9]), ("no.gz", b"plain"), ("bad.jsonl.gz", b"")):
        (tmp_path / name).write_bytes(raw)
    for name in ("cut.gz", "no.gz", "gone.txt"):
        with pytest.raises(DataError) as refused:
            list(pieces(tmp_path / name))
        assert str(refused.value).startswith(f"{tmp_path / name} cannot be read: ")
    for name in ("p.GIF", "q.gguf", "deep/r.safetensors", "deep/s.text"):
        (tmp_path / "kinds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kinds" / name).write_text("x")
    assert corpus_files(tmp_path / "kinds") == [tmp_path / "kinds" / "deep" / "s.text"]
    with pytest.raises(ConfigError) as nothing:
        corpus_files(tmp_path / "kinds" / "p.GIF")
    assert (
        str(nothing.value) == f"{tmp_path / 'kinds' / 'p.GIF'} holds no text: give a folder with text or .jsonl files"
    )


def test_items_have_distinct_grams_of_thirteen_words_or_else_eight() -> None:
    grams, short = item_grams([Task("a", "w " * 20), Task("b", "1 2 3 4 5 6 7", secret={"answer": "8"}),
                               Task("c", "1 2 3 4 5 6 7"), Task("d", "é, B! " * 4 + "x y z v u t"),
                               Task("e", "")])  # fmt: skip
    assert short == ["c", "e"] and {id: (n, len(own)) for id, (n, own) in grams.items()} == {
        "a": (13, 1),
        "b": (8, 1),
        "d": (13, 2),
    }
    assert grams["b"][1].tolist() == hashes_of(b"1 2\n3.4 5 6 7-8", 8)[0].tolist() and list(grams["d"][1]) == sorted(
        grams["d"][1]
    )
    hashes, ends = hashes_of(b" ab  C,d ", 2)
    assert len(hashes) == 2 and ends.tolist() == [6, 8] and hashes.tolist() == hashes_of(b"AB c D", 2)[0].tolist()
    assert [FoundItem("t", hits, grams).flagged for hits, grams in ((8, 17), (7, 15), (7, 14), (0, 1), (1, 2))] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_words_of_twins_are_those_of_all_texts() -> None:
    words = TwinWords.of(["Ada 007 12, 3.5", "Monday apples Ada 12", "Mondays 5"])
    assert words == TwinWords({3: ("007",), 2: ("12",), 1: ("3", "5")}, frozenset({"Ada", "Monday", "apples"}))
    assert TwinWords.of([]) == TwinWords({}, frozenset())
    rng, again = Random(4), Random(4)
    names = {
        name: words.name(name, {"Ada", "Monday", *({"Ben"} if at else ())}, again) for at, name in enumerate(["Ada"])
    }
    digits = [words.number(each, again) for each in ("12", "3")]
    twin = twin_text("Ada 12 and Ada 3", words, rng)
    assert twin == f"{names['Ada']} {digits[0]} and {names['Ada']} {digits[1]}" and names["Ada"] not in (
        "Ada",
        "Monday",
    )
    six = TwinWords({}, frozenset({"Ada", "Ben", "Clara", "Daniel", "Emma", "Frank"}))
    pairs = [str(twin_text("Ada Ben Ada", six, Random(seed))).split() for seed in range(40)]
    assert all(one == again and one != other for one, other, again in pairs), "two names stay two"
    assert twin_text("no such words", words, rng) is None and twin_text("", words, rng) is None
    only = TwinWords({1: ("7",)}, frozenset())
    assert {twin_text("7", only, Random(seed)) for seed in range(60)} == set("12345689"), (
        "a draw of the same number is repeated"
    )
    assert task_text(Task("t", "q", secret={"solution": "", "answer": "a"})) == "q\na"
    assert task_text(Task("t", "q", secret={"solution": ["s"], "answer": "a"})) == "q"


def test_shards_are_runs_of_neighbours() -> None:
    def shards(texts: Sequence[str], most: int, context: int = 99) -> list[list[str]]:
        tasks = [Task(str(at), text) for at, text in enumerate(texts)]

        async def load() -> ModelFacts:
            return ModelFacts(context, 256, None, False)

        rater: Any = Known(abs)  # type: ignore[arg-type]
        rater.load = load
        return asyncio.run(_shards([rater], tasks, most))

    assert shards("abcdefg", 2) == [["a", "b", "c"], ["d", "e", "f"]] and shards("abcde", 9) == [["a", "b"], ["c", "d"]]
    assert shards("abacb", 1) == [["a", "b", "c"]] and shards("a", 3) == shards("", 3) == shards("aa", 1) == []
    assert shards("abcdef", 2, context=6) == [["a", "b"], ["d", "e"]], (
        "each text counts three: its token and two between"
    )
    assert shards("abcdef", 2, context=5) == [] and shards(["a", "bbbb", "c", "d"], 2, context=8) == [["c", "d"]]
    assert len(shards([f"{n}" for n in range(40)], 16)) == 16


# -- figures --


def test_a_canary_is_ranked_among_strings_drawn_from_its_seed() -> None:
    canary, rng = "id aB3d0z-0Fe19a8bc", Random(derive_seed("canary", 3, "id aB3d0z-0Fe19a8bc"))
    others = [_like(canary, _identifiers(canary), rng) for _ in range(5)]
    assert all(one.startswith("id aB3d0z-") and len(one) == len(canary) for one in others)
    start = len("id aB3d0z-")
    model = Known(lambda text: {canary[start:]: -2.0, others[0][start:]: -1.0, others[1][start:]: -2.0}.get(text, -9.0))
    assert asyncio.run(canary_evidence(model, canary, before="my ", others=5, seed=3)) == Evidence(
        "canary", ASKS, 3 / 5, 3 / 6, 6, "rank 3 of 6", limits=LIMITS
    )
    assert model.asked == [("my " + canary[:start], [each[start:] for each in (canary, *others)])]


def test_p_values_are_the_larger_of_the_two_tests() -> None:
    for values in (
        [0.5, 1.5, -0.25, 2.0, 0.75],
        [3.0, -1.0, -1.0, 0.0, -0.5, 0.25],
        [-1.0, -2.0, -4.0],
        [9.0, 0.0, 0.0, 0.1],
        [*[0.01] * 9, -0.3],  # most are above 0, and their mean is not
        [*[0.2] * 7, 0.1, -0.9],
    ):
        found = np.array(values)
        positive, nonzero = sum(each > 0 for each in values), sum(each != 0 for each in values)
        sign = stats.norm.sf((positive - nonzero / 2 - 0.5) / math.sqrt(nonzero / 4))
        mean = stats.ttest_1samp(found, 0, alternative="greater").pvalue
        assert paired_p_value(found) == pytest.approx(max(sign, mean)) and sign != pytest.approx(mean)
        assert paired_p_value(found / 1000) == pytest.approx(max(sign, mean)), "whatever the unit"
    assert paired_p_value(np.array([2.0, 2.0, 2.0, 2.0])) == pytest.approx(stats.norm.sf(1.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paired_p_value(np.array([-1.0])) == pytest.approx(stats.norm.sf(-2.0))
        assert paired_p_value(np.zeros(2)) == paired_p_value(np.zeros(0)) == 1.0
    assert [_p(each) for each in (1.0, 0.00012345, 0.0001, 0.00009)] == ["1", "0.00012", "0.0001", "< 0.0001"]
    logprobs = np.array([-1.0, -6.0, -2.0, -9.0, -3.0, -4.0, -5.0, -7.0, -8.0, -0.5])
    assert (
        min_k(logprobs) == -8.5
        and min_k(logprobs, 0.35) == -8.0
        and min_k(logprobs[:4]) == -9.0
        and min_k(logprobs, 1.0) == -4.55
    )
    chances = np.array([0.5, 0.3, 0.2])
    given = np.log(chances)
    mean = float(chances @ given)
    spread = math.sqrt(float(chances @ (given - mean) ** 2))
    for sure in ([0.0], [0.0, -np.inf, -np.inf]):  # the model is sure of one token: there is no deviation to divide by
        assert standardised(-0.5, np.array(sure)) == pytest.approx(-0.5e6)
    assert standardised(-3.0, np.array([*given, -np.inf])) == pytest.approx((-3.0 - mean) / spread)


def test_options_have_an_order_of_their_own_or_none() -> None:
    own = [("1", "2", "3"), ("3", "2", "1"), ("$1,000", "2%", "$3"), (" b", "B", "a "), ("a", "b", "c"),
           ("x", "none of them", "a"), ("b", "all of the above", "a"), ("c", "Both A and C", "a"),
           ("-1", "0.5", "1e3"), ("x",), ()]  # fmt: skip
    for choices in (own[0], own[1], *own[3:], ("9", "10", "11"), (" 1,000 ", "30%", "$4", "-5")):
        assert natural_order(choices), choices
    for choices in (own[2], ("1", "3", "2"), ("b", "a", "c"), ("9", "10", "x"), ("above", "none", "both")):
        assert not natural_order(choices), choices


def test_a_verdict_is_told_in_words() -> None:
    def told(*evidence: Evidence, **more: Any) -> tuple[str, str]:
        made = report("set", "m", evidence, **more)
        return made.verdict, made.words

    low, high = Evidence("a", "?", 1.0, 0.004, 9), Evidence("b", "?", 1.0, 0.8, 9)
    assert told(low) == (
        "leaked",
        "m behaves as if it had been trained on items of set: a (p 0.004), after correction for 1 test. Its score on this "
        "benchmark is no evidence of what it can do.",
    )
    assert told(high, Evidence("c", "?", 1.0, 0.03, 9)) == (
        "cleared",
        "No test tells m from a model that never saw set (2 tests, 5% chance of a false alarm for all together). A leak "
        "that was seen once in a large corpus, or in other words, would not be found.",
    )
    one, two = (Evidence(f"n{n}", "?", 0.5, None, 7 + n, flagged=tuple("tuv"[: n + 1])) for n in (0, 1))
    assert (
        told(one, two, corpus="here")
        == told(two, one, corpus="here")
        == (
            "overlap",
            "2 of 8 items of set stand in here. A model that was trained on it has seen them; whether it learned them is "
            "another question.",
        )
    )
    recited = Evidence("completion", "?", 0.1, 0.5, 9, flagged=("t", "u", "v"))  # by chance, and not in the corpus
    assert told(recited, one, corpus="here") == (
        "overlap",
        "1 of 7 items of set stand in here. A model that was trained on it has seen them; whether it learned them is "
        "another question.",
    )
    assert told(recited)[0] == "cleared"
    assert told(Evidence("n", "?", 0.0, None, 3), corpus="here") == (
        "no overlap",
        "No item of set stands in here in its own words. Translations, paraphrases and other texts that a model may have "
        "read are not covered.",
    )
    assert told() == ("untested", "No test could be run on set: see the reasons.")
    made = report("set", "m", [low, high, one], alpha=0.5)
    assert (
        made.corrected == {"a": pytest.approx(0.008), "b": pytest.approx(0.8)}
        and made.caught == ("a",)
        and made.alpha == 0.5
    )
    assert report("set", "m", [Evidence("a", "?", 1.0, 0.0, 9)]).corrected == {"a": 0.0}
    bare = ContaminationReport("set", "m", ())
    assert (bare.corpus, bare.corrected, bare.alpha, bare.caught) == ("", {}, 0.05, ())
    assert low.to_json() == {"test": "a", "asks": "?", "statistic": 1.0, "p_value": 0.004, "n": 9, "detail": "",
                             "flagged": [], "limits": "", "unread": [], "short": 0}  # fmt: skip


def test_a_twin_is_tried_eight_times_with_names_in_their_order() -> None:
    class Words:
        """Gives another number in the try `last`, and other names by their place."""

        def __init__(self, last: int, names: str = ""):
            self.last, self.names, self.tries, self.asked = last, names.split(), 0, list[Any]()

        def number(self, old: str, rng: Random, taken: Any) -> str:
            self.tries += 1
            return "95" if self.tries == self.last else old

        def name(self, old: str, taken: Any, rng: Random) -> str:
            self.asked.append((old, sorted(taken)))
            return self.names[len(self.asked) - 1] if self.names else old

    for last, twin, tries in ((1, "so 95", 1), (8, "so 95", 8), (9, None, 8)):
        words: Any = Words(last)
        assert twin_text("so 12", words, Random(0)) == twin and words.tries == tries
    words = Words(0, "Eve Tom Friday")
    assert twin_text("Monday: Ben, Ada, Ben; 7", words, Random(0)) == "Friday: Tom, Eve, Tom; 7"
    present = ["Ada", "Ben", "Monday"]
    assert words.asked == [
        ("Ada", present),
        ("Ben", [*present[:2], "Eve", "Monday"]),
        ("Monday", [*present[:2], "Eve", "Monday", "Tom"]),
    ]
