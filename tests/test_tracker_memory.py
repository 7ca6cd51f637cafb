"""Logs of other trackers that are made to take memory, disk or time: each is refused, or read within its own size."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.runs import logged_values, store, track_import, wandb_files
from firsthand.runs.event_files import LoggedValue, read_events
from firsthand.runs.logged_values import LoggedValues
from firsthand.runs.track import MAX_NAME, Track
from firsthand.runs.track_import import import_runs, tracked_runs
from firsthand.runs.wandb_files import read_wandb
from tracker_bytes import event, item, part, record, simple, wandb_log, whole

LONG = "\U0001f600" + "a" * 5000


def history(*items: bytes) -> bytes:
    return part(2, b"".join(part(1, each) for each in items) + part(2, whole(1, 1)))


def settings(*items: bytes) -> bytes:
    return part(5, b"".join(part(1, each) for each in items))


def test_a_long_name_is_cut_before_it_is_joined_with_the_names_of_its_parts(tmp_path: Path) -> None:
    file, cut = tmp_path / "run-1.wandb", LONG[:MAX_NAME]
    many = json.dumps({str(each): 1 for each in range(5)})
    file.write_bytes(wandb_log(part(17, part(8, LONG.encode())), history(item(LONG, many), item([LONG, "b"], "1"))))
    run = read_wandb(file)
    assert run.name == cut and {each.name for each in run.values} == {cut}
    (tmp_path / "tfevents.1").write_bytes(record(event(1, 1.0, simple(LONG, 0.5), simple("é" * MAX_NAME, 0.5))))
    assert [each.name for each in read_events(tmp_path / "tfevents.1")] == [cut, "é" * MAX_NAME]
    nested = [LONG[:150], "b", "c" * 100]
    file.write_bytes(wandb_log(history(item(nested, "2"), item(["eval", "acc"], "1"))))
    assert [each.name for each in read_wandb(file).values] == [".".join(nested)[:MAX_NAME], "eval.acc"]


def test_values_are_refused_one_too_many_and_their_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_values, "MAX_VALUES", 2)
    values = LoggedValues("r", (LoggedValue("a", step, 1.0, 0.0) for step in range(2)))
    taken = iter(range(2, 9))
    with pytest.raises(DataError, match="'r' has more than 2 values: thin its log out, then import it"):
        values.extend(LoggedValue("a", step, 1.0, 0.0) for step in taken)
    assert next(taken) == 3 and len(values) == 2, "the rest was not read"
    assert LoggedValues("r", [LoggedValue(LONG, 1, 1.0, 0.0)])[0].name == LONG[:MAX_NAME]


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "trackio"])
def test_each_reader_ends_at_the_value_too_many(tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "r"
    (folder / "metrics").mkdir(parents=True)
    if tracker == "wandb":
        bad = wandb_log(*[history(item("a", "1"), item("b", "2"))] * 4)
        (folder / "run.wandb").write_bytes(bad[:-1] + b"?")  # damaged, which is seen only where it is read
    elif tracker == "mlflow":
        (folder / "meta.yaml").write_text("")
        (folder / "metrics" / "a").write_text("0 0\n" * 5 + "no line of a metric\n")
    else:
        trackio(folder / "p.db", [("r", 1, '{"a": 1, "b": 2}')] * 2 + [("r", 1, '{"a": 1}'), ("r", "no step", "{}")])
    monkeypatch.setattr(logged_values, "MAX_VALUES", 4)
    with pytest.raises(DataError, match="more than 4 values"):
        list(tracked_runs(folder))


def test_values_of_settings_are_counted_over_the_run_and_those_of_history_by_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, three = tmp_path / "run-1.wandb", "[1, 2]"  # counted as three: the item, the list, the comma
    monkeypatch.setattr(wandb_files, "MAX_VALUES", 6)
    file.write_bytes(wandb_log(settings(item("a", three)), part(17, part(4, part(1, item("b", three))))))
    assert read_wandb(file).config == {"a": [1, 2], "b": [1, 2]}
    file.write_bytes(wandb_log(settings(item("a", three)), settings(item("b", three)), settings(item("c", "1"))))
    with pytest.raises(DataError, match="with the item 'c' there are more than 6 JSON values"):
        read_wandb(file)
    file.write_bytes(wandb_log(*[history(item("a", three), item("h", '{"_type": 1}'), item("loss", "1"))] * 9))
    assert len(read_wandb(file).values) == 9, "histograms of many steps are read"
    file.write_bytes(wandb_log(history(item("a", three), item("b", three), item("loss", "1"))))
    with pytest.raises(DataError, match="with the item 'loss' there are more than 6 JSON values"):
        read_wandb(file)


def trackio(file: Path, rows: list[tuple[str, object, str]], key: str = "id INTEGER PRIMARY KEY") -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"CREATE TABLE metrics ({key}, timestamp TEXT, run_name TEXT, step, metrics TEXT)")
        connection.executemany("INSERT INTO metrics (run_name, step, metrics) VALUES (?, ?, ?)", rows)


def test_a_database_is_read_without_a_sort_of_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[str, object, str]] = [("b", 7 - each, '{"x": 1}') for each in range(5)]
    trackio(tmp_path / "p.db", [*rows, ("a", 1, '{"y": 2}'), *rows[:1]])
    asked: list[str] = []
    connect = track_import.connect_bounded

    def traced(*given: object, **more: object) -> sqlite3.Connection:
        made = connect(*given, **more)  # type: ignore[arg-type]
        made.set_trace_callback(asked.append)
        return made

    monkeypatch.setattr(track_import, "connect_bounded", traced)
    monkeypatch.setattr(track_import, "_AT_ONCE", 2)
    found = list(tracked_runs(tmp_path / "p.db"))
    assert [(each.name, [value.step for value in each.values]) for each in found] == [
        ("p-b", [3, 4, 5, 6, 7, 7]), ("p-a", [1]),
    ]  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "p.db")) as connection:
        queries = [each for each in asked if "FROM metrics" in each]
        plans = [str(row) for each in queries for row in connection.execute(f"EXPLAIN QUERY PLAN {each}")]
    assert len(queries) == 5 and plans and not any("TEMP B-TREE" in each for each in plans)


def test_a_name_that_rows_share_a_thousand_times_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "p.db"
    trackio(file, [("r" * 20_000, 1, '{"x": 1}')])
    with closing(sqlite3.connect(file)) as connection:
        asked = connection.execute("SELECT rowid, run_name FROM metrics").fetchall()
    left = file.stat().st_size
    with pytest.raises(DataError, match="is damaged: its rows have more text than the file"):
        for _ in range(9):
            left = track_import._left(left, asked[0], file)
    assert next(tracked_runs(file)).name.startswith("p-rrr")


def test_runs_in_an_order_of_an_index_keep_that_in_which_they_began(tmp_path: Path) -> None:
    file = tmp_path / "p.db"
    trackio(file, [("b", 1, '{"x": 1}'), ("a", 1, '{"x": 1}'), ("b", 0, '{"x": 2}')], key="id INTEGER")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE INDEX by_run ON metrics (run_name, step)")
    assert [(each.name, [value.value for value in each.values]) for each in tracked_runs(file)] == [
        ("p-b", [2.0, 1.0]), ("p-a", [1.0]),
    ]  # fmt: skip


@pytest.mark.slow
def test_values_of_one_step_are_logged_together_and_of_two_with_one_name_the_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"n{each}" for each in range(5)]
    logged = [
        event(2, 7.0, *(simple(name, 0.5) for name in names)),
        event(1, 8.0, simple("n0", 1.0), simple("n0", 2.0)),
    ]
    logged += [event(2, 9.0, simple("n1", 4.0)), event(2, -1.0, simple("late", 3.0))]
    (tmp_path / "tfevents.1").write_bytes(b"".join(map(record, logged)))
    calls: list[tuple[dict[str, float], int, float | None]] = []
    log = Track.log

    def counted(self: Track, values: dict[str, float], *, step: int, at: float | None = None) -> None:
        calls.append((dict(values), step, at))
        log(self, values, step=step, at=at)

    monkeypatch.setattr(Track, "log", counted)
    ((run, count),) = import_runs(tmp_path, tmp_path / "home")
    assert count == 7 and calls == [
        ({"n0": 2.0}, 1, 8.0),
        ({name: 0.5 for name in names if name != "n1"}, 2, 7.0), ({"n1": 4.0}, 2, 9.0), ({"late": 3.0}, 2, None),
    ]  # fmt: skip
    monkeypatch.setattr(track_import, "MAX_PENDING", 3)
    calls.clear()
    import_runs(tmp_path, tmp_path / "home")
    assert [len(values) for values, *_ in calls] == [1, 3, 2, 1, 1]
    with store.open_run(run, tmp_path / "home") as kept:
        assert (Track(kept).curve("n0").values, Track(kept).curve("n1").values) == ((2.0, 0.5), (4.0,))
