"""What a run keeps: every trace, reply and task comes back as it was, whoever else writes, and no error goes unexplained."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsthand.errors import ConfigError, DataError, StoreError, UnknownName
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, user
from firsthand.model import Usage
from firsthand.preference import Preference
from firsthand.runs.database import MAX_BODY_BYTES, MIGRATIONS, Database, plain, put
from firsthand.runs.run_names import DATABASE, LOCK, find_run, new_run_id
from firsthand.runs.store import Run, create, list_runs, open_run
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

ODD = "\x00 \ud800 \udc00 \U0001f600 \u202e \x1b[31m \\ud800 é"
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(any_text, any_json, max_size=3)
seconds = st.floats(0, 1e6)
counts = st.integers(0, 10**6)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    parts=st.lists(
        st.builds(Text, any_text)
        | st.builds(ToolCall, any_text, any_text, objects, st.none() | any_text)
        | st.builds(ToolResult, any_text, any_text, any_text, st.booleans()),
        max_size=3,
    ).map(tuple),
    sampled=st.none()
    | st.builds(
        Sampled, st.lists(counts, max_size=3).map(tuple), st.lists(st.floats(max_value=0), max_size=3).map(tuple)
    ),
)
calls = st.builds(
    Call,
    id=any_text,
    kind=st.sampled_from(["generate", "tool", "score"]),
    at=st.none() | counts,
    started_s=seconds,
    duration_s=seconds,
    request=any_text,
    usage=st.builds(Usage, counts, counts, counts, seconds),
    nodes=st.lists(counts, max_size=3).map(tuple),
    detail=objects,
    replayed=st.booleans(),
    error=st.none() | any_text,
)
traces = st.builds(
    Trace,
    id=st.text("0123456789abcdef", min_size=16, max_size=16) | any_text,
    benchmark=any_text,
    task_id=any_text,
    agent=objects.flatmap(lambda rest: any_text.map(lambda name: {**rest, "name": name})),
    epoch=counts,
    seed=st.integers(0, 2**63 - 1),
    started_at=any_text,
    duration_s=seconds,
    nodes=st.lists(st.tuples(st.none() | counts, messages), max_size=3).map(
        lambda pairs: tuple(Node(None if p is None or i == 0 else p % i, m) for i, (p, m) in enumerate(pairs))
    ),
    calls=st.lists(calls, max_size=2).map(tuple),
    events=st.lists(st.builds(Event, any_text, seconds, objects), max_size=2).map(tuple),
    answer=st.none() | any_text,
    stop_reason=any_text,
    final_state=objects,
    error=st.none() | st.builds(Failure, any_text, any_text, st.none() | any_text),
    scores=st.lists(st.builds(Score, any_text, st.floats(-1e200, 1e200), objects), max_size=2).map(tuple),
)


def make_trace(number: int, **changes: Any) -> Trace:
    trace = Trace(
        id=f"{number:016x}",
        benchmark="sums",
        task_id=f"t{number}",
        agent={"name": "ada"},
        epoch=0,
        seed=0,
        started_at="2026-11-25T00:00:00",
        duration_s=1.0,
        scores=(Score("correct", float(number % 2)),),
    )
    return replace(trace, **changes)


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return create(tmp_path_factory.mktemp("home"), {}, "round trips")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create(tmp_path, {"seed": 3}, "sums", command=["firsthand", "run", "sums"])


def open_file(run: Run) -> sqlite3.Connection:
    run.close()
    return sqlite3.connect(run.path / DATABASE)


# -- what comes back --


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trace=traces)
def test_a_trace_comes_back_as_it_was(shared_run: Run, trace: Trace) -> None:
    shared_run.append(trace)
    assert shared_run.tries(trace.place)[-1] == trace
    assert plain(trace.place) in shared_run.done()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(effect=any_text, request=any_text, reply=objects)
def test_a_reply_comes_back_as_it_was(shared_run: Run, effect: str, request: str, reply: dict[str, Any]) -> None:
    shared_run.journal("a").record(effect, request, reply)
    assert shared_run.journal("a").find(effect, request) == reply
    assert shared_run.reply(request) == reply
    assert shared_run.journal("b").find(effect, request) is None


def test_key_order_and_numbers_that_json_lacks_survive(run: Run) -> None:
    reply = {"z": 1, "a": [float("inf"), -0.0, 1e-320], "m": {"y": 0, "b": 0}}
    run.journal("a").record(":0", "r", reply)
    assert json.dumps(run.journal("a").find(":0", "r")) == json.dumps(reply)


def test_tasks_come_back_with_their_secrets(run: Run) -> None:
    task = Task(ODD, "What?", ("a", "b"), metadata={"level": 2}, secret={"answer": ODD})
    run.add_tasks("sums", [task])
    run.add_tasks("sums", [task, Task("2", "Why?")])
    assert run.tasks() == {("sums", ODD): task, ("sums", "2"): Task("2", "Why?")}


def test_a_changed_task_or_agent_is_refused_and_the_first_stays(run: Run) -> None:
    run.add_tasks("sums", [Task("1", "2 + 2")])
    run.add_agent("ada", {"name": "ada", "model": "m"})
    with pytest.raises(StoreError, match="task '1' of sums is not the one"):
        run.add_tasks("sums", [Task("0", "1 + 1"), Task("1", "2 + 3")])
    with pytest.raises(StoreError, match="agent 'ada' is not the one"):
        run.add_agent("ada", {"name": "ada", "model": "other"})
    assert run.tasks() == {("sums", "1"): Task("1", "2 + 2")}
    assert run.agents() == {"ada": {"name": "ada", "model": "m"}}


def test_a_task_whose_metadata_come_in_another_order_is_the_same(run: Run) -> None:
    run.add_tasks("game24", [Task("1", "?", metadata={"numbers": (1, 2), "examples": "e"})])
    run.add_tasks("game24", [Task("1", "?", metadata={"examples": "e", "numbers": (1, 2)})])
    with pytest.raises(StoreError, match="task '1' of game24 is not the one"):
        run.add_tasks("game24", [Task("1", "?", metadata={"examples": "e", "numbers": (2, 1)})])


def test_preferences_come_back_in_order(run: Run) -> None:
    votes = [Preference("t", "a", "b", "a", "human:ada"), Preference("t", "b", "a", "tie", ODD)]
    for vote in votes:
        run.add_preference(vote)
    assert run.preferences() == votes


def test_config_command_and_machine_are_kept(run: Run) -> None:
    again = open_run(run.id, run.path.parent.parent)
    assert again.config == {"seed": 3}
    assert again.about["command"] == ["firsthand", "run", "sums"]
    assert again.about["machine"]["cores"] == os.cpu_count()
    assert datetime.fromisoformat(again.created_at).tzinfo is not None


def test_the_latest_try_of_an_attempt_counts_and_earlier_ones_stay(run: Run) -> None:
    failed = make_trace(1, error=Failure("ModelError", "no answer"), scores=())
    for trace in (failed, make_trace(2), make_trace(1, answer="4")):
        run.append(trace)
    assert [trace.answer for trace in run.traces()] == [None, "4"]
    assert [trace.error for trace in run.tries(failed.id)] == [failed.error, None]
    assert run.done(errors=False) == {failed.id, make_trace(2).id}


def test_an_attempt_whose_latest_try_failed_is_done_only_with_errors(run: Run) -> None:
    run.append(make_trace(1))
    run.append(make_trace(1, error=Failure("ModelError", "no answer")))
    assert run.done() == {make_trace(1).id}
    assert run.done(errors=False) == set()


def test_a_journal_gives_the_last_record_of_an_effect(run: Run) -> None:
    journal = run.journal("a")
    journal.record(":0", "r", {"started": True})
    journal.record(":0", "r", {"content": "sent"})
    assert journal.find(":0", "r") == {"content": "sent"}


def test_equal_replies_are_stored_once(run: Run) -> None:
    for attempt in range(50):
        run.journal(str(attempt)).record(":0", "r", {"text": "the same" * 100})
    (num_bodies,) = open_file(run).execute("SELECT count(*) FROM bodies").fetchone()
    assert num_bodies == 2  # the description of the run is the other one


@pytest.mark.slow
def test_notes_that_are_not_json_are_kept_as_text_and_replies_are_refused(run: Run) -> None:
    run.append(make_trace(1, events=(Event("note", 0.0, {"path": Path("/x")}),)))
    assert next(run.traces()).events[0].data == {"path": "/x"}
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        run.journal("a").record(":0", "r", {"path": Path("/x")})
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    run.append(make_trace(2, final_state={"deep": nested}))  # what an agent made ends no run
    assert run.done() == {make_trace(1).id, make_trace(2).id}
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        run.journal("a").record(":0", "r", {"deep": nested})


@pytest.mark.parametrize(
    ("task", "place"),
    [(Task("a", "?", secret={"names": {1: "x"}}), r"secret\['names'\]\[1\]"),
     (Task("a", "?", metadata={"m": [({"k": [{None: 0}]},)]}), r"metadata\['m'\]\['k'\]\[None\]")],
)  # fmt: skip
def test_a_task_whose_keys_json_would_change_is_refused(run: Run, task: Task, place: str) -> None:
    with pytest.raises(ConfigError, match=f"^task 'a' of sums: the key {place} is no text, and would be text wherever"):
        run.add_tasks("sums", [task])
    assert run.tasks() == {}
    run.add_tasks("sums", [Task("a", "?", secret={"names": {"1": ("x", {"": 1})}})])


def test_filters_choose_by_benchmark_and_agent(run: Run) -> None:
    for number, benchmark, agent in [(1, "x", "ada"), (2, "x", "bob"), (3, "y", "ada"), (4, "\ud800", "ada")]:
        run.append(make_trace(number, benchmark=benchmark, agent={"name": agent}))
    assert [t.task_id for t in run.traces(benchmark="x")] == ["t1", "t2"]
    assert [t.task_id for t in run.traces(agent="ada")] == ["t1", "t3", "t4"]
    assert [r.task_id for r in run.rows(benchmark="x", agent="bob")] == ["t2"]
    assert [t.task_id for t in run.traces(benchmark="\ud800")] == ["t4"]


def test_a_trace_is_found_by_id_prefix_or_by_its_place(run: Run) -> None:
    for number, epoch in [(0xA1, 0), (0xA2, 1)]:
        run.append(make_trace(number, id=f"{number:x}00", task_id="math/7", epoch=epoch))
    assert run.trace("a1").epoch == 0
    assert run.trace("sums/math/7/ada/1").epoch == 1
    with pytest.raises(UnknownName, match="names 2 attempts"):
        run.trace("sums/math/7")
    with pytest.raises(UnknownName, match="did you mean 'sums/math/7/ada/1'"):
        run.trace("sums/math/7/ada/11")
    with pytest.raises(UnknownName):
        run.trace("")


@pytest.mark.slow
def test_many_traces_take_time_in_proportion(run: Run) -> None:
    def seconds_for(first: int, count: int) -> float:
        began = time.thread_time()
        for number in range(first, first + count):
            run.append(make_trace(number))
        assert sum(1 for _ in run.rows()) == first + count
        return time.thread_time() - began

    few = seconds_for(0, 500)
    seconds_for(500, 4000)
    assert seconds_for(4500, 500) < 6 * few + 0.2
    plan = run.database.read("EXPLAIN QUERY PLAN SELECT reply FROM effects WHERE attempt = ? AND effect = ?", ("", ""))
    assert "effects_by_place" in str(plan)


# -- finding runs --


def test_run_ids_are_readable_and_sort_by_time() -> None:
    early = new_run_id(datetime(2026, 11, 25, 1, 48, tzinfo=UTC), "Arithmetic: levels=3, " + "x" * 99)
    late = new_run_id(datetime(2026, 11, 25, 1, 49, tzinfo=UTC), "../..")
    assert re.fullmatch(r"2026-11-25-0148-arithmetic-levels-3-x+-[a-z2-9]{4}", early)
    assert re.fullmatch(r"2026-11-25-0149-run-[a-z2-9]{4}", late)
    assert early < late


@pytest.mark.slow
def test_a_run_is_found_by_last_id_prefix_letters_and_path(tmp_path: Path) -> None:
    first, second = create(tmp_path, {}, "sums"), create(tmp_path, {}, "words")
    os.utime(first.path / LOCK, ns=(1, 1))
    assert find_run("last", tmp_path) == second.path
    for ref in (first.id, first.id[:17], first.id[-4:], str(first.path), str(first.path / DATABASE)):
        assert open_run(ref, tmp_path).id == first.id
    with pytest.raises(UnknownName, match="beginning of 2 runs"):
        find_run("20", tmp_path)
    named = create(tmp_path, {}, "My base_line")
    assert find_run("My base_line", tmp_path) == find_run("my-base-line", tmp_path) == named.path
    with pytest.raises(UnknownName, match="no run 'my-base'"):
        find_run("my-base", tmp_path)
    create(tmp_path, {}, "my base line")
    with pytest.raises(UnknownName, match="2 runs are named 'my-base-line'"):
        find_run("my-base-line", tmp_path)
    for nothing in ("base", "line", "...", "-", ""):
        create(tmp_path, {}, nothing and "run")
        with pytest.raises(UnknownName, match="no run"):
            find_run(nothing, tmp_path)
    with pytest.raises(UnknownName, match=f"did you mean '{first.id}'"):
        find_run(first.id[:-1] + "!", tmp_path)
    with pytest.raises(UnknownName, match="not the folder of a run"):
        find_run(str(tmp_path), tmp_path)
    with pytest.raises(UnknownName, match="no runs"):
        find_run("last", tmp_path / "nowhere")


def test_home_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert data_home() == tmp_path
    monkeypatch.delenv("FIRSTHAND_HOME")
    assert data_home().name == "firsthand"


def test_runs_are_listed_newest_first_and_a_broken_one_with_its_problem(tmp_path: Path) -> None:
    first, second = create(tmp_path, {"n": 1}, "sums"), create(tmp_path, {"n": 2}, "sums")
    second.append(make_trace(1))
    second.append(make_trace(2, error=Failure("ModelError", "no answer")))
    broken = tmp_path / "runs" / "2020-01-01-0000-old-aaaa"
    broken.mkdir()
    (broken / DATABASE).write_bytes(b"nonsense" * 100)
    infos = list_runs(tmp_path)
    assert {info.id for info in infos[:2]} == {first.id, second.id}
    by_id = {info.id: info for info in infos}
    assert (by_id[second.id].num_traces, by_id[second.id].num_errors, by_id[second.id].config) == (2, 1, {"n": 2})
    assert infos[2].status == "unreadable" and "not a SQLite file" in (infos[2].problem or "")
    assert list_runs(tmp_path / "nowhere") == []


def test_status_follows_the_work(run: Run) -> None:
    assert run.status == "interrupted"
    with run.working():
        assert run.status == "running"
    assert run.status == "done"
    with pytest.raises(KeyboardInterrupt), run.working():
        raise KeyboardInterrupt
    assert run.status == "interrupted"


# -- several at once --


def write_replies(path: str, writer: int, count: int, acknowledged: str) -> None:
    run = Run(Path(path), Database(Path(path) / DATABASE))
    with Path(acknowledged).open("a") as file:
        for number in range(count):
            run.journal(f"attempt{writer}").record(f":{number}", "r", {"writer": writer, "number": number})
            run.append(make_trace(writer * 1000 + number))
            run.append(make_trace(999_999))  # all of them try the same attempt
            file.write(f"{writer} {number}\n")


@pytest.mark.slow
def test_many_processes_write_one_run_and_all_they_were_told_is_stored(run: Run, tmp_path: Path) -> None:
    run.close()  # and is opened again in each child
    context = multiprocessing.get_context("spawn")
    arguments = [(str(run.path), writer, 60, str(tmp_path / f"acknowledged{writer}")) for writer in range(4)]
    children = [context.Process(target=write_replies, args=each) for each in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    for writer in range(4):
        told = (tmp_path / f"acknowledged{writer}").read_text().splitlines()
        assert len(told) == 60
        for number in range(60):
            assert run.journal(f"attempt{writer}").find(f":{number}", "r") == {"writer": writer, "number": number}
    assert len(run.done()) == 241
    assert len(run.tries(make_trace(999_999).id)) == 240


@pytest.mark.slow
def test_threads_share_a_run(run: Run) -> None:
    def work(writer: int) -> None:
        for number in range(40):
            run.append(make_trace(writer * 100 + number))
            assert run.journal(str(writer)).find(":0", "r") is None

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.done()) == 160


@pytest.mark.slow
def test_a_forked_child_uses_a_connection_of_its_own(run: Run) -> None:
    run.append(make_trace(1))
    child = multiprocessing.get_context("fork").Process(target=run.append, args=(make_trace(2),))
    child.start()
    child.join(30)
    run.append(make_trace(3))
    assert child.exitcode == 0
    assert len(run.done()) == 3


def test_a_file_that_stays_locked_is_a_sentence(run: Run) -> None:
    other = sqlite3.connect(run.path / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    run.database.read("PRAGMA busy_timeout = 50")
    with pytest.raises(StoreError, match="in use by another process"):
        run.append(make_trace(1))
    other.execute("ROLLBACK")
    run.append(make_trace(1))
    assert len(run.done()) == 1


# -- what goes wrong --


def test_a_full_file_loses_nothing_and_goes_on_when_there_is_room(run: Run) -> None:
    (pages,) = run.database.read("PRAGMA page_count")[0]
    run.database.read(f"PRAGMA max_page_count = {pages + 20}")
    told = fill(run)
    run.database.read("PRAGMA max_page_count = 1000000")
    check_after_full(run, told)


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.getuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        run = create(tmp_path, {}, "sums")
        ballast = tmp_path / "ballast"
        ballast.write_bytes(os.urandom(200_000))
        told = fill(run)
        with pytest.raises(StoreError, match="is full"):
            create(tmp_path, {}, "another")
        assert open_run(run.id, tmp_path).journal("a").find(":0", "r") is not None
        ballast.unlink()
        check_after_full(run, told)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(run: Run) -> int:
    """Record until there is no room; how many records were acknowledged."""
    for number in range(1000):
        try:
            run.journal("a").record(f":{number}", "r", {"noise": os.urandom(2000).hex()})
        except StoreError as error:
            assert "is full" in str(error) and "make room" in str(error)
            return number
    raise AssertionError("the disk never became full")


def check_after_full(run: Run, told: int) -> None:
    assert told > 0
    for number in range(told):
        assert run.journal("a").find(f":{number}", "r") is not None
    assert run.journal("a").find(f":{told}", "r") is None
    run.append(make_trace(1))
    assert run.done() == {make_trace(1).id}


@pytest.mark.slow
def test_a_read_only_folder_is_read_and_writing_it_is_a_sentence(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "sums")
    run.append(make_trace(1))
    run.close()
    for path in [run.path / DATABASE, run.path / LOCK, run.path]:
        path.chmod(0o555)
    for parent in [run.path.parent, tmp_path, *list(tmp_path.parents)[:-2]]:
        parent.chmod(0o755)
    child = multiprocessing.get_context("fork").Process(target=use_read_only, args=(run.path,))
    child.start()
    child.join(30)
    run.path.chmod(0o755)
    assert child.exitcode == 0


def use_read_only(path: Path) -> None:
    if os.getuid() == 0:
        os.setuid(65534)  # permissions do not hold for root
    run = open_run(str(path), path.parent.parent)
    assert run.done() == {make_trace(1).id}
    assert [info.num_traces for info in list_runs(path.parent.parent)] == [1]
    with pytest.raises(StoreError, match="cannot be written"):
        run.append(make_trace(2))
    with pytest.raises(StoreError, match="cannot be written"), run.working():
        pass
    with pytest.raises(StoreError, match="FIRSTHAND_HOME"):
        create(path, {}, "sums")


def test_a_newer_schema_is_refused(run: Run) -> None:
    open_file(run).execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(
        StoreError, match=f"schema version {len(MIGRATIONS) + 1}, and this firsthand knows {len(MIGRATIONS)}"
    ):
        open_run(run.id, run.path.parent.parent)


@pytest.mark.slow
def test_another_sqlite_file_is_refused_and_left_alone(run: Run) -> None:
    run.close()
    (run.path / DATABASE).unlink()
    other = sqlite3.connect(run.path / DATABASE)
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    before = (run.path / DATABASE).read_bytes()
    with pytest.raises(StoreError, match="not a run"):
        open_run(run.id, run.path.parent.parent)
    assert (run.path / DATABASE).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("statement", [
    "CREATE TRIGGER t AFTER INSERT ON traces BEGIN DELETE FROM traces; END",
    "DROP TABLE preferences",
    "CREATE VIEW v AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
])  # fmt: skip
def test_a_schema_that_is_not_ours_is_refused(run: Run, statement: str) -> None:
    with open_file(run) as connection:
        connection.execute(statement)
    with pytest.raises(StoreError, match="tables are not those of a run"):
        open_run(run.id, run.path.parent.parent)


@pytest.mark.slow
def test_a_changed_body_is_noticed(run: Run) -> None:
    run.append(make_trace(1, answer="4"))
    with open_file(run) as connection:
        packed = zlib.compress(json.dumps(make_trace(1, answer="5").to_json()).encode())
        connection.execute("UPDATE bodies SET zlib = ? WHERE sha256 = (SELECT body FROM traces)", (packed,))
    with pytest.raises(StoreError, match="SHA-256"):
        list(run.traces())
    with open_file(run) as connection:
        connection.execute("DELETE FROM bodies WHERE sha256 = (SELECT body FROM traces)")
    with pytest.raises(StoreError, match="missing"):
        list(run.traces())


@pytest.mark.slow
def test_a_body_that_would_fill_the_memory_is_refused(run: Run) -> None:
    squeezed = zlib.compressobj()
    bomb = b"".join(squeezed.compress(bytes(1 << 20)) for _ in range((MAX_BODY_BYTES >> 20) + 8)) + squeezed.flush()
    run.append(make_trace(1))
    with open_file(run) as connection:
        connection.execute("UPDATE bodies SET zlib = ? WHERE sha256 = (SELECT body FROM traces)", (bomb,))
    with pytest.raises(StoreError, match="cut short, or too large"):
        list(run.traces())


@pytest.mark.slow
def test_a_trace_whose_messages_go_in_a_circle_is_refused_both_ways(run: Run) -> None:
    circle = make_trace(1, nodes=(Node(1, user("a")), Node(0, user("b"))))
    with pytest.raises(StoreError, match="parent does not come before it"):
        run.append(circle)
    assert run.done() == set()
    run.append(make_trace(1))
    with run.database.write() as connection:
        connection.execute("UPDATE traces SET body = ?", (put(connection, circle.to_json()),))
    with pytest.raises(StoreError, match="damaged"):
        list(run.traces())


def test_a_run_that_vanished_or_was_never_begun_is_a_sentence(run: Run) -> None:
    home = run.path.parent.parent
    with open_file(run) as connection:
        connection.execute("DELETE FROM run")
    with pytest.raises(StoreError, match="never begun"):
        open_run(run.id, home)
    shutil.rmtree(run.path)
    with pytest.raises(UnknownName, match="shows all"):
        open_run(run.id, home)
    with pytest.raises(StoreError, match="no run at"):
        Database(run.path / DATABASE)


def test_the_largest_scores_that_a_run_takes_have_a_mean_and_larger_ones_are_refused(run: Run) -> None:
    for number, value in enumerate((1e200, 1e200, -1e200, 1e200)):
        changes = {"id": str(number), "place": str(number), "task_id": f"t{number // 2}", "epoch": number % 2}
        run.append(make_trace(number, scores=(Score("correct", value),), **changes))
    assert [each.mean for each in run.info.scores] == [5e199]
    with pytest.raises(DataError, match="beyond its range"):
        run.append(make_trace(9, scores=(Score("correct", 1.7e308),), id="9", place="9"))


def test_a_benchmark_of_which_nothing_was_scored_has_no_mean_and_one_failed_agent_beside_a_scored_one_has_0(
    run: Run,
) -> None:
    run.append(make_trace(0, scores=(), benchmark="talk", id="0", place="0"))
    assert run.info.scores == ()
    run.append(make_trace(1, scores=(), benchmark="sums", agent={"name": "fails"}, id="1", place="1"))
    run.append(
        make_trace(2, scores=(Score("right", 1.0),), benchmark="sums", agent={"name": "works"}, id="2", place="2")
    )
    assert [(each.benchmark, each.agent, each.mean) for each in run.info.scores] == [
        ("sums", "fails", 0.0),
        ("sums", "works", 1.0),
    ]


@pytest.mark.parametrize(
    "value", [1 << 20_000, -(1 << 20_000), {(1, 2): 3}, "deep"], ids=["large", "small", "keys", "deep"]
)
def test_a_detail_that_json_cannot_hold_becomes_text_and_elsewhere_an_error(value: Any, tmp_path: Path) -> None:
    if value == "deep":
        value = []
        for _ in range(200_000):
            value = [value]
    kept = sqlite3.connect(":memory:")
    kept.execute("CREATE TABLE bodies (sha256 BLOB NOT NULL PRIMARY KEY, zlib BLOB NOT NULL)")
    put(kept, {"a": [value], "b": 1, 2: None}, exact=False)
    stored = json.loads(zlib.decompress(kept.execute("SELECT zlib FROM bodies").fetchone()[0]))
    assert stored["b"] == 1 and stored["2"] is None
    (held,) = stored["a"]
    if isinstance(value, int):
        assert int(held, 16) == value
    elif isinstance(value, dict):
        assert held == {"(1, 2)": 3}
    else:
        assert "nested more than 100 deep" in json.dumps(held)
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        put(kept, value)
