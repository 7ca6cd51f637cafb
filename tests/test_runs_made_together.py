"""Processes that make a run in one folder at once: one makes it, and no other deletes it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.span_sender import RunRecorder
from firsthand.runs.run_names import DATABASE, MAKING
from firsthand.runs.store import create, open_or_create, open_run
from firsthand.serve.agents.agent_doors import sessions_run
from firsthand.system.lock import held
from served_agent import Desk, clerk


def span(trace: int, id: int, parent: str = "") -> IncomingSpan:
    kind = {"openinference.span.kind": "CHAIN", "input.value": f"q{trace}", "output.value": "a"}
    return IncomingSpan(f"{trace:032x}", f"{id:016x}", parent, "n", 10, 30, kind)


def test_who_comes_while_a_run_is_made_waits_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "at"
    folder.mkdir()
    told: list[str] = []

    def second() -> None:
        with pytest.raises(StoreError) as error:
            create(tmp_path, {}, "b", at=folder)
        told.append(str(error.value))

    thread = threading.Thread(target=second)
    with held(folder / MAKING):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and not (folder / DATABASE).exists(), "it waits"
        (folder / DATABASE).write_text("another's")
    thread.join(10)
    assert told == [f"{folder} holds a run already: open it, or give another folder"]
    assert (folder / DATABASE).read_text() == "another's"


def test_a_run_is_made_once_and_opened_by_all_others(tmp_path: Path) -> None:
    folder, made = tmp_path / "deep" / "at", []
    together = threading.Barrier(6)

    def one(number: int) -> None:
        together.wait(10)
        with open_or_create(tmp_path, {"by": number}, "a", at=folder) as run:
            made.append((run.created_at, run.config["by"]))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert len(made) == 6 and len(set(made)) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no run can be made in"):
        open_or_create(tmp_path, {}, "a", at=tmp_path / "file")


def test_recorders_that_begin_together_keep_all_their_traces(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recorders = [RunRecorder(folder, "shop") for _ in range(4)]
    together = threading.Barrier(4)

    def record(number: int) -> None:
        together.wait(10)
        for trace in range(5):
            recorders[number].put(span(10 * number + trace + 1, 1), True)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert [(each.flush(1.0), each.dropped, each.problem) for each in recorders] == [(True, 0, "")] * 4
    with open_run(folder, tmp_path) as run:
        assert sum(1 for _ in run.traces()) == 20


def test_traces_that_are_not_kept_whole_are_told_when_the_program_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = RunRecorder(tmp_path / "run", "shop")
    recorder.put(span(1, 1), True)
    assert recorder.end(1.0) is True and recorder.dropped == 0 and caplog.messages == []
    recorder.put(span(1, 2, f"{1:016x}"), False)  # ends after its root
    assert recorder.flush(1.0) is True and recorder.dropped == 0, "its root may still run"
    assert recorder.end(1.0) is True and recorder.dropped == 1
    assert caplog.messages == [
        f"{tmp_path / 'run'}: traces not kept, or not whole: 1 (calls ended after their root call, or it did not end)"
    ]
    (tmp_path / "file").write_text("")
    nowhere = RunRecorder(tmp_path / "file" / "run", "shop")
    nowhere.put(span(1, 1), True)
    nowhere.end(1.0)
    assert "not whole: 1 (no run can be made in" in caplog.messages[-1]


def test_servers_that_begin_together_on_one_folder_share_its_run(tmp_path: Path) -> None:
    folder, ids = tmp_path / "sessions", []
    folder.mkdir()
    agent = clerk(Desk())

    def one() -> None:
        with sessions_run(agent, tmp_path, folder) as run:
            ids.append((run.id, run.created_at))

    threads = [threading.Thread(target=one) for _ in range(3)]
    with held(folder / MAKING):
        for each in threads:
            each.start()
        threads[0].join(0.1)
        assert not ids, "they wait"
    for each in threads:
        each.join(30)
    assert len(ids) == 3 and len(set(ids)) == 1
