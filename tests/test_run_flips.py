"""A flipped byte in a run's file, in a page of any kind, gives the same numbers or a StoreError: never another number."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand import cli
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import StoreError
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import integrity
from firsthand.runs.execute import execute
from firsthand.runs.index import INDEX
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import Run, create, list_runs, open_run
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace, new_trace_id
from thorough import repetitions

NUM_TASKS, NUM_EPOCHS = 24, 3
KINDS = {2: "index interior", 5: "table interior", 10: "index leaf", 13: "table leaf"}


def make_trace(number: int, task: int, agent: str, epoch: int) -> Trace:
    rng = Random(f"{task} {agent} {epoch}")
    scores = (Score("s", rng.random(), {"found": "x" * 30}), Score("t", float(rng.random() > 0.5)))
    error = Failure("ValueError", "down") if rng.random() < 0.1 else None
    return Trace(
        new_trace_id(), "b", f"t{task}", {"name": agent}, epoch, 0, "", rng.random(), answer=rng.randbytes(3000).hex(),
        scores=() if error else scores, error=error, place=rng.randbytes(16).hex(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed run with pages of every kind: interior pages, long bodies, free pages, retried attempts, later scores."""
    run = create(tmp_path_factory.mktemp("sound"), {"seed": 1}, "sound")
    run.add_tasks("b", [Task(f"t{n}", "?" * n, metadata={"cluster": f"c{n // 3}"}) for n in range(NUM_TASKS)])
    for agent in ("one", "two"):
        run.add_agent(agent, {"name": agent})
    places = [
        (task, agent, epoch) for task in range(NUM_TASKS) for agent in ("one", "two") for epoch in range(NUM_EPOCHS)
    ]
    for number, (task, agent, epoch) in enumerate(places):
        trace = make_trace(number, task, agent, epoch)
        for effect in range(4):
            run.journal(trace.place).record(f":{effect}", f"{number:064x}", {"text": f"{number} {effect}"})
        run.append(trace)
        if number % 10 == 0:
            run.append(replace(trace, id=new_trace_id(), error=None, scores=(Score("s", 0.5),)))
    for trace, number in list(run.tried()):
        run.add_score(trace, number, "later", "a scorer", Score("later", float(len(trace.task_id))))
    run.plan(len(places) + 5)
    with run.database.write() as connection:
        connection.execute("CREATE TABLE gone (x)")
        connection.execute("INSERT INTO gone VALUES (zeroblob(100000))")
        connection.execute("DROP TABLE gone")
    run.close()
    return run.path / DATABASE


def numbers_of(run: Run) -> list[Any]:
    """All that is printed of a run's numbers."""
    info = run.info
    return [
        (info.num_traces, info.num_errors, info.tokens, info.num_planned, info.scores, info.created_at, info.config),
        run.totals(),
        run.totals("later"),
        run.task_means(),
        [repr(each) for each in run.summaries()],
        list(run.rows()),
        sorted(run.done(errors=False)),
        run.spent(),
        run.scored("later"),
        run.clusters(),
    ]


