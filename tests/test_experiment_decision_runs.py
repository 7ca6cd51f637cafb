"""RAG or fine-tuning carried out: the run of all arms, and an index whose log is copied with it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.errors import DataError
from firsthand.experiment.rag_decision import (
    FactChange,
    answer_all,
    changed_index,
    choose_changes,
    measured,
    question_benchmark,
)
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.stats.intervals import mean_interval
from firsthand.stats.paired import paired_difference
from firsthand.task import Task
from firsthand.trace import Failure
from test_experiment_decision import Kept, attempt, facts, scored, sentences


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    yield
    close_corpora()


class Slow:
    """Waits before each vector."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0.03)
        return [[0.8, 0.6] for _ in texts]


@pytest.mark.slow
def test_an_update_takes_as_long_as_chunks_vectors_and_storage_together(tmp_path: Path) -> None:
    index, target = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    opened = open_index(index, IndexHeader("tiny", "f", 2, "sentences"))
    documents = [Document(f"d{at}", f"It is {word}.") for at, word in enumerate(("Oslo", "Rome"))]
    rows = np.asarray([[0.6, 0.8]], np.float32)
    opened.put([IndexedDocument(each, sentences(each), rows) for each in documents])
    opened.close()
    others: list[threading.Timer] = []

    def slow(document: Document) -> list[Chunk]:
        time.sleep(0.02)
        if document.id == "d1":  # another writer is busy for longer than the second vector takes
            writer = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
            writer.execute("BEGIN IMMEDIATE")
            others.append(threading.Timer(0.08, writer.close))
            others[0].start()
        return sentences(document)

    changes = [FactChange(fact, f"d{at}", "Bern") for at, fact in enumerate(facts("Oslo", "Rome"))]
    embedder: Any = Slow()
    took = asyncio.run(changed_index(index, target, changes, embedder, slow))
    others[0].join()
    assert 0.02 + 0.03 + 0.02 + 0.08 <= took < 10
    copy = open_index(target)
    assert [copy.document(each.document).text for each in changes] == ["It is Bern."] * 2
    copy.close()


@pytest.mark.slow
def test_a_document_that_cannot_be_changed_is_named_and_the_log_of_the_index_is_copied(tmp_path: Path) -> None:
    index, target = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    opened = open_index(index, IndexHeader("", "", 0, "sentences"))
    pages = (Location(0, "page", "1"), Location(6, "page", "2"))
    document = Document("d0", "It is Oslo.", "T", "s.pdf", {"year": 3}, pages)
    opened.put([IndexedDocument(document, sentences(document), None)])
    change = FactChange(facts("Oslo")[0], "d0", "Bern")
    assert index.with_name("a.sqlite-wal").stat().st_size > 0, "what was put last stands in the log alone"
    asyncio.run(changed_index(index, target, [change], None, sentences))
    copy = open_index(target)
    assert opened.document("d0") == document
    assert copy.document("d0") == Document("d0", "It is Bern.", "T", "s.pdf", {"year": 3}), (
        "its places are not known now"
    )
    copy.close()

    def astray(document: Document) -> list[Chunk]:
        return [Chunk(document.id, 0, 999, "elsewhere")]

    with pytest.raises(DataError) as refused:
        asyncio.run(changed_index(index, target, [change], None, astray))
    assert str(refused.value) == (
        "document 'd0' could not be changed: the chunk 0..999 of 'd0' is not the document's text there: chunk it again"
    )
    others = [Document(f"d{at}", f"It is {word}.") for at, word in ((1, "Rome"), (2, "Bern"))]
    opened.put([IndexedDocument(each, sentences(each), None) for each in others])
    changes = [FactChange(fact, f"d{at}", "Lima") for at, fact in enumerate(facts("Oslo", "Rome", "Bern"))]
    for broken in ("d1", "d2", "d0"):
        with pytest.raises(DataError) as refused:  # the two others could be changed
            asyncio.run(changed_index(index, target, changes, None, lambda d, b=broken: (
                astray(d) if d.id == b else sentences(d)
            )))  # fmt: skip
        assert str(refused.value) == (
            f"document {broken!r} could not be changed: the chunk 0..999 of {broken!r} is not the document's text there: "
            "chunk it again"
        )
    assert opened_files(tmp_path, "b.sqlite") == 0
    asyncio.run(changed_index(index, target, changes, None, sentences))
    copy = open_index(target)
    assert [copy.document(f"d{at}").text for at in range(3)] == ["It is Lima."] * 3
    copy.close()
    opened.close()


