"""RAG or fine-tuning by hand: scores, agents, changed facts, the figures of arms and the sentences about them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.experiment.rag_decision import (
    ARMS,
    ArmResult,
    FactChange,
    FactQuestion,
    arm_agents,
    changed_index,
    choose_changes,
    cited,
    diagnosis,
    given_document,
    measured,
    question_benchmark,
    training_rows,
)
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Usage
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document
from firsthand.retrieval.rag.short_answer import short_answer
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.scorers.rankings.retrieved import RETRIEVE
from firsthand.stats.intervals import mean_interval
from firsthand.stats.paired import paired_difference
from firsthand.task import Task
from firsthand.trace import Call, Failure, Score, Trace


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    yield
    close_corpora()


def attempt(
    task: str, answer: str | None = "", *, agent: str = "RAG", shown: Sequence[tuple[str, str]] = (), **more: Any
) -> Trace:
    items = [{"document": document, "text": text, "score": 1.0} for document, text in shown]
    read = Call("0:0", "tool", None, 0.0, 0.0, "", detail={"name": RETRIEVE, "items": items})
    calls = (read, *more.pop("calls", ()))
    return Trace(f"{agent} {task}", "b", task, {"name": agent}, 0, 0, "", 0.0, answer=answer, calls=calls, **more)


def test_an_answer_is_cited_if_it_is_right_and_stands_in_what_was_given() -> None:
    task = Task("t", "?", metadata={"documents": ["a", "b"]}, secret={"answer": "Oslo"})
    for answer, shown, is_cited, is_given in (
        ("in Oslo!", [("c", "x"), ("b", "OSLO it is")], 1.0, 1.0),
        ("in Oslo", [("c", "Oslo")], 1.0, 0.0),
        ("in Bergen", [("a", "Oslo")], 0.0, 1.0),
        ("Oslo", [("a", "Oslos")], 0.0, 1.0),
        ("Oslo", [], 0.0, 0.0),
    ):
        trace = attempt("t", answer, shown=shown)
        assert cited(task, trace) == Score("cited", is_cited)
        assert given_document(task, trace) == Score("given_document", is_given)
        assert {type(each(task, trace).value) for each in (cited, given_document)} == {float}
    assert given_document(replace(task, metadata={}), attempt("t", shown=[("a", "")])).value == 0


def test_questions_are_a_benchmark_whose_answers_are_secret() -> None:
    made = question_benchmark([FactQuestion("1", "q?", "Oslo", ("b", "a", "c")), FactQuestion("2", "r?", "24")], "mine")
    first, second = made.tasks(7)
    documents = {"documents": ["b", "a", "c"]}
    assert first == Task("1", "q?", hint="a few words", metadata=documents, secret={"answer": "Oslo"})
    assert [given_document(first, attempt("1", shown=[(each, "x")])).value for each in "abcd"] == [1.0, 1.0, 1.0, 0.0]
    assert (made.description, made.licence) == ("Questions on a user's own documents.", "the user's")
    assert (second.id, second.metadata) == ("2", {"documents": []}) and made.name == "mine"
    assert made.protocol == "2 questions; right is an answer that holds the reference as whole words"
    names = [each.__name__ for each in made.scorers]  # type: ignore[union-attr]
    assert names == ["contains_words", "token_f1", "cited", "given_document"]
    rows = training_rows({"a": "text a", "b": "text b"}, [FactQuestion("1", "q?", "Oslo")])
    assert (
        rows[:2] == [{"text": "text a"}, {"text": "text b"}]
        and rows[2]["completion"] == "Oslo"
        and "q?" in rows[2]["prompt"]
    )


def test_each_arm_has_its_model_and_what_it_is_given() -> None:
    base, tuned = Scripted(["x"]), Scripted(["y"])
    arms = [*ARMS]
    assert arms == ["closed book", "RAG", "long context", "oracle context", "LoRA", "LoRA + RAG"]
    made = arm_agents(arms, base, tuned, Path("i"), k=3, max_chars=9)
    assert [each.name for each in made] == arms and [each.model for each in made] == [base] * 4 + [tuned] * 2
    read = {"index": "i", "k": 3, "max_chars": 9}
    assert [each.options for each in made] == [{}, read, read, read, {}, read]
    for agent, given in zip(made, ("nothing", "retrieved", "all", "oracle", "nothing", "retrieved"), strict=True):
        assert isinstance(agent.pattern, partial)
        assert (agent.pattern.func, agent.pattern.keywords) == (short_answer, {"given": given})
    for arm, said in (
        ("rag", f"no arm 'rag': there are {', '.join(arms)}"),
        ("LoRA", "the arm LoRA needs a fine-tuned model: train one with --lora"),
    ):
        with pytest.raises(ConfigError) as refused:
            arm_agents(["RAG", arm], base, None, Path("i"), k=1, max_chars=1)
        assert str(refused.value) == said


def facts(*answers: str) -> list[FactQuestion]:
    return [FactQuestion(str(at), f"q{at}?", answer, (f"d{at}",)) for at, answer in enumerate(answers)]


def test_a_share_of_the_facts_is_changed_in_a_drawn_order_each_to_the_next_answer() -> None:
    asked = facts(*(f"word{at}" for at in range(7)))
    texts = {f"d{at}": f"It is word{at}." for at in range(7)}
    for share, count in ((1.0, 7), (0.5, 4), (0.35, 2), (0.36, 3), (0.01, 1)):  # 3.5 rounds to 4, 2.45 to 2, 2.52 to 3
        order = list(asked)
        Random(derive_seed("changed facts", 3)).shuffle(order)
        drawn = order[:count]
        ring = [drawn[(at + 1) % count].answer for at in range(count)] if count > 1 else [
            next(each.answer for each in asked if each is not drawn[0])
        ]  # fmt: skip
        assert choose_changes(asked, texts, share, seed=3) == [
            FactChange(each, f"d{each.id}", new) for each, new in zip(drawn, ring, strict=True)
        ]
    assert [each.id for each in asked] == list("0123456"), "the caller's list stays as it is"
    assert choose_changes(tuple(asked), texts, 0.5, seed=3) == choose_changes(asked, texts, 0.5, seed=3)
    assert choose_changes(asked, texts, 0.5, seed=4) != choose_changes(asked, texts, 0.5, seed=3)
    for share in (0, -0.1, 1.01, math.nan):
        with pytest.raises(ConfigError) as refused:
            choose_changes(asked, texts, share, seed=3)
        assert str(refused.value) == f"the share of changed facts is {share}: give a number above 0, up to 1"


def test_only_an_answer_that_stands_word_for_word_in_a_free_document_is_changed_to_one_that_is_not_there() -> None:
    def changed(asked: list[FactQuestion], texts: dict[str, str]) -> dict[str, tuple[str, str]]:
        found = choose_changes(asked, texts, 1.0, seed=0)
        return {each.question.answer: (each.document, each.new) for each in found}

    everywhere = [replace(each, documents=()) for each in facts("Oslo", "Rome")]
    assert changed(everywhere, {"z": "Oslo", "b": "Rome", "a": "Oslo"}) == {
        "Oslo": ("a", "Rome"),
        "Rome": ("b", "Oslo"),
    }
    three = facts("Oslo", "Rome", "Bern")
    assert changed(three, {"d0": "Oslo or Rome", "d1": "Rome", "d2": "bern"}) == {
        "Oslo": ("d0", "Bern"),
        "Rome": ("d1", "Oslo"),
    }, "Rome stands in d0 already, and Bern is written otherwise"
    assert changed(facts("Oslo", "new Oslo", "Rome"), {"d0": "Oslo", "d1": "new Oslo", "d2": "no"}) == {
        "Oslo": ("d0", "Rome"),
        "new Oslo": ("d1", "Rome"),
    }
    shared = [FactQuestion(str(at), "?", word, ("d0", "d2")) for at, word in enumerate(("Oslo", "Rome", "Lima"))]
    found = choose_changes([*shared, *facts("Bern")], {"d0": "Oslo Rome Lima", "d2": "Lima Rome Oslo"}, 1.0, seed=0)
    assert sorted(each.document for each in found) == ["d0", "d2"], "no two changes are of one document"
    for asked, texts in ((facts("Oslo", "oslo"), {"d0": "Oslo"}), (facts("Oslo"), {"d0": "Oslos"}), (facts("x"), {})):
        with pytest.raises(DataError) as refused:
            changed(asked, texts)
        assert str(refused.value) == (
            "no fact can be changed: no answer stands word for word in a document, or all answers are alike; give --change 0"
        )


class Counted:
    """Embeds a text in the direction of its length and a one, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [[len(each) / math.hypot(len(each), 1), 1 / math.hypot(len(each), 1)] for each in texts]