def pages_of(content: bytes) -> dict[str, list[int]]:
    """The pages' numbers by kind; overflow and free pages are `other`."""
    found = defaultdict(list)
    for page in range(len(content) // 4096):
        found["first" if page == 0 else KINDS.get(content[page * 4096], "other")].append(page)
    return found


def flipped(content: bytes, page: int, rng: Random) -> bytes:
    """One bit of the page changed, mostly of a byte that is not 0: what lies between the cells is 0."""
    inside = range(page * 4096, page * 4096 + 4096)
    at = rng.choice([at for at in inside if content[at]] or inside) if rng.random() < 0.8 else rng.choice(inside)
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def write_copy(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / DATABASE).write_bytes(content)
    return folder


def check_flips(sound: Path, tmp_path: Path, seed: int, each_kind: int, use: Callable[[Run], Any]) -> dict[str, int]:
    """Use copies with a flipped bit; how many of each kind of page were refused."""
    content, rng, refused = sound.read_bytes(), Random(seed), dict[str, int]()
    with open_run(write_copy(tmp_path / "copy", content), tmp_path) as run:
        expected = use(run)
    kinds = pages_of(content)
    assert set(kinds) == {"first", "other", *KINDS.values()}
    for kind, pages in sorted(kinds.items()):
        refused[kind] = 0
        for _ in range(each_kind):
            path = write_copy(tmp_path / "copy", flipped(content, rng.choice(pages), rng))
            try:
                with open_run(path, tmp_path) as run:
                    assert use(run) == expected, kind
            except StoreError as error:
                assert "copy" in str(error)
                refused[kind] += 1
    return refused


@pytest.mark.slow
@pytest.mark.parametrize("each_kind", [3, pytest.param(repetitions(400, 50), marks=pytest.mark.slow)])
def test_a_flipped_bit_never_gives_another_number(sound: Path, tmp_path: Path, each_kind: int) -> None:
    refused = check_flips(sound, tmp_path, 3, each_kind, numbers_of)
    assert sum(refused.values()) > each_kind and (each_kind < 50 or all(refused[kind] for kind in KINDS.values())), (
        refused
    )


@pytest.mark.parametrize("table, column", [("traces", "score"), ("traces", "tokens"), ("scores", "value")])
def test_a_number_changed_in_place_is_noticed(sound: Path, tmp_path: Path, table: str, column: str) -> None:
    """Both copies of it, in the table and in the index, as no flipped bit would: what is noticed is the row's checksum."""
    path = write_copy(tmp_path / "copy", sound.read_bytes())
    with open_run(path, tmp_path) as run:
        before = numbers_of(run)
        last = f"(SELECT max(seq) FROM {table} WHERE {column} IS NOT NULL)"
        with run.database.write() as connection:
            connection.execute(f"UPDATE {table} SET {column} = {column} + 1 WHERE seq = {last}")
        assert numbers_of(run) != before  # an open run was checked when it was opened
    with (
        open_run(path, tmp_path) as run,
        pytest.raises(StoreError, match=f"1 of the rows in its {table} have been changed"),
    ):
        numbers_of(run)


@pytest.mark.slow
@pytest.mark.parametrize("each_kind", [2, pytest.param(repetitions(150, 20), marks=pytest.mark.slow)])
def test_what_passes_the_check_before_a_resume_has_every_reply(sound: Path, tmp_path: Path, each_kind: int) -> None:
    def replies(run: Run) -> list[Any]:
        run.check()
        places = [make_trace(0, task, "one", 0).place for task in range(NUM_TASKS)]
        return [run.journal(place).entries() for place in places] + [sorted(run.done())]

    assert sum(check_flips(sound, tmp_path, 7, each_kind, replies).values()) > 4


def test_a_run_with_a_flipped_index_is_not_gone_on_with(tmp_path: Path) -> None:
    """An effect that its index does not show would be made a second time."""
    run = create(tmp_path, {}, "flipped")
    made: list[str] = []

    async def counting(task: Any, ctx: Any) -> str:
        made.append(task.id)
        return str((await ctx.say(task.prompt).generate()).text)

    bench = Benchmark("b", lambda seed: [Task("t", "?")], scorers=())
    places = [
        Place(Agent("counting", Scripted({"": "1"}), counting), bench, Task("t", "?"), epoch) for epoch in range(3)
    ]
    asyncio.run(execute(run, places[:2]))
    roots = dict(run.database.read("SELECT name, rootpage FROM sqlite_master"))
    run.close()
    content = bytearray((run.path / DATABASE).read_bytes())
    place = places[0].id.encode()
    at = content.index(place, (roots["effects_by_place"] - 1) * 4096)
    assert at < roots["effects_by_place"] * 4096
    content[at] ^= 1
    (run.path / DATABASE).write_bytes(content)
    with open_run(run.id, tmp_path) as again, pytest.raises(StoreError, match="tables and indexes do not agree"):
        asyncio.run(execute(again, places))
    assert len(made) == 2


def test_a_large_run_is_checked_when_asked(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    path = write_copy(tmp_path / "copy", sound.read_bytes())
    assert cli.main(["runs", str(path), "--check"]) == 0
    assert "is sound" in capsys.readouterr().out
    with open_run(path, tmp_path) as run:
        body = run.database.read("SELECT body FROM traces WHERE seq = 9")[0][0]
        with run.database.write() as connection:
            connection.execute("UPDATE bodies SET zlib = zlib || x'00' || zlib WHERE sha256 = ?", (body,))
            connection.execute("DELETE FROM bodies WHERE sha256 = (SELECT body FROM traces WHERE seq = 10)")
    assert cli.main(["runs", str(path), "--check"]) == 2
    assert "damaged" in capsys.readouterr().err
    monkeypatch.setattr(integrity, "EVERY_READ", 10)
    with open_run(path, tmp_path) as run:
        with run.database.write() as connection:
            connection.execute("UPDATE traces SET tokens = 7 WHERE seq = 5")
        assert run.info.tokens == 7
    assert cli.main(["runs", str(path), "--check"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("count", [12, pytest.param(repetitions(1500, 200), marks=pytest.mark.slow)])
def test_a_flipped_bit_in_the_index_of_runs_changes_no_list(tmp_path: Path, count: int) -> None:
    for number in range(4):
        with create(tmp_path, {"n": number}, f"run{number}") as run:
            for task in range(number):
                run.append(make_trace(0, task, "one", 0))

    def listed() -> list[Any]:
        return [replace(info, updated_at=0.0) for info in list_runs(tmp_path)]

    index, rng = tmp_path / "runs" / INDEX, Random(2)
    expected = listed()
    for name in ("-wal", "-shm"):
        assert not (tmp_path / "runs" / f"{INDEX}{name}").exists()
    content = index.read_bytes()
    with sqlite3.connect(index) as connection:
        connection.execute("UPDATE runs SET done = done + 1")
    connection.close()
    assert listed() == expected
    for _ in range(count):
        index.write_bytes(flipped(content, rng.randrange(len(content) // 4096), rng))
        assert listed() == expected
        for name in ("-wal", "-shm"):
            (tmp_path / "runs" / f"{INDEX}{name}").unlink(missing_ok=True)
    assert index.stat().st_size > 0