@pytest.mark.slow
def test_all_arms_answer_all_questions_in_a_run_that_is_closed_if_it_fails(tmp_path: Path) -> None:
    running = most = 0

    async def arm(task: Task, ctx: Any) -> str:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0.02)
        running -= 1
        return str(task.secret) or "Oslo"

    agents = [Agent(name, Scripted([]), arm) for name in ("RAG", "LoRA")]
    asked = question_benchmark(facts("Oslo", "Rome", "Bern"), "mine")
    with asyncio.run(answer_all(agents, asked, seed=7, concurrency=2)) as run:
        assert sorted((each.agent_name, each.task_id, each.seed) for each in run.traces()) == [
            (name, task, 7) for name in ("LoRA", "RAG") for task in "012"
        ]
        assert most == 2 and "-decide-" in run.id and run.config["name"] == "decide" and run.config["concurrency"] == 2

    async def waits(task: Task, ctx: Any) -> str:
        await asyncio.sleep(60)
        return ""

    waiting = answer_all([Agent("RAG", Scripted([]), waits)], asked, seed=7, concurrency=2)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(waiting, 0.05))
    assert opened_files(tmp_path, "run.sqlite") == 0


def opened_files(folder: Path, name: str) -> int:
    """How often this process has a file of that name below a folder open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += (path := each.readlink()).name == name and path.is_relative_to(folder)
    return found


def test_a_fact_is_not_changed_to_words_that_its_answer_holds_or_that_hold_it() -> None:
    for other in ("York", "New York", "york city", "the New York City"):
        asked = facts("New York City", other, "Rome")
        (found,) = choose_changes(asked, {"d0": "In New York City."}, 0.3, seed=0)
        assert found == FactChange(asked[0], "d0", "Rome"), other
        with pytest.raises(DataError, match=r"^no fact can be changed: "):
            choose_changes(asked[:2], {"d0": "In New York City."}, 1.0, seed=0)


def test_a_failed_attempt_counts_as_wrong_on_both_sides_of_the_comparison() -> None:
    failed = Failure("ModelError", "gone")
    closed = [
        scored("1", 1.0, "closed book", error=failed), attempt("2", None, agent="closed book", error=failed),
        scored("3", 1.0, "closed book"), scored("4", 0.0, "closed book"),
    ]  # fmt: skip
    rag = [scored("1", 1.0), scored("2", 1.0), attempt("3", None, error=failed), scored("4", 0.0, error=failed)]
    base, arm = measured(["closed book", "RAG"], Kept([*closed, *rag]), None, [], {})  # type: ignore[arg-type]
    right = {"1": [1.0], "2": [1.0], "3": [0.0], "4": [0.0]}
    wrong = {"1": [0.0], "2": [0.0], "3": [1.0], "4": [0.0]}
    assert arm.versus == paired_difference(right, wrong) and base.versus is None
    assert (arm.quality, arm.errors) == (mean_interval([1.0, 1.0, 0.0, 0.0]), 2)
    assert (base.quality, base.errors) == (mean_interval([0.0, 0.0, 1.0, 0.0]), 2)
    (alone,) = measured(["RAG"], Kept(rag), None, [], {})  # type: ignore[arg-type]
    assert alone.versus is None, "nothing to compare with"