def sentences(document: Document) -> list[Chunk]:
    """A chunk for each sentence."""
    spans = [(each.start(), each.end()) for each in re.finditer(r"[^ .][^.]*[.]", document.text)]
    return [Chunk(document.id, start, end, document.text[start:end]) for start, end in spans]


@pytest.mark.slow
def test_a_changed_index_is_a_copy_in_which_the_facts_are_new(tmp_path: Path) -> None:
    embedder = Counted()
    documents = [Document("d0", "It was cold. It is Oslo. Oslo! Not so."), Document("d1", "It is Rome.")]
    vectors = [[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]
    change = FactChange(facts("Oslo")[0], "d0", "Bern")
    for dimension in (0, 2):
        index, target = tmp_path / f"a{dimension}.sqlite", tmp_path / f"b{dimension}.sqlite"
        opened = open_index(
            index, IndexHeader("tiny" if dimension else "", "f", dimension, "sentences", document_prefix="p: ")
        )
        rows = [np.asarray(each, np.float32) if dimension else None for each in (vectors[:3], vectors[3:])]
        opened.put([IndexedDocument(each, sentences(each), some) for each, some in zip(documents, rows, strict=True)])
        opened.close()
        target.write_bytes(b"old")
        older = [target.with_name(target.name + ending) for ending in ("-wal", ".terms", ".ann", ".graph")]
        for each in older:
            each.write_bytes(b"old")
        asked: Any = embedder if dimension else None
        took = asyncio.run(changed_index(index, target, [change], asked, sentences))
        assert 0 <= took < 30 and not any(each.is_file() and each.read_bytes() == b"old" for each in older)
        for path, text in ((index, documents[0].text), (target, "It was cold. It is Bern. Bern! Not so.")):
            opened = open_index(path)
            assert opened.document("d0").text == text and opened.document("d1").text == "It is Rome."
            assert opened.verify() == [] and opened.header.dimension == dimension
            opened.close()
    opened = open_index(target)
    known = opened.known_vectors(["It is Bern.", "Bern! Not so.", "It was cold.", "It is Rome."])
    opened.close()
    assert embedder.asked == ["p: It is Bern.", "p: Bern! Not so."], "what did not change is not embedded again"
    expected = ([14.0, 1.0], [16.0, 1.0], [0.6, 0.8], [0.8, 0.6])
    for found, vector in zip(known.values(), expected, strict=True):
        assert np.allclose(found / np.linalg.norm(found), np.asarray(vector) / np.linalg.norm(vector), atol=1e-3)


class Kept:
    """A run's attempts and tasks."""

    def __init__(self, traces: Sequence[Trace], documents: Sequence[str] = ("d",)) -> None:
        self.all = traces
        self.known = {
            (each.benchmark, each.task_id): Task(each.task_id, "?", metadata={"documents": documents})
            for each in traces
        }

    def traces(self, *, agent: str) -> list[Trace]:
        return [each for each in self.all if each.agent_name == agent]

    def tasks(self) -> dict[tuple[str, str], Task]:
        return self.known


def scored(
    task: str, right: float, agent: str = "RAG", f1: float = 0.0, hit: float = 0.0, given: float = 0.0, **more: Any
) -> Trace:
    scores = (
        Score("contains_words", right),
        Score("token_f1", f1),
        Score("cited", hit),
        Score("given_document", given),
    )
    return attempt(task, agent=agent, scores=scores, **more)


def test_the_figures_of_an_arm_are_those_of_its_attempts() -> None:
    def call(kind: Any, seconds: float, tokens: int, usd: float) -> Call:
        return Call("0:1", kind, None, 0.0, seconds, "", Usage(tokens, 0, tokens * 2, usd))

    failed = Failure("ModelError", "gone")
    rag = [
        scored(
            "1", 1.0, f1=0.5, hit=1.0, given=1.0, calls=(call("generate", 2.0, 10, 0.25), call("tool", 9.0, 1, 0.0))
        ),
        scored("2", 0.0, f1=0.25, given=1.0, calls=(call("generate", 1.0, 5, 0.5),)),
        scored("3", 1.0, f1=1.0, hit=1.0, given=1.0, error=failed),
        scored("4", 1.0, f1=0.75, calls=(call("score", 4.0, 2, 0.0),)),
    ]
    closed = [
        scored(task, right, "closed book", hit=right)
        for task, right in (("1", 0.0), ("2", 1.0), ("3", 0.0), ("4", 0.0))
    ]
    after = [
        attempt("1", "it is new", scores=(Score("contains_words", 1.0),)),
        attempt("2", "it is old2", scores=(Score("contains_words", 0.0),)),
        attempt("4", None, error=failed),
    ]
    changes = [FactChange(FactQuestion(task, "?", f"old{task}"), "d", "new") for task in "1234"]
    run, fresh = Kept([*closed, *rag]), Kept(after)
    base, arm = measured(["closed book", "RAG"], run, fresh, changes, {"RAG": 1.5})  # type: ignore[arg-type]
    quality = {"1": [1.0], "2": [0.0], "3": [0.0], "4": [1.0]}
    assert arm == ArmResult(
        "RAG",
        mean_interval([1.0, 0.0, 0.0, 1.0]),
        paired_difference(quality, {"1": [0.0], "2": [1.0], "3": [0.0], "4": [0.0]}),
        (0.5 + 0.25 + 0.75) / 3,
        1 / 4,
        2 / 4,
        mean_interval([1.0, 0.0, 0.0]),
        1 / 3,
        1.5,
        250 * 3 * (10 + 1 + 5 + 2),
        250 * 3.0,
        250 * 0.75,
        1,
    )
    assert (base.versus, base.retrieved, base.update_s, base.freshness, base.stale) == (None, None, None, None, None)
    assert (base.quality, base.cited, base.errors) == (mean_interval([0.0, 1.0, 0.0, 0.0]), 1 / 4, 0)
    (unknown,) = measured(["RAG"], Kept(rag, ()), None, [], {})  # type: ignore[arg-type]
    assert (unknown.retrieved, unknown.versus, unknown.freshness, unknown.stale) == (None, None, None, None)
    for known, share in (("1", 2 / 4), ("3", 2 / 4), ("4", 2 / 4), ("", None)):
        some = Kept([*closed, *rag], ())
        some.known |= {key: replace(task, metadata={"documents": ["d"]} if key[1] == known else {})
                       for key, task in some.known.items()}  # fmt: skip
        closed_, open_ = measured(["closed book", "RAG"], some, None, [], {})  # type: ignore[arg-type]
        assert (open_.retrieved, closed_.retrieved) == (share, None), "known of one question or of more"
    (nothing,) = measured(["RAG"], Kept([]), None, [], {})  # type: ignore[arg-type]
    assert nothing.quality.n == 0 and math.isnan(nothing.style) and nothing.tokens_per_1k == 0

    def shown(found: Any) -> dict[str, Any]:
        return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}

    versus = arm.versus
    assert versus is not None and arm.freshness is not None
    assert arm.to_json() == {
        "arm": "RAG", "style": 0.5, "cited": 0.25, "retrieved": 0.5, "stale": 1 / 3, "update_s": 1.5,
        "tokens_per_1k": 13500.0, "seconds_per_1k": 750.0, "usd_per_1k": 187.5, "errors": 1,
        "quality": shown(arm.quality), "freshness": shown(arm.freshness),
        "versus": {"difference": versus.difference, "low": versus.low, "high": versus.high, "p_value": versus.p_value,
                   "verdict": versus.verdict},
    }  # fmt: skip
    assert base.to_json()["versus"] is None and base.to_json()["freshness"] is None


