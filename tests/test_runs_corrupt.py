"""A run's file may be cut, scribbled over or hostile: what can be read is right, the rest is a StoreError, never another."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from firsthand.errors import StoreError
from firsthand.preference import Preference
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import Run, create, list_runs, open_run
from firsthand.task import Task
from firsthand.trace import Score, Trace
from thorough import repetitions

NUM_TRACES = 30


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small sound run."""
    run = create(tmp_path_factory.mktemp("home"), {"seed": 1}, "sound")
    run.add_tasks("b", [Task(f"t{number}", "?" * number) for number in range(NUM_TRACES)])
    run.add_agent("a", {"name": "a"})
    for number in range(NUM_TRACES):
        run.journal(f"{number:x}").record(":0", f"r{number}", {"number": number, "text": "word " * number})
        run.append(make_trace(number))
    run.add_preference(Preference("t1", "0", "1", "a", "me"))
    run.close()
    return run.path / DATABASE


def make_trace(number: int) -> Trace:
    scores = (Score("s", number / 8),)
    return Trace(f"{number:x}", "b", f"t{number}", {"name": "a"}, 0, 0, "", 0.0, answer="x" * number, scores=scores)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


def use_everything(home: Path, content: bytes) -> None:
    """Write the file and use all of it: each step succeeds with what was stored, or is a StoreError."""
    path = home / "runs" / "2026-01-01-0000-broken-aaaa"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / DATABASE).write_bytes(content)
    assert len(list_runs(home)) == 1
    try:
        run = open_run("last", home)
    except StoreError:
        return
    with run:
        for step in (check_traces, check_tasks, check_replies, check_rest, check_writing):
            attempt(step, run)


def attempt(step: Callable[[Run], None], run: Run) -> None:
    try:
        step(run)
    except StoreError as error:
        assert run.id in str(error)


def check_traces(run: Run) -> None:
    for trace in run.traces():
        assert trace == make_trace(int(trace.id, 16))
    for row in run.rows():
        assert row.name.count("/") >= 3
    run.done()
    assert run.trace("b/t3/a/0") == make_trace(3)


def check_tasks(run: Run) -> None:
    for (_, _), task in run.tasks().items():
        assert task == Task(task.id, "?" * int(task.id[1:]))
    run.agents()


def check_replies(run: Run) -> None:
    for number in range(NUM_TRACES):
        reply = run.journal(f"{number:x}").find(":0", f"r{number}")
        assert reply is None or set(reply) == {"number", "text"}
        run.reply(f"r{number}")


def check_rest(run: Run) -> None:
    assert run.preferences() in ([Preference("t1", "0", "1", "a", "me")], [])
    assert run.info.id == run.id


def check_writing(run: Run) -> None:
    run.append(make_trace(7))
    run.journal("new").record(":0", "r", {"x": 1})
    run.add_tasks("b", [Task("t1", "?")])


@pytest.mark.slow
def test_the_sound_run_passes_its_own_checks(home: Path, sound: Path) -> None:
    use_everything(home, sound.read_bytes())
    run = open_run("last", home)
    assert len(run.done()) == NUM_TRACES
    for step in (check_traces, check_tasks, check_replies, check_rest, check_writing):
        step(run)


@pytest.mark.slow
@example(flips=[(60, 128)])  # a negative schema version
@example(flips=[(3384, 128)])  # a table name that is not UTF-8
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    flips=st.lists(
        st.tuples(st.integers(0, 99) | st.integers(0, 4095) | st.integers(0, 1 << 20), st.integers(0, 255)),
        min_size=1,
        max_size=8,
    )
)
def test_flipped_bytes_are_a_store_error_or_do_no_harm(home: Path, sound: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(sound.read_bytes())
    for at, value in flips:
        content[at % len(content)] = value
    use_everything(home, bytes(content))


@pytest.mark.slow
def test_many_flipped_bytes_are_store_errors_or_do_no_harm(home: Path, sound: Path) -> None:
    rng, whole = random.Random(11), sound.read_bytes()
    for _ in range(repetitions(1500, 200)):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 30])):
            content[rng.randrange(rng.choice([100, 4096, len(content)]))] = rng.randrange(256)
        use_everything(home, bytes(content))


@pytest.mark.slow
def test_a_truncated_file_is_a_store_error_or_does_no_harm(home: Path, sound: Path) -> None:
    rng, whole = random.Random(5), sound.read_bytes()
    lengths = [0, 1, 15, 16, 100, 4095, 4096, 4097, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(20))]
    for length in lengths:
        use_everything(home, whole[:length])
        use_everything(home, whole[:length] + bytes(len(whole) - length))


def test_random_bytes_are_a_store_error(home: Path, sound: Path) -> None:
    rng, whole = random.Random(6), sound.read_bytes()
    for start in (b"", b"SQLite format 3\x00", whole[:100]):
        for length in (1, 600, 5000):
            use_everything(home, start + rng.randbytes(length))
            with pytest.raises(StoreError):
                open_run("last", home)
