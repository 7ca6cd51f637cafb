"""Curves of other trackers: what their own writers wrote is read, and what is damaged is named."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.errors import DataError, FirsthandError
from firsthand.runs import store
from firsthand.runs.event_files import crc32c, masked_crc, read_events
from firsthand.runs.protobuf_fields import fields_of, signed, varint
from firsthand.runs.track import Track, start
from firsthand.runs.track_export import export
from firsthand.runs.track_import import import_runs, tracked_runs
from firsthand.runs.wandb_files import BLOCK, read_wandb
from tracker_bytes import history, item, part, record, wandb_log

VALUES = [(0, 1.5), (2, 0.25), (70_000, math.nan), (70_001, 1e-3)]


def logged(folder: Path) -> Track:
    run = store.create(folder, {"lr": 0.1, "name": "x"}, "mine")
    track = Track(run)
    for step, value in VALUES:
        track.log({"loss/train": value}, step=step, at=1.7e9 + step)
    return track


def check(found: list[tuple[int, float]]) -> None:
    assert [step for step, _ in found] == [step for step, _ in VALUES]
    assert [value for _, value in found] == pytest.approx([value for _, value in VALUES], nan_ok=True)


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_event_files_of_tensorboard_are_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with logged(tmp_path / "a") as track:
        export(track, "tensorboard", tmp_path / "events" / "fit")
    ((id, count),) = import_runs(tmp_path / "events", tmp_path / "b")
    assert count == 4 and "fit" in id
    with store.open_run(id, tmp_path / "b") as run:
        curve = Track(run).curve("loss/train")
        check(list(zip(curve.steps, curve.values, strict=True)))
        assert curve.at == tuple(1.7e9 + step for step, _ in VALUES), "each value has the time at which it was logged"
        assert run.status == "done" and run.config["imported"] == "tensorboard"
    (file,) = (tmp_path / "events" / "fit").iterdir()
    body = file.read_bytes()
    file.write_bytes(body[:-3])
    assert len(list(read_events(file))) == 3, "a record that was cut off is not read"
    file.write_bytes(body[:-10] + bytes([body[-10] ^ 1]) + body[-9:])
    with pytest.raises(DataError, match="is damaged"):
        list(read_events(file))
    file.write_bytes(b"x" + body)
    with pytest.raises(DataError, match="is it one"):
        list(read_events(file))


def test_numbers_that_float32_lacks_are_exported_as_doubles(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    logged = {
        "tokens": [1.0, 123456789.0], "large": [1e39, math.inf], "odd": [2.0**24 + 1, 1.0], "tiny": [1e-46, 0.1],
        "loss": [0.1, math.nan], "even": [2.0**24, 1.0], "small": [-1e-37, 2.0**127], "inf": [math.inf, -math.inf],
    }  # fmt: skip
    with start("fit", home=tmp_path / "a") as track:
        for step in range(2):
            track.log({name: values[step] for name, values in logged.items()}, step=step)
        assert export(track, "tensorboard", tmp_path / "events" / "fit") == 2 * len(logged)
    ((id, _),) = import_runs(tmp_path / "events", tmp_path / "b")
    with store.open_run(id, tmp_path / "b") as run:
        read = {curve.name: list(curve.values) for curve in Track(run).curves()}
    assert {name: read[name] for name in ("tokens", "large", "odd", "tiny")} == {
        name: logged[name] for name in ("tokens", "large", "odd", "tiny")
    }, "exactly"
    assert read["loss"] == pytest.approx(logged["loss"], rel=1e-7, nan_ok=True) and read["even"] == logged["even"]
    events = loader.EventAccumulator(str(tmp_path / "events" / "fit"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["even", "inf", "loss", "small"]
    assert [tensor_util.make_ndarray(each.tensor_proto).item() for each in events.Tensors("tokens")] == logged["tokens"]
    assert events.SummaryMetadata("tokens").plugin_data.plugin_name == "scalars"


def test_scalars_in_tensors_are_read_and_other_tensors_are_not(tmp_path: Path) -> None:
    def event(tensor: bytes) -> bytes:
        value = part(1, b"acc") + part(8, tensor)
        return b"\x09" + struct.pack("<d", 5.0) + b"\x10\x07" + part(5, part(1, value))

    one = bytes([8, 1]) + part(4, struct.pack("<f", 0.5))
    packed = bytes([8, 1]) + part(5, struct.pack("<f", 0.75))
    double = bytes([8, 2]) + part(4, struct.pack("<d", 0.125))
    two = bytes([8, 1]) + part(4, struct.pack("<ff", 1.0, 2.0))
    text = bytes([8, 7]) + part(4, b"1234")
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(b"".join(record(event(each)) for each in (one, packed, double, two, text)))
    assert [(each.name, each.step, each.value, each.at) for each in read_events(file)] == [
        ("acc", 7, value, 5.0) for value in (0.5, 0.75, 0.125)
    ]


@pytest.mark.slow
def test_offline_runs_of_wandb_are_read(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    with logged(tmp_path / "a") as track:
        export(track, "wandb", tmp_path / "offline")
    ((id, count),) = import_runs(tmp_path / "offline", tmp_path / "b")
    assert count == 4
    with store.open_run(id, tmp_path / "b") as run:
        curve = Track(run).curve("loss/train")
        check(list(zip(curve.steps, curve.values, strict=True)))
        assert run.config["settings"]["lr"] == 0.1 and run.config["name"].endswith(track.run.id)


def test_records_of_wandb_in_several_blocks_are_joined(tmp_path: Path) -> None:
    filler = "x" * (2 * BLOCK)
    file = tmp_path / "run-1.wandb"
    file.write_bytes(wandb_log(history(1, loss=0.5, note=filler), history(2, loss=0.25, **{"_runtime": 3})))
    assert [(each.name, each.step, each.value) for each in read_wandb(file).values] == [
        ("loss", 1, 0.5),
        ("loss", 2, 0.25),
    ]
    body = file.read_bytes()
    file.write_bytes(body[:-2])
    assert len(read_wandb(file).values) == 1
    file.write_bytes(body[:100] + b"y" + body[101:])
    with pytest.raises(DataError, match="is damaged"):
        read_wandb(file)
    file.write_bytes(b"something else")
    with pytest.raises(DataError, match="no log of W&B"):
        read_wandb(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"x": 10**400, "y": -(10**400)}, [("x", 0, math.inf), ("y", 0, -math.inf)]),
        ({"x": {"a": 10**400}}, [("x.a", 0, math.inf)]),
        ({"x": 1, "_step": math.nan}, [("x", 0, 1.0)]),
        ({"x": 1, "_step": math.inf, "_timestamp": 10**400}, [("x", 0, 1.0)]),
        ({"x": 1, "_step": 7.0, "_timestamp": math.nan}, [("x", 7, 1.0)]),
    ],
)
def test_numbers_and_times_of_any_size_are_read(
    row: dict[str, object], kept: list[tuple[str, int, float]], tmp_path: Path
) -> None:
    items = b"".join(part(1, item([name], json.dumps(value))) for name, value in row.items())
    (tmp_path / "run-1.wandb").write_bytes(wandb_log(part(2, items)))
    assert [(each.name, each.step, each.value) for each in read_wandb(tmp_path / "run-1.wandb").values] == kept
    [(id, count)] = import_runs(tmp_path, tmp_path / "home")
    assert count == len(kept)
    with store.open_run(id, tmp_path / "home") as run:
        assert run.database.read("SELECT 1 FROM metrics WHERE at > 0 AND at < 1e12")


def test_a_step_or_time_beyond_all_bounds_makes_no_run(tmp_path: Path) -> None:
    mlflow(tmp_path / "0" / "abc")
    loss = tmp_path / "0" / "abc" / "metrics" / "val" / "loss"
    for line, is_kept in (("nan 1 1", True), ("1e999 1 1", True), ("1 1 " + "9" * 30, False)):
        loss.write_text(line + "\n")
        home = tmp_path / line[:3]
        if is_kept:
            [(id, count)] = import_runs(tmp_path / "0", home)
            with store.open_run(id, home) as run:
                assert count == 1 and len(Track(run).curve("val/loss").steps) == 1
        else:
            with pytest.raises(DataError, match="steps up to"):
                import_runs(tmp_path / "0", home)
            assert not list(home.glob("runs/*")), "no half of a run is left"


def test_fields_of_another_length_than_a_number_are_passed_over(tmp_path: Path) -> None:
    summary = part(5, part(1, part(1, b"loss") + part(2, b"abc") + b"\x15" + struct.pack("<f", 0.5)))
    file = tmp_path / "events.out.tfevents.1"
    body = part(1, b"abc") + bytes([2 << 3, 4]) + summary
    head = struct.pack("<Q", len(body))
    file.write_bytes(head + struct.pack("<I", masked_crc(head)) + body + struct.pack("<I", masked_crc(body)))
    assert [(each.name, each.step, each.value) for each in read_events(file)] == [("loss", 4, 0.5)]


@pytest.mark.slow
def test_a_record_in_many_pieces_is_joined_in_linear_time(tmp_path: Path) -> None:
    middle = bytes(BLOCK - 7)
    record = struct.pack("<IHB", zlib.crc32(b"\x03" + middle), len(middle), 3) + middle
    file = tmp_path / "run-1.wandb"
    file.write_bytes(wandb_log(bytes(BLOCK - 7 - 7))[:BLOCK] + record * 1200)
    with at_most_cpu_s(5):  # 39 MB; it was a quarter of a minute
        assert read_wandb(file).values == []


def mlflow(folder: Path) -> None:
    for name in ("metrics/val", "params", "tags"):
        (folder / name).mkdir(parents=True)
    (folder / "meta.yaml").write_text("run_id: abc\n")
    (folder / "metrics" / "val" / "loss").write_text("1700000000000 0.5 0\n1700000001000 nan 3\n")
    (folder / "params" / "lr").write_text("0.1")
    (folder / "tags" / "mlflow.runName").write_text("quiet-owl")


def trackio(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, timestamp TEXT, run_name TEXT, step INTEGER,"
        " metrics TEXT)"
    )
    connection.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_id TEXT, run_name TEXT, config TEXT)")
    rows = [
        ("r1", "one", 0, {"val/loss": 0.5}),
        ("r1", "one", 3, {"val/loss": "NaN", "text": "hi"}),
        ("r2", "two", 1, {"acc": 1}),
    ]
    for run, name, step, body in rows:
        connection.execute(
            "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?, ?)",
            (run, "2023-11-14T22:13:20+00:00", name, step, json.dumps(body)),
        )
    connection.execute("INSERT INTO configs (run_id, run_name, config) VALUES ('r1', 'one', '{\"lr\": \"0.1\"}')")
    connection.commit()
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda folder: mlflow(folder / "0" / "abc"), ["quiet-owl"]),
        (lambda folder: trackio(folder / "proj.db"), ["proj-one", "proj-two"]),
    ],
    ids=["mlflow", "trackio"],
)
def test_other_stores_are_read(tmp_path: Path, make: Callable[[Path], None], names: list[str]) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    make(folder)
    made = import_runs(folder, tmp_path / "home")
    assert [each.name for each in tracked_runs(folder)] == names
    with store.open_run(made[0][0], tmp_path / "home") as run:
        curve = Track(run).curve("val/loss")
        assert curve.steps == (0, 3) and curve.values[0] == 0.5 and math.isnan(curve.values[1])
        assert curve.at[0] == 1.7e9 and run.config["settings"] == {"lr": "0.1"}


def test_settings_that_a_database_computes_are_not_read(tmp_path: Path) -> None:
    trackio(tmp_path / "proj.db")
    connection = sqlite3.connect(tmp_path / "proj.db")
    connection.executescript(
        "DROP TABLE configs; CREATE VIEW configs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT i AS run_id, '{}' AS config FROM n"
    )
    connection.close()
    assert [(each.name, each.config) for each in tracked_runs(tmp_path)] == [("proj-one", {}), ("proj-two", {})]


def test_what_holds_no_runs_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"")
    for path in (tmp_path / "nosuch", tmp_path):
        with pytest.raises(FirsthandError):
            import_runs(path, tmp_path / "home")
    (tmp_path / "bad.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(DataError, match="cannot be read"):
        import_runs(tmp_path / "bad.db", tmp_path / "home")
    mlflow(tmp_path / "m")
    (tmp_path / "m" / "metrics" / "val" / "loss").write_text("now 1 2\n")
    with pytest.raises(DataError, match="line 1"):
        import_runs(tmp_path / "m", tmp_path / "home")


def test_the_command_imports_and_names_the_runs(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    mlflow(tmp_path / "mlruns" / "0" / "abc")
    code, out, _ = cli("track", "--import", str(tmp_path / "mlruns"))
    assert code == 0 and "2 values in run" in out and "quiet-owl" in out
    code, _, err = cli("track", "--import", str(tmp_path / "nosuch"))
    assert code == 2 and "is not there" in err


@pytest.mark.slow
@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_one_error(body: bytes) -> None:
    with suppress(DataError):
        assert all(number > 0 or isinstance(value, int) for number, value in fields_of(body))


def test_numbers_of_protobuf_end_within_ten_bytes() -> None:
    assert varint(b"\xac\x02", 0) == (300, 2) and signed(varint(b"\xff" * 9 + b"\x01", 0)[0]) == -1
    with pytest.raises(DataError):
        varint(b"\x80" * 11, 0)