def result(arm: str, quality: float, retrieved: float | None = None, versus: Any = None) -> ArmResult:
    interval = replace(mean_interval([0.0, 1.0]), value=quality)
    return ArmResult(arm, interval, versus, 0.0, 0.0, retrieved, None, None, None, 0.0, 0.0, 0.0, 0)


def test_the_sentences_say_what_holds_the_user_back() -> None:
    def said(
        oracle: int, rag: int, retrieved: float | None, quality: float | None = None, confidence: float = 0.95
    ) -> str:
        counts = {"oracle context": oracle, "RAG": rag}
        traces = [scored(str(at), float(at < count), arm) for arm, count in counts.items() for at in range(20)]
        results = [
            result("RAG", rag / 20, retrieved),
            result("oracle context", oracle / 20 if quality is None else quality),
        ]
        (sentence,) = diagnosis(results, Kept(traces), confidence=confidence)  # type: ignore[arg-type]
        return sentence

    def lost(oracle: int, rag: int, confidence: float = 0.95) -> str:
        ones = [{str(at): [float(at < count)] for at in range(20)} for count in (oracle, rag)]
        gap = paired_difference(ones[0], ones[1], confidence)
        return f"RAG loses {gap.difference:.2f} [{gap.low:.2f}, {gap.high:.2f}] against it, and it loses"

    for retrieved, missed in ((0.25, "75%"), (0.625, "38%"), (None, "100%")):
        assert said(20, 5, retrieved) == (
            f"Retrieval holds you back: with the right document quality is 1.00, with RAG 0.25 ({lost(20, 5)} 0.00), and "
            f"{missed} of the documents were not found."
        )
    assert said(10, 0, 0.0).startswith("Retrieval holds you back"), "of an equal loss retrieval is the first to mend"
    assert said(20, 5, 0.63) == (
        "Reading among other passages holds you back: the document is found for 63% of the questions, yet quality is 0.25 "
        f"and with that document alone 1.00 ({lost(20, 5)} 0.00); give fewer passages (--k), rerank them, or take a larger "
        "model."
    )
    assert said(6, 6, 1.0) == (
        f"Reading holds you back: even with the right document quality is only 0.30 ({lost(6, 6)} 0.70); a larger or a "
        "fine-tuned model helps, better retrieval does not."
    )
    assert said(20, 5, 0.0, quality=0.1) == f"Both lose: {lost(20, 5)} 0.90."
    neither = "Neither retrieval nor reading is shown to hold you back on these questions ({} 0.00)."
    assert said(20, 20, 1.0) == neither.format(lost(20, 20)) and said(20, 18, 0.0) == neither.format(lost(20, 18))
    assert said(18, 18, 1.0) == neither.format(lost(18, 18)).replace("0.00).", "0.10)."), "most of it is read"
    assert said(5, 10, 1.0, quality=1.0) == neither.format(lost(5, 10))
    assert said(20, 16, 0.0, confidence=0.5) == (
        f"Retrieval holds you back: with the right document quality is 1.00, with RAG 0.80 ({lost(20, 16, 0.5)} 0.00), and "
        "100% of the documents were not found."
    )


