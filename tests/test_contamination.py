"""Contamination: n-gram overlap, twins, token evidence, canaries, options, and planted leaks that are caught or cleared."""

import asyncio
import gzip
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.contamination.canary_rank import canary_evidence
from firsthand.contamination.completion_overlap import completion_evidence, halves, rouge_l_recall
from firsthand.contamination.contamination_tests import contamination
from firsthand.contamination.corpus_texts import OVERLAP_BYTES, PIECE_BYTES, _of_lines
from firsthand.contamination.leak_evidence import Evidence, paired_p_value, report
from firsthand.contamination.ngram_overlap import CorpusIndex, hashes_of, overlap_evidence, scan_corpus
from firsthand.contamination.option_order import natural_order, option_evidence
from firsthand.contamination.order_test import order_evidence
from firsthand.contamination.text_twins import TwinWords, task_text, twin_text, twins_of
from firsthand.contamination.token_evidence import min_k, min_k_evidence, standardised
from firsthand.errors import ConfigError, DataError
from firsthand.message import assistant
from firsthand.model import Completion, Likelihood, Sampling, Scored, TokenRating, Usage
from firsthand.task import Task


class Reciter:
    """A model that knows some texts by heart: their words are probable, all others are not. A token is a character."""

    name = "reciter"
    fingerprint = "reciter"
    is_alive = True

    def __init__(self, *known: str):
        self.known = known

    def _logprob(self, before: str, char: str) -> float:
        tail = before[-12:]
        return -0.1 if any(tail + char in text for text in self.known) else -4.0

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Scored:
        found = []
        for text in continuations:
            total = sum(self._logprob(str(prompt) + text[:i], char) for i, char in enumerate(text))
            found.append(Likelihood(text, total, len(text), False))
        return Scored(tuple(found), Usage())

    async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> list[Completion]:
        text = next((each.split(prompt, 1)[1] for each in self.known if prompt in each), "no idea at all")
        return [Completion(assistant(text[: sampling.max_tokens]), "stop", Usage())]

    async def load(self) -> Any:
        from firsthand.model import ModelFacts

        return ModelFacts(4096, 256, None, False)

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        return [ord(char) for char in prompt]

    async def rate(self, ids: Sequence[int], top: int = 0, **_: Any) -> list[TokenRating]:
        text = "".join(map(chr, ids))
        return [TokenRating(ids[i], self._logprob(text[:i], text[i])) for i in range(1, len(ids))]

    def stream_many(self, *_: Any, **__: Any) -> Any: ...
    async def detokenize(self, ids: Any) -> str: ...  # type: ignore[empty-body]
    def spell(self, ids: Any) -> Any: ...
    async def counters(self) -> Any: ...
    def stream(self, *_: Any, **__: Any) -> Any: ...


def questions(count: int, seed: int = 0) -> list[Task]:
    rng = Random(seed)
    made = []
    for i in range(count):
        options = rng.sample(["red", "green", "blue", "black"], 4)
        made.append(
            Task(f"q{i}", f"{rng.choice(['Ada', 'Ben', 'Emma'])} has {rng.randint(100, 999)} pens", tuple(options))
        )
    return made


ITEM = "the quick brown fox jumps over the lazy dog while seventeen small birds sing loudly in the old oak tree"


# -- n-grams --


def test_hashes_do_not_see_case_or_punctuation():
    one, _ = hashes_of(b"The quick, brown fox!", 3)
    two, _ = hashes_of(b"the\nquick -- BROWN (fox)", 3)
    assert one.tolist() == two.tolist() and len(one) == 2
    assert not set(one.tolist()) & set(hashes_of(b"the quick brown cat", 3)[0].tolist()[1:])


def test_a_rolling_hash_equals_that_of_the_words_alone():
    words = ITEM.split()
    rolled, ends = hashes_of(ITEM.encode(), 4)
    alone = [int(hashes_of(" ".join(words[i : i + 4]).encode(), 4)[0][0]) for i in range(len(words) - 3)]
    assert rolled.tolist() == alone and int(ends[-1]) == len(ITEM)
    assert len(hashes_of(b"only three words", 4)[0]) == 0


