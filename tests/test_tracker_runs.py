"""Runs of other trackers made into ours, and ours into theirs: names, settings, steps, times, and what is refused."""

from __future__ import annotations

import math
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.runs import store, track_export, track_import
from firsthand.runs.event_files import LoggedValue
from firsthand.runs.track import Track
from firsthand.runs.track_export import FORMATS, _await_end, export, export_csv, export_wandb
from firsthand.runs.track_import import (
    TrackedRun,
    _beginning,
    _lines,
    _mlflow,
    _named,
    _object,
    _trackio,
    _trackio_row,
    import_runs,
    tracked_runs,
)
from tracker_bytes import event, history, item, part, record, simple, wandb_log


@pytest.fixture
def track(tmp_path: Path) -> Iterator[Track]:
    config = {"lr": 0.5, "name": "x", "size": 3, "fast": True, "layers": [1], "none": None}
    with store.create(tmp_path / "home", config, "fit", command=["fit"]) as run:
        made = Track(run)
        made.log({"b": 0.1, "=a": 2.0}, step=3, at=1e9 + 0.12345)
        made.log({"b": math.nan}, step=5, at=1e9 + 2)
        made.log({"b": 7.0}, step=1, at=1e9 + 3)
        yield made


def test_a_csv_file_has_a_line_for_each_value_by_name_and_step(track: Track, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    assert export_csv(track, target) == 4
    assert target.read_bytes().decode() == (
        "metric,step,value,time\r\n"
        "'=a,3,2.0,1000000000.123\r\n"
        "b,1,7.0,1000000003.000\r\n"
        "b,3,0.1,1000000000.123\r\n"
        "b,5,nan,1000000002.000\r\n"
    )
    with pytest.raises(FileExistsError):
        export_csv(track, target)


def test_an_export_has_a_format_that_is_known_and_a_name_that_is_new(track: Track, tmp_path: Path) -> None:
    assert list(FORMATS) == ["csv", "tensorboard", "wandb"]
    with pytest.raises(ConfigError) as form:
        export(track, "xls", tmp_path / "out")
    assert str(form.value) == "'xls' is no format: give one of csv, tensorboard, wandb"
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError) as there:
        export(track, "csv", tmp_path / "out")
    assert str(there.value) == f"{tmp_path / 'out'} is there already: give a new name"
    with pytest.raises(StoreError) as folder:
        export(track, "csv", tmp_path / "none" / "out")
    assert str(folder.value) == f"{tmp_path / 'none' / 'out'} cannot be written: No such file or directory"
    assert export(track, "csv", tmp_path / "out" / "x.csv") == 4
    assert (tmp_path / "out" / "x.csv").is_file()


