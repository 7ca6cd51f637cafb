"""Tasks of long texts: RULER's samples, needles, moved documents and keys, drawn by hand from the same seeds."""

from __future__ import annotations

import json
import math
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import ruler
from firsthand.benchmarks.long_context import ruler_counting, ruler_needles, ruler_qa, ruler_sample
from firsthand.benchmarks.long_context.haystack import NOISE, Essays
from firsthand.benchmarks.long_context.ruler_needles import NeedleTask
from firsthand.benchmarks.long_context.ruler_qa import QuestionSet, SetQuestion
from firsthand.benchmarks.long_context.ruler_sample import CWE, FWE, QA, VT, RulerSample, SampleKey
from firsthand.errors import ConfigError, DataError, MissingExtra
from firsthand.loop.concurrency import derive_seed

WORDS = {"noun": ["tree", "lake", "", " hill "], "adjective": ["red", "wet"], "verb": ["run", "tree"]}
KEY = SampleKey("vt", 900, 2)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package wonderwords with a few words, in place of the one that may be installed."""
    assets = tmp_path / "site" / "wonderwords" / "assets"
    assets.mkdir(parents=True)
    (assets.parent / "__init__.py").write_text("")
    for name, each in WORDS.items():
        (assets / f"{name}list.txt").write_text("\n".join(each) + "\n")
    kept = [ruler_sample.word_list, ruler_counting._wonderwords, ruler_counting._english]
    monkeypatch.delitem(sys.modules, "wonderwords", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for each in kept:
        each.cache_clear()
    yield assets
    for each in kept:
        each.cache_clear()


def test_words_come_from_the_package_and_beyond_it_from_a_file(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ruler_sample.word_list("noun") == ("tree", "lake", "hill")
    pool = ("hill", "lake", "red", "run", "tree", "wet")
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "none"))
    assert ruler_counting.word_pool(6) == ruler_counting.word_pool(1) == pool
    told = (
        "cwe needs 1,007 different words at this length, and wonderwords has 6: give data=FOLDER with "
        "english_words.json of "
        "NVIDIA/RULER, or shorter lengths"
    )
    assert refused(DataError, ruler_counting.word_pool, 1007) == told
    path = tmp_path / "longctx" / "english_words.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"1": "a", "2": "b", "3": "a", "4": 5, "5": "c", "6": "d", "7": "e", "8": "f"}))
    assert ruler_counting.word_pool(7, str(tmp_path)) == ("a", "b", "5", "c", "d", "e", "f")
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert len(ruler_counting.word_pool(7)) == 7 and ruler_counting.word_pool(6) == pool
    told = f"{path} holds 7 words, and cwe needs 8 at this length: give shorter lengths"
    assert refused(DataError, ruler_counting.word_pool, 8) == told
    other = tmp_path / "other" / "english_words.json"
    other.parent.mkdir()
    for text in ("[1]", "{"):
        other.write_text(text)
        told = f"{other} is not a JSON object of words: fetch it from NVIDIA/RULER again"
        assert refused(DataError, ruler_counting.word_pool, 7, str(other.parent)) == told
    (words / "verblist.txt").unlink()
    ruler_sample.word_list.cache_clear()
    told = refused(MissingExtra, ruler_sample.word_list, "verb")
    assert (
        "wonderwords" in told and "longctx" in told and "RULER, which takes its keys and common words from it" in told
    )


def test_keys_and_values_are_drawn_by_their_kind(words: Path) -> None:
    rng = Random(4)
    number, bits = str(rng.randint(1_000_000, 9_999_999)), rng.getrandbits(128)
    word = f"{rng.choice(['red', 'wet'])}-{rng.choice(['tree', 'lake', 'hill'])}"
    rng = Random(4)
    found = [ruler_needles._draw(kind, rng) for kind in ("numbers", "uuids", "words")]
    assert found == [number, str(UUID(int=bits, version=4)), word]
    assert ruler_needles._singular("Some are all answers; they are answers") == "A is answer; they is answer"


def needle(kind: str, key: str, value: str) -> str:
    return f"One of the special magic {kind} for {key} is: {value}."


def test_several_needles_hide_in_noise_and_some_keys_are_asked_for() -> None:
    kind = NeedleTask("noise", keys="numbers", num_keys=4, num_values=2, num_queries=3)
    made = ruler_needles.needle_generator(kind, "<{task}>", None)
    assert (made.tokens, made.unit, made.least, made.match, made.category) == (
        128, "sentences of noise", 8, "all", "retrieval",
    )  # fmt: skip
    rng = Random(9)
    keys = [str(rng.randint(10**6, 10**7 - 1)) for _ in range(4)]
    values = [[str(rng.randint(10**6, 10**7 - 1)) for _ in range(2)] for _ in keys]
    hidden = [needle("numbers", key, value) for key, both in zip(keys, values, strict=True) for value in both]
    rng.shuffle(hidden)
    places = dict(zip(sorted(rng.sample(range(11), 8), reverse=True), hidden, strict=True))
    lines = [line for at in range(11) for line in (*([places[at]] if at in places else []), NOISE)]
    one, two, three = rng.sample(range(4), 3)
    query = f"{keys[one]}, {keys[two]}, and {keys[three]}"
    assert made.make(11, Random(9), KEY) == RulerSample(
        "<Some special magic numbers are hidden within the following text. Make sure to memorize it. I will quiz "
        "you about "
        "the numbers afterwards.\n"
        + "\n".join(lines)
        + f"\nWhat are all the special magic numbers for {query} mentioned in "
        "the provided text?>",
        f" The special magic numbers for {query} mentioned in the provided text are",
        (*values[one], *values[two], *values[three]),
        None,
    )


def test_one_needle_among_others_is_asked_for_in_the_singular_with_its_depth() -> None:
    kind = NeedleTask("needle", keys="uuids", values="uuids")
    made = ruler_needles.needle_generator(kind, "{task}", None)
    assert (made.unit, made.least) == ("other needles", 1)
    rng = Random(2)

    def drawn() -> str:
        return str(UUID(int=rng.getrandbits(128), version=4))

    key, value = drawn(), drawn()
    rng.shuffle([0])
    lines = [needle("uuids", drawn(), drawn()) for _ in range(6)]
    at = rng.sample(range(6), 1)[0]
    lines.insert(at, needle("uuids", key, value))
    context = "\n".join(lines)
    depth = 10 * round(10 * context.index(needle("uuids", key, value)) / len(context))
    found = made.make(6, Random(2), KEY)
    assert found == RulerSample(
        "A special magic uuid is hidden within the following text. Make sure to memorize it. I will quiz you "
        "about the uuid "
        f"afterwards.\n{context}\nWhat is the special magic uuid for {key} mentioned in the provided text?",
        f" The special magic uuid for {key} mentioned in the provided text is",
        (value,),
        depth,
    )
    assert found.text == found.input + found.prefix and 0 < depth < 100


def test_several_needles_stand_in_an_essay_whose_every_sentence_comes_once_in_order() -> None:
    parts = [f"s{number}" for number in range(50)]
    hidden = ["ONE", "TWO", "THREE", "FOUR"]
    drawn = Random(0).sample(ruler_needles.DEPTHS, 4)
    assert drawn != sorted(drawn)
    expected = list(parts)
    for needle, depth in reversed([*zip(hidden, sorted(drawn), strict=True)]):
        expected.insert(50 * depth // 100, needle)
    assert ruler_needles._among(parts, hidden, Random(0)) == " ".join(expected)
    assert [each for each in expected if each in parts] == parts


def test_needles_stand_between_the_sentences_of_essays_at_their_depths() -> None:
    parts = [f"s{number}" for number in range(50)]
    depths = sorted(Random(1).sample(ruler_needles.DEPTHS, 2))
    low, high = (int(50 * depth / 100) for depth in depths)
    expected = [*parts[:low], "ONE", *parts[low:high], "TWO", *parts[high:]]
    assert ruler_needles._among(parts, ["ONE", "TWO"], Random(1)) == " ".join(expected)
    assert 0 < low < high and ruler_needles.DEPTHS[:4] == (0, 3, 5, 8) and ruler_needles.DEPTHS[-2:] == (97, 100)
    essays = Essays(tuple(f"Word{number}." for number in range(100)), "o", "5")
    made = ruler_needles.needle_generator(NeedleTask(keys="numbers"), "{task}", lambda: essays)
    assert made.unit == "words of the essays" and "Word11." in made.make(12, Random(0), KEY).input
    assert "Word12." not in made.make(12, Random(0), KEY).input and "Word0. " in made.make(101, Random(0), KEY).input
    noise = ruler_needles.needle_generator(NeedleTask(keys="numbers"), "{task}", None)
    assert noise.unit == "sentences of noise" and noise.make(2, Random(0), KEY).input.count(NOISE) == 2


def test_a_chain_of_variables_lies_in_order_in_the_noise() -> None:
    rng, names = Random(3), list[str]()
    while len(names) < 5:
        name = "".join(rng.choices(string.ascii_uppercase, k=1))
        names += [name] if name not in names else []
    steps = [f"VAR {names[0]} = 777", *(f"VAR {names[at]} = VAR {names[at - 1]} " for at in range(1, 5))]
    places = dict(zip(sorted(rng.sample(range(7), 5)), steps, strict=True))
    lines = [line for at in range(7) for line in (*([places[at]] if at in places else []), NOISE)]
    asked = (
        (VT.task + VT.prefix).replace("{context}", "\n".join(lines)).replace("{query}", "777").replace("{num_v}", "5")
    )
    assert ruler_counting._chain(7, Random(3), 1, "777") == (asked, names)
    made = ruler_counting.variable_tracking("[{task}]", lambda text: len(text) // 5)
    assert (made.tokens, made.unit, made.least, made.category, made.match) == (
        30, "sentences of noise", 5, "multi-hop tracing", "all",
    )  # fmt: skip
    fits = [size for size in range(5, 40) if len(ruler_counting._chain(size, Random(0), 3, "12345")[0]) // 5 <= 500]
    rng = Random(8)
    shown, shown_names = ruler_counting._chain(fits[-1], rng, 3, str(rng.randrange(10_000, 99_999)))
    value = str(rng.randrange(10_000, 99_999))
    text, names = ruler_counting._chain(6, rng, 5, value)
    prefix = VT.prefix.replace("{query}", value).replace("{num_v}", "5")
    example = f"{shown} {' '.join(shown_names)}\n"
    assert made.make(6, Random(8), KEY) == RulerSample(
        f"[{example}\n{text.removesuffix(prefix)}]", prefix, tuple(names)
    )
    assert {len(name) for name in names} == {5} and {len(name) for name in shown_names} == {3}


def test_common_words_are_listed_more_often_from_4096_tokens_on(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {str(number): f"w{number}" for number in range(60)}
    (tmp_path / "english_words.json").write_text(json.dumps(body))
    made = ruler_counting.common_words("({task})", str(tmp_path))
    assert (made.tokens, made.unit, made.least, made.category) == (120, "different words", 20, "aggregation")

    def listed(size: int, often: int, seldom: int, rng: Random) -> tuple[str, list[str]]:
        drawn = rng.sample([*body.values()], size)
        every = drawn[:10] * often + drawn[10:] * seldom
        rng.shuffle(every)
        return " ".join(f"{number}. {word}" for number, word in enumerate(every, 1)), drawn[:10]

    for length, (example, first, second), (often, seldom) in (
        (4095, (20, 3, 1), (6, 1)), (4096, (40, 10, 3), (30, 3)),
    ):  # fmt: skip
        rng = Random(5)
        shown, common = listed(example, first, second, rng)
        numbered = " ".join(f"{number}. {word}" for number, word in enumerate(common, 1))
        text, answers = listed(25, often, seldom, rng)
        assert made.make(25, Random(5), SampleKey("cwe", length, 0)) == RulerSample(
            f"({CWE.task.replace('{context}', shown)}){CWE.prefix} {numbered}\n({CWE.task.replace('{context}', text)})",
            CWE.prefix,
            tuple(answers),
        )


def test_coded_words_come_as_often_as_their_rank_allows() -> None:
    made = ruler_counting.frequent_words("{task}!")
    assert (made.tokens, made.unit, made.least, made.category) == (50, "coded words", 50, "aggregation")
    rng, codes = Random(6), set[str]()
    while len(codes) < 5:
        codes.add("".join(rng.choices(string.ascii_lowercase, k=6)))
    ranked = sorted(codes)
    rng.shuffle(ranked)
    ranked[0] = "..."
    every = [word for rank, word in enumerate(ranked, 1) for _ in range(int(200 / rank**2 / (math.pi**2 / 6)))]
    rng.shuffle(every)
    assert made.make(200, Random(6), SampleKey("fwe", 349, 0)) == RulerSample(
        FWE.task.replace("{context}", " ".join(every)) + "!", FWE.prefix, tuple(ranked[1:4])
    )
    assert [every.count(word) for word in ranked] == [121, 30, 13, 7, 4]


SET = QuestionSet(
    (SetQuestion("Q0", ("a0",), (0,), (1, 2)), SetQuestion("Q1", ("a1", "b1"), (3, 4))),
    ("d0", "d1", "d2", "d3", "d4", "d5", "d6"),
    "Set",
)


def test_a_question_stands_among_its_own_documents_first() -> None:
    made = ruler_qa.qa(SET, "{task};")
    assert (made.tokens, made.unit, made.least, made.match, made.category) == (
        32, "documents", 1, "part", "question answering",
    )  # fmt: skip

    def sample(number: int, chosen: list[int], rng: Random, query: str) -> str:
        rng.shuffle(chosen)
        shown = "\n\n".join(f"Document {at}:\nd{each}" for at, each in enumerate(chosen, 1))
        return QA.task.replace("{context}", shown).replace("{query}", query) + ";"

    for size, others in ((1, 0), (2, 1), (3, 2), (4, 3), (6, 5)):
        rng = Random(7)
        own, more = [0, 1, 2], [3, 4, 5, 6]
        chosen = [0, *rng.sample((1, 2), others)] if others <= 2 else own + rng.sample(more, others - 2)
        expected = RulerSample(sample(0, chosen, rng, "Q0"), QA.prefix, ("a0",), cluster="document 0")
        assert made.make(size, Random(7), SampleKey("qa_1", 900, 0)) == expected
    for size in (7, 9):
        rng = Random(7)
        expected = RulerSample(sample(1, [at % 7 for at in range(size)], rng, "Q1"), QA.prefix, ("a1", "b1"))
        assert made.make(size, Random(7), SampleKey("qa_1", 900, 1)) == expected
    rng = Random(7)
    expected = RulerSample(sample(1, [3, 4, *rng.sample([0, 1, 2, 5, 6], 1)], rng, "Q1"), QA.prefix, ("a1", "b1"))
    assert made.make(3, Random(7), SampleKey("qa_1", 900, 1)) == expected
    few = made.make(1, Random(7), SampleKey("qa_1", 900, 1))
    assert few.input.count("Document") == 2 and few.depth is None
    told = "Set has 2 questions: give samples=2"
    assert refused(DataError, made.make, 3, Random(0), SampleKey("qa_1", 900, 2)) == told


def test_question_sets_number_their_documents_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(title: str, context: str, *answers: str) -> dict[str, Any]:
        return {"title": title, "context": context, "question": f"{title}, {context}?", "answers": list(answers)}

    rows = [
        answered("T", "c", "1", "2"),
        answered("U", "a", "3"),
        answered("T", "b"),
        answered("T", "d", "4"),
        answered("T", "c", "5"),
    ]
    found = ruler_qa._squad_rows(rows, "f.json")
    assert found == QuestionSet(
        (
            SetQuestion("T, c?", ("1", "2"), (2,), (1, 3)), SetQuestion("U, a?", ("3",), (0,)),
            SetQuestion("T, d?", ("4",), (3,), (2, 1)), SetQuestion("T, c?", ("5",), (2,), (1, 3)),
        ),
        ("a", "b", "c", "d"),
        "SQuAD 2.0 (f.json), 4 questions",
    )  # fmt: skip
    path = written(tmp_path / "longctx" / "squad_v2_validation.jsonl", *rows)
    assert ruler_qa.read_question_set("qa_1", str(tmp_path)) == QuestionSet(
        found.questions, found.documents, "SQuAD 2.0 (squad_v2_validation.jsonl), 4 questions"
    )
    qas = [
        {"question": "q1", "answers": [{"text": "x"}, {"text": "y"}]},
        {"question": "q2", "is_impossible": True, "answers": [{"text": "z"}]},
        {"question": "q3", "is_impossible": False, "answers": []},
    ]
    nested = {"data": [{"title": "T", "paragraphs": [{"context": "c", "qas": qas}, {"context": "b", "qas": []}]}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(nested))
    assert ruler_qa.read_question_set("qa_1", str(tmp_path)) == QuestionSet(
        (SetQuestion("q1", ("x", "y"), (0,)),), ("c",), "SQuAD 2.0 (dev-v2.0.json), 1 questions"
    )
    hotpot = [
        {"question": "h1", "answer": 7, "context": [["B", ["one. ", "two."]], ["A", ["x"]]]},
        {"question": "h2", "answer": "w", "context": [["A", ["x"]], ["C", []]]},
    ]
    (tmp_path / "longctx" / "hotpotqa.json").write_text(json.dumps(hotpot))
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert ruler_qa.read_question_set("qa_2", "") == QuestionSet(
        (SetQuestion("h1", ("7",), (1, 0)), SetQuestion("h2", ("w",), (0, 2))),
        ("A\nx", "B\none. two.", "C\n"),
        "HotpotQA, distractor (hotpotqa.json), 2 questions",
    )
    assert refused(DataError, ruler_qa.read_question_set, "qa_2", str(path.parent.parent / "x")) == (
        f"qa_2 of RULER needs the paragraphs of its set, and {str(tmp_path / 'x')!r} has neither hotpotqa.json nor "
        "hotpot_dev_distractor_v1.json: put the file there (http://curtis.ml.cmu.edu/datasets/hotpot/"
        "hotpot_dev_distractor_v1.json), give data=hub to fetch hotpotqa/hotpot_qa, or leave qa out with "
        "tasks=generated"
    )
    assert refused(DataError, ruler_qa._squad_rows, [answered("T", "c")], "f") == (
        "SQuAD 2.0 (f) has no answerable question: is it the right file?"
    )
    assert refused(DataError, ruler_qa._squad_rows, [{"title": "T"}], "f") == (
        "f: KeyError('context'): title, context, question and answers were expected in each row"
    )


def test_ruler_says_its_tasks_lengths_and_counter() -> None:
    made = ruler.ruler(protocol="base-noise", tasks="fwe, vt", lengths="2k,1k", samples=3, count="words*2")
    protocol = ruler.PROTOCOLS["base-noise"].describe()
    assert facts(made) == said(
        "ruler@base-noise", "string_match",
        "Generated tasks that measure the effective context length (Hsieh et al., 2024).",
        "2 tasks, 3 samples each, lengths 1024, 2048 in estimated as words x 2; noise; generated from the seed; " + protocol,
        "generated; needles in essays (c) Paul Graham; SQuAD and HotpotQA CC BY-SA 4.0",
        options={
            "tasks": "fwe, vt", "lengths": "2k,1k", "samples": 3, "count": "estimated as words x 2",
            "protocol": "base-noise",
        },
    )  # fmt: skip
    tasks = made.tasks(4)
    assert len(tasks) == 12
    generator = ruler_counting.frequent_words("{task}")
    sizes = ruler.SampleSizes({"fwe": generator}, ruler.meter("words*2"), 4)
    draw = SampleKey("fwe", 1024, 1)
    sample, tokens = sizes.sample(draw)
    assert sample == generator.make(sizes.find("fwe", 1024), Random(derive_seed("ruler", 4, "fwe", 1024, 1)), draw)
    assert tokens == ruler.meter("words*2").measure(sample.text) + 50 <= 1024
    about = {"group": "fwe", "stratum": "fwe 1024", "length": 1024, "tokens": tokens, "category": "aggregation"}
    assert bodies([tasks[4]]) == [
        {
            "id": "fwe-1024-001", "prompt": sample.input, "context": sample.text, "verbatim": True,
            "sampling": {"stop": (), "max_tokens": 50, "temperature": 0.0}, "metadata": about,
            "secret": {"answers": list(sample.answers), "match": "all"},
        }
    ]  # fmt: skip
    for samples in (0, 10_001):
        told = f"samples is {samples}: give 1 to 10,000; RULER has 500"
        assert refused(ConfigError, ruler.ruler, samples=samples) == told
    assert ruler.parse_tasks(" qa_1 ,vt,niah_single_2") == ("niah_single_2", "vt", "qa_1")
    assert ruler.parse_tasks("qa,cwe") == ("cwe", "qa_1", "qa_2") and ruler.parse_tasks("generated,qa") == ruler.TASKS
    sized = refused(
        ConfigError,
        ruler.ruler(protocol="base-noise", tasks="vt", lengths="64", count="words").tasks(0)[0:1].__getitem__,
        0,
    )
    assert sized.startswith("vt does not fit 64 tokens: its shortest text has ") and sized.endswith(
        ", generated ones included; give longer lengths, or leave the task out with tasks=..."
    )
