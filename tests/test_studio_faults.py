"""Faults under the Studio: files that are full, and a run that is written while others migrate it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

import otlp_requests as otlp
from firsthand.errors import StoreError
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.runs import store
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.studio_store import SqliteStore
from firsthand.trace import Score

OLD = Path(__file__).parent / "data" / "run_schema_3" / "run.sqlite"


def test_a_full_file_of_traces_is_an_answer_to_retry_and_loses_nothing(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path, create=True)
    writer = SpanWriter(traces, SpanPreparer(Redactor()))
    outcomes: list[WriteOutcome] = []
    told = threading.Semaphore(0)

    def sent(number: int) -> WriteOutcome:
        body = otlp.as_json(*(otlp.span(number, place, text="x" * 900) for place in range(1, 40)))

        def done(outcome: WriteOutcome) -> None:
            outcomes.append(outcome)
            told.release()

        assert writer.submit(body, "json", "", done) and told.acquire(timeout=30)
        return outcomes[-1]

    def bounded(pages: int) -> None:
        with traces.database.write() as connection:  # as SQLite meets a full disk, on the writer's own connection
            connection.execute(f"PRAGMA max_page_count = {pages}")

    assert sent(1) == WriteOutcome(39)
    pages = traces.database.read("PRAGMA page_count")[0][0]
    bounded(pages)
    refused = sent(2)
    assert refused.retry and "full" in refused.problem and refused.num_kept == 0
    assert traces.database.read("SELECT DISTINCT trace FROM spans") == [(f"{1:032x}",)]
    bounded(100_000)
    assert sent(2) == WriteOutcome(39), "the sender's second try is kept"
    assert dict(traces.database.read("SELECT trace, num_spans FROM traces")) == {f"{1:032x}": 39, f"{2:032x}": 39}
    writer.close()
    traces.close()


def test_a_full_file_of_documents_is_one_sentence_and_keeps_what_was_there(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    kept.put("prompt", "one", {"text": "a"})
    assert kept._connection is not None
    pages = kept._connection.execute("PRAGMA page_count").fetchone()[0]
    kept._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        kept.put("prompt", "two", {"text": "x" * 100_000})
    assert [item.key for item in kept.items("prompt")] == ["one"]
    kept._connection.execute("PRAGMA max_page_count = 100000")
    assert kept.put("prompt", "two", {"text": "x" * 100_000}) == 1
    kept.close()


def test_a_run_that_is_written_while_others_migrate_it_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "2026-11-01-0000-old-aaaa"
    folder.mkdir(parents=True)
    shutil.copy(OLD, folder / "run.sqlite")
    problems: list[BaseException] = []
    together = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            runs = OpenRuns(tmp_path)
            together.wait(30)
            run = runs.get(folder.name)
            for each in range(5):
                run.add_score(next(run.traces()), 1, f"by{number}.{each}", "x", Score("x", 1.0))
            runs.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert problems == []
    with store.open_run(folder.name, tmp_path) as run:
        run.check(bodies=True)
        names = {name for name in run.score_names() if name.startswith("by")}
        assert names == {f"by{number}.{each}" for number in range(4) for each in range(5)}