def test_each_arm_is_compared_with_closed_book_in_a_sentence() -> None:
    ones = {str(at): [1.0] for at in range(20)}
    none = {name: [0.0] for name in ones}
    some = {name: [float(int(name) < 19)] for name in ones}
    results = [
        result("long context", 0.0, versus=paired_difference(some, ones)),
        result("closed book", 0.0),
        result("LoRA + RAG", 0.0, versus=paired_difference(some, none)),
        result("LoRA", 0.0, versus=paired_difference(none, ones)),
        result("RAG", 0.0, versus=paired_difference(ones, none)),
    ]
    better, worse, same, both = (results[at].versus for at in (4, 3, 0, 2))
    assert better and worse and same and both
    assert diagnosis(results, Kept([])) == [  # type: ignore[arg-type]
        f"RAG is better than closed book: +1.00 [{better.low:+.2f}, {better.high:+.2f}], p=0.000.",
        f"LoRA is worse than closed book: -1.00 [{worse.low:+.2f}, {worse.high:+.2f}], p=0.000.",
        f"LoRA + RAG is better than closed book: +0.95 [{both.low:+.2f}, {both.high:+.2f}], p=0.000.",
        f"long context is not shown to differ from closed book: -0.05 [{same.low:+.2f}, {same.high:+.2f}], p=1.000.",
    ]