def test_what_another_tracker_needs_is_named_where_it_is_not_installed(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    for form, what in (("tensorboard", "TensorBoard's files"), ("wandb", "an offline run of Weights & Biases")):
        with pytest.raises(ConfigError) as missing:
            export(track, form, tmp_path / "out")
        assert str(missing.value) == f"{what} need a package that is not installed: pip install 'firsthand[track]'"
        assert not (tmp_path / "out").exists()


class Wandb:
    """The part of W&B's module that an export uses, without its process: it writes the log that the real one writes."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.begun: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.log = Path()

    def Settings(self, **settings: Any) -> SimpleNamespace:  # noqa: N802
        self.settings = settings
        return SimpleNamespace(**settings)

    def init(self, *, dir: str, settings: SimpleNamespace, **begun: Any) -> SimpleNamespace:
        assert vars(settings) == self.settings
        self.begun = begun
        self.log = Path(dir) / "wandb" / "offline-run-1" / "run-1.wandb"
        self.log.parent.mkdir(parents=True)
        return SimpleNamespace(log=lambda row, step: self.rows.append((step, dict(row))), finish=self.finish)

    def finish(self) -> None:
        self.log.write_bytes(wandb_log(*(history(step, **row) for step, row in self.rows), part(18, b"")))


@pytest.mark.slow
def test_wandb_is_given_each_step_once_in_growing_order_and_the_plain_settings(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # test_track.py runs the real one, which takes seconds
    assert export_wandb(track, tmp_path / "deep" / "out") == 4
    assert wandb.begun == {
        "mode": "offline",
        "project": "firsthand",
        "name": track.run.id,
        "config": {"lr": 0.5, "name": "x", "size": 3, "fast": True},
    }
    assert wandb.settings == {
        "silent": True, "console": "off", "x_disable_stats": True, "x_disable_meta": True, "disable_git": True,
    }  # fmt: skip
    assert wandb.log.is_relative_to(tmp_path / "deep" / "out")
    assert wandb.rows[:2] == [(1, {"b": 7.0}), (3, {"=a": 2.0, "b": 0.1})]
    ((step, row),) = wandb.rows[2:]
    assert (step, list(row), math.isnan(row["b"])) == (5, ["b"], True)
    with pytest.raises(FileExistsError):
        export_wandb(track, tmp_path / "deep" / "out")


def test_the_end_of_each_log_is_waited_for_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = wandb_log(history(1, loss=1.0), part(18, b"")), wandb_log(history(1, loss=1.0))
    logs = [tmp_path / "wandb" / f"offline-run-{number}" / f"run-{number}.wandb" for number in (1, 2)]

    def late() -> str:
        with monkeypatch.context() as patch, pytest.raises(StoreError) as waited:
            patch.setattr(track_export, "WRITTEN_S", 0.0)
            _await_end(tmp_path)
        return str(waited.value)

    sentence = f"W&B has not written the whole run to {tmp_path} within 0 s"
    assert late() == sentence, "there is no log"
    for log in logs:
        log.parent.mkdir(parents=True)
    logs[0].write_bytes(whole)
    _await_end(tmp_path)
    logs[1].write_bytes(cut)
    assert late() == sentence, "one of two has not ended"
    writer = threading.Timer(0.03, lambda: logs[1].write_bytes(whole))
    writer.start()
    _await_end(tmp_path)
    assert logs[1].read_bytes() == whole
    writer.join()


def trackio(file: Path, key: str, *rows: tuple[Any, ...]) -> None:
    columns = "run_name" if key == "run_name" else "run_id TEXT, run_name"
    with sqlite3.connect(file) as connection:
        connection.execute(
            f"CREATE TABLE metrics (id INTEGER PRIMARY KEY, {columns} TEXT, step INTEGER, timestamp TEXT, metrics TEXT)"
        )
        connection.execute(f"CREATE TABLE configs ({key} TEXT, config TEXT)")
        names = "run_name" if key == "run_name" else "run_id, run_name"
        for row in rows:
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO metrics ({names}, step, timestamp, metrics) VALUES ({marks})", row)
        connection.execute("INSERT INTO configs VALUES ('r2', '{\"lr\": 0.5}'), ('r1', '[1]')")
    connection.close()


@pytest.mark.slow
def test_a_database_of_trackio_gives_its_runs_in_the_order_they_began(tmp_path: Path) -> None:
    file, zero = tmp_path / "proj.db", "1970-01-01T00:00:10+00:00"
    trackio(
        file, "run_id", ("r2", "two", 4, zero, '{"a": 1, "b": "NaN", "c": "Infinity", "d": "text", "e": null}'),
        ("r1", "one", 0, "never", '{"a": 0.5}'), ("r2", "two", 2, zero, '{"a": 3}'), ("r2", "new", 2, zero, '{"a": 4}'),
    )  # fmt: skip
    two, one = _trackio(file)
    assert (two.name, two.source, two.config) == ("proj-two", "trackio", {"lr": 0.5})
    values = list(two.values)
    assert values[:3] == [
        LoggedValue("a", 2, 3.0, 10.0),
        LoggedValue("a", 2, 4.0, 10.0),
        LoggedValue("a", 4, 1.0, 10.0),
    ]
    assert [(each.name, each.step) for each in values[3:]] == [("b", 4), ("c", 4)]
    assert (math.isnan(values[3].value), values[4].value) == (True, math.inf)
    assert one == TrackedRun("proj-one", "trackio", {}, [LoggedValue("a", 0, 0.5, 0.0)])
    trackio(tmp_path / "old.db", "run_name", ("r2", 1, zero, '{"a": 1}'))
    assert list(_trackio(tmp_path / "old.db")) == [
        TrackedRun("old-r2", "trackio", {"lr": 0.5}, [LoggedValue("a", 1, 1.0, 10.0)])
    ]
    for number, table in enumerate(
        ("other TEXT, config TEXT", "run_id TEXT, other TEXT", "run_name TEXT, config TEXT")
    ):
        bare = tmp_path / f"bare{number}.db"
        trackio(bare, "run_id", ("r2", "two", 1, zero, '{"a": 1}'))
        with sqlite3.connect(bare) as connection:
            connection.execute("DROP TABLE configs")
            connection.execute(f"CREATE TABLE configs ({table})")
            connection.execute("INSERT INTO configs VALUES ('r2', '{}')")
        connection.close()
        assert list(_trackio(bare)) == [
            TrackedRun(f"bare{number}-two", "trackio", {}, [LoggedValue("a", 1, 1.0, 10.0)])
        ]
    with sqlite3.connect(tmp_path / "less.db") as connection:
        connection.execute("CREATE TABLE metrics (id INTEGER, run_name TEXT, step INTEGER, metrics TEXT)")
    connection.close()
    assert list(_trackio(tmp_path / "less.db")) == []
    with sqlite3.connect(tmp_path / "view.db") as connection:
        connection.execute(
            "CREATE VIEW metrics AS SELECT 1 AS id, 2 AS timestamp, 3 AS run_name, 4 AS step, 5 AS metrics"
        )
    connection.close()
    assert list(_trackio(tmp_path / "view.db")) == []
    (tmp_path / "old.db-journal").mkdir()  # what cannot be looked into is not believed
    with pytest.raises(DataError) as forged:
        list(_trackio(tmp_path / "old.db"))
    assert str(forged.value) == f"a journal beside {tmp_path / 'old.db'} is not its own: remove it"
    (tmp_path / "no.db").write_bytes(b"x" * 5000)
    with pytest.raises(DataError) as broken:
        list(_trackio(tmp_path / "no.db"))
    assert str(broken.value) == f"{tmp_path / 'no.db'} cannot be read as a database: file is not a database"


def test_a_row_of_trackio_has_a_whole_step_and_a_time_if_it_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    body = '{"a": true, "b": "-Infinity", "c": "Inf", "d": [1], "e": 2}'
    assert list(_trackio_row(file, 0, "1970-01-01T01:00:00+01:00", body)) == [
        LoggedValue("a", 0, 1.0, 0.0), LoggedValue("b", 0, -math.inf, 0.0), LoggedValue("e", 0, 2.0, 0.0),
    ]  # fmt: skip
    assert [each.at for each in _trackio_row(file, 1, None, '{"a": 1}')] == [0.0]
    for step in (-1, "x", None, 1.5):
        with pytest.raises(DataError) as wrong:
            list(_trackio_row(file, step, "", "{}"))
        assert str(wrong.value) == f"{file}: a step is {step!r}: a whole number was expected"
    assert (_object('{"a": 1}'), _object(b'{"b": 2}')) == ({"a": 1}, {"b": 2})
    assert [_object(text) for text in ("[1]", "{", None, 5, "[" * 100_000)] == [{}] * 5


def test_a_run_of_mlflow_has_metrics_in_folders_settings_and_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "abc"
    for name, text in (
        ("metrics/val/loss", "1500 0.5 7\n2500 nan 8\n"),
        ("metrics/acc", "1000 0.25\n3000 1e3\n4000 2 -1\n"),
        ("params/lr", "0.1 "),
        ("params/name", "x" * 2001),
        ("tags/mlflow.runName", " quiet owl\n"),
        ("tags/other", "no"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "secret").write_text("1 2 3")
    (folder / "params" / "link").symlink_to(tmp_path / "secret")
    (folder / "metrics" / "link").symlink_to(tmp_path / "secret")
    found = _mlflow(folder)
    assert (found.name, found.source) == ("quiet owl", "mlflow")
    assert found.config == {"lr": "0.1 ", "name": "x" * 2000}
    values = list(found.values)
    assert values.pop(2) == LoggedValue("acc", -1, 2.0, 4.0), "the import tells of it"
    assert values[:3] == [
        LoggedValue("acc", 0, 0.25, 1.0), LoggedValue("acc", 1, 1000.0, 3.0), LoggedValue("val/loss", 7, 0.5, 1.5),
    ]  # fmt: skip
    assert (values[3].name, values[3].step, math.isnan(values[3].value), len(values)) == ("val/loss", 8, True, 4)
    (folder / "tags" / "mlflow.runName").unlink()
    assert _mlflow(folder).name == "abc"
    for text, line, shown in (("1 2 3\n4\n", 2, "4\\n"), ("x 1 2\n", 1, "x 1 2\\n"), ("1 2 c\n", 1, "1 2 c\\n")):
        (folder / "metrics" / "acc").write_text(text)
        with pytest.raises(DataError) as wrong:
            _mlflow(folder)
        file = folder / "metrics" / "acc"
        assert str(wrong.value) == f"{file}, line {line}: time, value and step were expected, not '{shown}'"


def test_lines_and_beginnings_of_files_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"a" * 1998 + b"\nb\xff")
    assert list(_lines(file)) == ["a" * 1998 + "\n", "b�"]
    assert _beginning(file) == "a" * 1998 + "\nb"
    file.write_text("a" * 1999 + "\n")
    with pytest.raises(DataError) as long:
        list(_lines(file))
    assert str(long.value) == f"{file} has a line of more than 2,000 characters: it is no metric"
    assert _named("a\tb\nc") == "a b c"
    assert (_named(""), _named("x" * 201), _named("é\ud800")) == ("unnamed", "x" * 200, "é ")


def test_a_folder_holds_the_runs_of_several_trackers_in_a_fixed_order(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    for folder in ("a/b", "w/offline-1", "m/metrics"):
        (root / folder).mkdir(parents=True)
    (root / "a" / "b" / "events.out.tfevents.2").write_bytes(record(event(2, 8.0, simple("x", 0.25))))
    (root / "a" / "b" / "events.out.tfevents.1").write_bytes(record(event(1, 7.0, simple("x", 0.5))))
    (root / "events.out.tfevents.9").write_bytes(record(event(9, 7.0, simple("y", 0.5))))
    (root / "w" / "offline-1" / "run-1.wandb").write_bytes(
        wandb_log(history(3, z=1.5), part(5, part(1, item("lr", "0.5"))))
    )
    (root / "m" / "meta.yaml").write_text("")
    (root / "m" / "metrics" / "acc").write_text("1000 0.5 2\n")
    (root / "w" / "meta.yaml").write_text("no metrics beside it")
    (root / "other.txt").write_text("x")
    found = list(tracked_runs(root))
    assert [(each.name, each.source, each.config) for each in found] == [
        ("m", "mlflow", {}), ("offline-1", "wandb", {"lr": 0.5}), ("a-b", "tensorboard", {}),
        ("logs", "tensorboard", {}),
    ]  # fmt: skip
    assert [list(each.values) for each in found[2:]] == [
        [LoggedValue("x", 1, 0.5, 7.0), LoggedValue("x", 2, 0.25, 8.0)], [LoggedValue("y", 9, 0.5, 7.0)],
    ]  # fmt: skip
    (alone,) = tracked_runs(root / "a" / "b" / "events.out.tfevents.2")
    assert (alone.name, [each.step for each in alone.values]) == ("b", [2])
    with pytest.raises(ConfigError) as gone:
        list(tracked_runs(tmp_path / "gone"))
    assert str(gone.value) == f"{tmp_path / 'gone'} is not there: give a file or folder of a tracker"


@pytest.mark.slow
def test_an_imported_run_keeps_values_times_and_settings_and_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, root = tmp_path / "home", tmp_path / "logs"
    root.mkdir()
    late, year = 253_370_764_800.0, 253_370_764_799.0
    rows = {"name\tx": 0.5, "_timestamp": year}, {"name\tx": 0.25, "_timestamp": late}
    name = part(17, part(8, ("long" * 20).encode()))
    config = part(5, part(1, item("lr", "0.5")))
    (root / "a.wandb").write_bytes(wandb_log(name, config, history(7, **rows[0]), history(5, **rows[1])))
    (root / "b.wandb").write_bytes(wandb_log(name))
    (root / "c.wandb").write_bytes(
        wandb_log(history(1, y=2.0), history(0, y=4.0), history(1, y=1.0), history(1, x=0.0))
    )
    made = import_runs(root, home)
    assert [count for _, count in made] == [2, 3], "one without numbers is no run, and of a step the last is kept"
    with store.open_run(made[0][0], home) as run:
        assert run.config == {"kind": "track", "name": "long" * 20, "imported": "wandb", "settings": {"lr": 0.5}}
        assert (run.status, run.id[16:-5]) == ("done", "long" * 10)
        curve = Track(run).curve("name x")
        assert (curve.steps, curve.values, curve.at[1]) == ((5, 7), (0.25, 0.5), year)
        assert curve.at[0] < 1e10, "a time beyond all calendars is left out"
    with store.open_run(made[1][0], home) as run:
        assert Track(run).curve("y").at[0] > 1e9, "so is none"
        assert Track(run).curve("y").steps == (0, 1)
        assert Track(run).curve("y").values == (4.0, 1.0), "of two at one step the later counts"
    for name, text in (("meta.yaml", ""), ("metrics/acc", "1000 0.5 2"), ("tags/mlflow.runName", "  ")):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(text)
    ((nameless, _),) = import_runs(tmp_path / "m", home)
    assert nameless[16:-5] == "mlflow"
    monkeypatch.setattr(track_import, "MAX_RUNS", 1)
    assert len(import_runs(root, home)) == 1
    monkeypatch.setattr(track_import, "MAX_STEP", 6)
    with pytest.raises(DataError) as step:
        import_runs(root, home)
    assert str(step.value) == f"{('long' * 15)!r} has the step 7: steps up to 6 are kept"
    monkeypatch.setattr(track_import, "MAX_STEP", 7)
    assert len(import_runs(root, home)) == 1
    with pytest.raises(DataError) as nothing:
        import_runs(root / "b.wandb", home)
    assert str(nothing.value) == (
        f"{root / 'b.wandb'} holds no runs with numbers: an event file of TensorBoard, an offline-run folder of W&B, mlruns "
        "of MLflow or a database of trackio was expected"
    )
    assert len(list(store.list_runs(home))) == 5