def test_an_item_inside_other_text_is_found_with_its_file(tmp_path: Path):
    (tmp_path / "a.txt").write_text("Something else. " * 50 + ITEM.upper() + ". And so on. " * 50)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "nothing of the kind in here at all"}) + "\n")
    tasks = [Task("in", ITEM), Task("out", ITEM.replace("quick", "slow").replace("birds", "cats").replace("lazy", "big")),
             Task("short", "two words")]  # fmt: skip
    found = overlap_evidence(tasks, corpus=tmp_path)
    assert found.flagged == ("in",) and found.n == 2
    assert "a.txt" in found.detail and "1 item too short to compare" in found.detail


def test_items_of_jsonl_and_gzip_are_read(tmp_path: Path):
    escaped = json.dumps({"text": ITEM.replace(" ", "\n")})
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(escaped + "\n")
    assert overlap_evidence([Task("in", ITEM)], corpus=tmp_path).flagged == ("in",)
    (tmp_path / "b.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: not JSON"):
        scan_corpus([Task("in", ITEM)], tmp_path)


def test_lines_of_jsonl_are_bounded_and_each_is_a_document(tmp_path: Path):
    """A .jsonl.gz of a megabyte can be one line of a gigabyte, and a line need be no object."""
    rows = ['{"text": "one"}', "", '"two"', '{"other": 1}', '{"content": "three", "answer": "four"}']
    assert list(_of_lines(io.BytesIO("\n".join(rows).encode()), tmp_path)) == [b"one", b"two", b"", b"three\nfour"]
    assert list(_of_lines(io.BytesIO(b'"four"\n"five"'), tmp_path, 7)) == [b"four", b"five"]
    with pytest.raises(DataError, match="line 2: longer than 7 bytes"):
        list(_of_lines(io.BytesIO(b'"four"\n"sixty"\n'), tmp_path, 7))
    for line in ("[1, 2]", "3", "null"):
        (tmp_path / "c.jsonl").write_text(f"{rows[0]}\n{line}\n")
        with pytest.raises(DataError, match=r"c\.jsonl, line 2: .*an object with a text, or a text, was expected"):
            scan_corpus([Task("in", ITEM)], tmp_path)