def test_a_copy_of_an_index_embeds_what_changed_as_documents_are_and_drops_what_an_older_copy_left(
    tmp_path: Path,
) -> None:
    index, target, embedder = tmp_path / "a.sqlite", tmp_path / "b.sqlite", Counted()
    opened = open_index(index, IndexHeader("tiny", "f", 2, "sentences", document_prefix="p: "))
    document = Document("d", "It was cold. It is Oslo.")
    opened.put([IndexedDocument(document, sentences(document), np.asarray([[0.6, 0.8], [1, 0]], np.float32))])
    opened.close()
    older = [target, *(target.with_name(target.name + ending) for ending in ("-wal", ".terms"))]
    for each in older:
        each.write_bytes(b"old")
    asyncio.run(changed_index(index, target, [FactChange(facts("Oslo")[0], "d", "Bern")], embedder, sentences))
    assert embedder.asked == ["p: It is Bern."]
    assert not any(each.is_file() and each.read_bytes() == b"old" for each in older)
    opened = open_index(target)
    known = opened.known_vectors(["It was cold.", "It is Bern."])
    assert opened.document("d").text == "It was cold. It is Bern." and opened.verify() == []
    opened.close()
    assert np.allclose(known["It was cold."], [0.6, 0.8], atol=1e-3)