@pytest.mark.slow
def test_an_item_across_two_pieces_of_a_file_is_found(tmp_path: Path):
    (tmp_path / "big.txt").write_bytes(b"x " * ((PIECE_BYTES - 60) // 2) + ITEM.encode() + b" y")
    assert overlap_evidence([Task("in", ITEM)], corpus=tmp_path).flagged == ("in",)
    assert len(ITEM) < OVERLAP_BYTES


def test_seven_of_many_grams_are_too_few(tmp_path: Path):
    long = " ".join(f"word{i}" for i in range(60))
    (tmp_path / "a.txt").write_text(" ".join(f"word{i}" for i in range(12 + 7)))
    assert overlap_evidence([Task("t", long)], corpus=tmp_path).flagged == ()
    (tmp_path / "a.txt").write_text(" ".join(f"word{i}" for i in range(12 + 8)))
    assert overlap_evidence([Task("t", long)], corpus=tmp_path).flagged == ("t",)


def test_an_index_finds_what_the_scan_finds(tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rng = Random(1)
    (corpus / "a.txt").write_text(" ".join(f"w{rng.randint(0, 9999)}" for _ in range(30_000)) + " " + ITEM)
    index = CorpusIndex.build(corpus, tmp_path / "index")
    tasks = [
        Task("in", ITEM),
        *(Task(f"o{i}", " ".join(f"v{rng.randint(0, 9999)}" for _ in range(40))) for i in range(200)),
    ]
    assert overlap_evidence(tasks, index=tmp_path / "index").flagged == ("in",)
    found, _ = index.look_up(tasks)
    assert {each.task_id: each.hits for each in found}["in"] == 20 - 12
    assert 0 < index.false_rate < 0.01 and sum(each.hits for each in found) - 8 <= 200 * 28 * 0.01
    with pytest.raises(ConfigError, match="not empty"):
        CorpusIndex.build(corpus, tmp_path / "index")
    (tmp_path / "index" / "bits.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="no index of a corpus"):
        CorpusIndex(tmp_path / "index")


# -- twins --


def test_a_twin_has_other_numbers_and_names_of_the_benchmark():
    tasks = questions(40)
    words = TwinWords.of([task_text(task) for task in tasks])
    for task in tasks:
        twin = twin_text(task_text(task), words, Random(1))
        assert twin is not None and twin != task_text(task) and len(twin.split()) == len(task_text(task).split())
        number = twin.split()[2]
        assert number in words.numbers[3] and number not in task.prompt
    assert twin_text("no digits here", words, Random(0)) is None
    assert twins_of(tasks, 3) == twins_of(tasks, 3) != twins_of(tasks, 4)


def test_the_text_of_an_item_has_one_right_answer_however_its_secret_names_it():
    held = (
        ({"answer": "4"}, "\n4"), ({"solution": "2 and 2", "answers": ["4"]}, "\n2 and 2"),
        ({"answers": ["", "4", "four"]}, "\n4"),
        ({"answers": ["4", "5"], "match": "all"}, "\n4, 5"), ({"answer": ""}, ""), ({"answer": 0}, ""), ({"tests": "x"}, ""),
    )  # fmt: skip
    for secret, told in held:
        assert task_text(Task("t", "2 + 2?", secret=secret)) == f"2 + 2?{told}", secret


def test_a_name_is_replaced_everywhere_and_two_names_stay_two():
    words = TwinWords({}, frozenset())
    twin = twin_text("Ada meets Ben. Ada leaves.", words, Random(2))
    assert twin is not None
    first, second = twin.split()[0], twin.split()[2].strip(".")
    assert (
        twin == f"{first} meets {second}. {first} leaves." and first != second and not {first, second} & {"Ada", "Ben"}
    )


# -- evidence --


def test_min_k_is_the_mean_of_the_lowest_fifth():
    assert min_k(np.array([-5.0, -4.0, *[-1.0] * 8])) == -4.5
    assert min_k(np.array([-3.0, -1.0])) == -3.0


def test_a_standardised_logprob_is_by_mean_and_deviation_of_the_distribution():
    logprobs = np.log(np.array([0.5, 0.25, 0.25]))
    mean = 0.5 * logprobs[0] + 0.5 * logprobs[1]
    deviation = math.sqrt(0.5 * logprobs[0] ** 2 + 0.5 * logprobs[1] ** 2 - mean**2)
    assert standardised(logprobs[0], logprobs) == pytest.approx((logprobs[0] - mean) / deviation)
    assert math.isfinite(standardised(0.0, np.array([0.0, -np.inf])))


def test_one_large_difference_is_no_evidence():
    assert paired_p_value(np.array([50.0, *[-0.1] * 15])) > 0.3
    assert paired_p_value(np.full(12, 0.5)) < 0.001
    assert paired_p_value(np.zeros(12)) == 1.0
    assert paired_p_value(-np.full(12, 0.5)) > 0.99


def test_p_values_of_clean_differences_keep_their_level():
    draw = np.random.default_rng(5)
    rejected = sum(paired_p_value(draw.normal(0, 1, 30)) <= 0.05 for _ in range(400))
    assert rejected <= 32  # 20 expected at most; more than 32 has a probability of 0.4%


def test_the_canary_is_ranked_among_strings_of_its_form():
    canary = "26b5c67b-86ad-4a5e-9c3d-1f2e3d4c5b6a"
    knows, blank = Reciter(f"\n{canary}"), Reciter()
    assert asyncio.run(canary_evidence(knows, canary)).p_value == 1 / 200
    clean = asyncio.run(canary_evidence(blank, canary))
    assert clean.p_value == 1.0 and clean.detail == "rank 200 of 200"
    assert "has no identifier to vary" in asyncio.run(canary_evidence(blank, "Zorro! zoo!")).detail


def test_options_in_the_files_order_betray_a_learned_file():
    tasks = questions(24)
    knows, blank = Reciter(*(task.question for task in tasks)), Reciter()
    caught = asyncio.run(option_evidence(knows, tasks))
    assert caught.p_value is not None and caught.p_value < 1e-4
    assert asyncio.run(option_evidence(blank, tasks)).p_value == 1.0
    even = asyncio.run(option_evidence(knows, tasks, reference=knows))
    assert even.p_value == 1.0


@pytest.mark.parametrize(
    "choices", [("1", "2", "10"), ("30", "20", "10"), ("a", "b", "c"), ("x", "y", "All of the above")]
)
def test_options_with_an_order_of_their_own_are_left_out(choices: tuple[str, ...]):
    assert natural_order(choices) and not natural_order(("10", "2", "30"))


def test_min_k_needs_twins_and_a_model_with_logprobs():
    tasks = questions(20)
    twins = twins_of(tasks, 0)
    knows = Reciter(*(task_text(task) for task in tasks))
    caught = asyncio.run(min_k_evidence(knows, tasks, twins))
    assert caught.p_value is not None and caught.p_value < 1e-3 and caught.statistic > 0
    assert "8 are needed" in asyncio.run(min_k_evidence(knows, tasks[:7], twins)).detail
    assert "whole distributions" in asyncio.run(min_k_evidence(knows, tasks, twins, plus=True)).detail


def test_the_order_of_a_file_betrays_a_learned_file():
    tasks = questions(60)
    whole = "\n\n".join(task_text(task) for task in tasks)
    caught = asyncio.run(order_evidence(Reciter(whole), tasks))
    assert caught.p_value is not None and caught.p_value < 1e-3
    assert asyncio.run(order_evidence(Reciter(*map(task_text, tasks)), tasks[:3])).p_value is None


def test_a_completion_is_compared_with_the_twins():
    tasks = questions(12)
    knows = Reciter(*(task_text(task) for task in tasks))
    found = asyncio.run(completion_evidence(knows, tasks, twins_of(tasks, 0)))
    assert found.p_value is not None and found.p_value < 0.01 and found.flagged
    assert halves("one two three four") == ("one two", " three four")
    assert rouge_l_recall("a b c d", "a x c d") == 0.75 and rouge_l_recall("", "a") == 0.0


# -- the report --


def test_the_verdict_corrects_for_the_number_of_tests():
    two = [Evidence("a", "?", 1.0, 0.03, 10), Evidence("b", "?", 1.0, 0.9, 10)]
    assert report("x", "m", two).verdict == "cleared" and report("x", "m", two[:1]).verdict == "leaked"
    assert report("x", "m", [Evidence("a", "?", 1.0, 0.025, 10), two[1]]).caught == ("a",)
    assert report("x", "m", [Evidence("n-grams", "?", 1.0, None, 4, flagged=("t",))], corpus="c").verdict == "overlap"
    assert report("x", "m", [Evidence("a", "?", detail="not run: ...")]).verdict == "untested"
    assert report("x", "", [Evidence("n-grams", "?", 0.0, None, 4)], corpus="c").verdict == "no overlap"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("arithmetic",), "give --model, or --corpus or --index"),
        (("arithmetic", "--corpus", "a", "--index", "b"), "do not go together"),
        (("arithmetic", "--index", "b", "--build-index", "c"), "build_index needs a corpus"),
        (("arithmetic", "--corpus", "none-here"), "no corpus 'none-here'"),
        (("arithmetic", "--corpus", ".", "--tests", "psychic"), "tests names 'psychic'"),
        (("arithmetic", "--corpus", ".", "--limit", "0"), "limit is 0"),
        (("arithmetic", "--index", "none-here"), "no index of a corpus"),
    ],
)
def test_wrong_words_get_a_sentence(words: tuple[str, ...], message: str, cli: Callable[..., tuple[int, str, str]]):
    code, _, err = cli("contamination", *words)
    assert code != 0 and message in err and "Traceback" not in err


def test_the_command_searches_a_corpus(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]):
    own = tmp_path / "own.py"
    own.write_text(
        "from firsthand.benchmark import Benchmark\nfrom firsthand.task import Task\n"
        f"def own() -> Benchmark:\n    return Benchmark('own', lambda seed: [Task('in', {ITEM!r})], ())\n"
    )
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text(ITEM)
    words = ("contamination", str(own), "--corpus", str(corpus))
    code, out, _ = cli(*words)
    assert code == 3 and "1 of 1 items of own stand in" in out and "Limits:" in out
    code, out, _ = cli(*words, "--build-index", str(tmp_path / "index"), "--json")
    assert code == 3 and json.loads(out)["verdict"] == "overlap"
    (corpus / "a.txt").write_text("nothing")
    assert cli(*words)[0] == 0


# -- planted leaks --


@pytest.mark.slow
def test_a_model_trained_on_the_items_is_caught_and_one_trained_on_others_is_cleared(tmp_path: Path):
    from firsthand.providers.local import open_model
    from planted_leaks import make_items, train_on

    items, others = make_items(32, 1), make_items(32, 2)
    found = {}
    for name, learned in (("leaked", items), ("cleared", others)):
        model = open_model(str(train_on(tmp_path / name, learned, seed=0, steps=90, batch=4)))
        found[name] = asyncio.run(contamination("planted", items, model))
        model.close()
    assert found["leaked"].verdict == "leaked" and {"min-k%", "min-k%++", "options"} <= set(found["leaked"].caught)
    assert found["cleared"].verdict == "cleared" and len(found["cleared"].corrected) == 5
