"""Logs of other trackers, built byte by byte: what is read of them, and what of a damaged one is told."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.runs import store
from firsthand.runs.event_files import LoggedValue, masked_crc, number_of, read_events
from firsthand.runs.protobuf_fields import fields_of, signed, varint
from firsthand.runs.track import MAX_STEP, Track
from firsthand.runs.track_import import MAX_VALUE, TrackedRun, import_runs, tracked_runs
from firsthand.runs.wandb_files import BLOCK, WandbRun, has_ended, read_wandb

NAN, INF, AT = math.nan, math.inf, 1e9


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN equals NaN here


def number(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def part(field: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return number(field << 3) + number(value % (1 << 64))
    raw = value.encode() if isinstance(value, str) else value
    return number(field << 3 | 2) + number(len(raw)) + raw


def test_fields_are_read_with_each_kind_and_to_the_last_byte() -> None:
    body = (
        part(1, 300) + part(2, b"ab") + number(3 << 3 | 1) + b"12345678" + number(4 << 3 | 5) + b"1234" + part(5, b"")
    )
    assert list(fields_of(body)) == [(1, 300), (2, b"ab"), (3, b"12345678"), (4, b"1234"), (5, b"")]
    assert varint(b"\xff" * 9 + b"\x01", 0) == ((1 << 64) - 1, 10) and varint(b"x\x05", 1) == (5, 2)
    assert [signed(each) for each in (5, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)] == [5, (1 << 63) - 1, -(1 << 63), -1]
    for wrong, said in (
        (body[:-1], "a number does not end at byte"),
        (part(2, b"ab")[:-1], "ends inside a field at byte 2"),
        (number(1 << 3 | 3), "unknown kind 3 at byte 1"),
        (number(2) + b"\x00", "ends inside a field"),
        (b"\x80" * 10 + b"\x01", "a number does not end at byte 10"),
    ):
        with pytest.raises(DataError, match=said):
            list(fields_of(wrong))


def event(*values: bytes, step: int = 0, at: float = AT) -> bytes:
    return (
        number(1 << 3 | 1) + struct.pack("<d", at) + part(2, step) + part(5, b"".join(part(1, each) for each in values))
    )


def scalar(name: str, value: float) -> bytes:
    return part(1, name) + number(2 << 3 | 5) + struct.pack("<f", value)


def tensor(name: str, kind: int, content: bytes, field: int = 4) -> bytes:
    return part(1, name) + part(8, part(1, kind) + part(field, content))


def record(body: bytes) -> bytes:
    head = struct.pack("<Q", len(body))
    return head + struct.pack("<I", masked_crc(head)) + body + struct.pack("<I", masked_crc(body))


def test_event_files_hold_scalars_and_tensors_of_one_number(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(
        record(event(scalar("a", 0.5), tensor("b", 2, struct.pack("<d", 0.1)), step=3, at=AT + 2))
        + record(event(tensor("c", 1, struct.pack("<f", 2.0), 5), tensor("d", 19, struct.pack("<e", 1.5)), step=4))
        + record(event(tensor("e", 1, bytes(8)), tensor("f", 3, bytes(4)),
                       tensor("e2", 1, bytes(3)), tensor("f2", 2, bytes(9)), part(1, "g"), scalar("", 1.0), step=5))
        + record(event(tensor("h", 2, struct.pack("<d", 0.25), 6), step=6)) + record(event(scalar("i", 1.0), step=-1))
        + record(b"")[:-1]
    )  # fmt: skip
    assert list(read_events(file)) == [
        LoggedValue("a", 3, 0.5, AT + 2), LoggedValue("b", 3, 0.1, AT + 2), LoggedValue("c", 4, 2.0, AT),
        LoggedValue("d", 4, 1.5, AT), LoggedValue("h", 6, 0.25, AT), LoggedValue("i", -1, 1.0, AT),
    ]  # fmt: skip
    assert [number_of(each) for each in (3, 10**400, -(10**400), NAN)][:3] == [3.0, INF, -INF]
    good = file.read_bytes()
    file.write_bytes(good[:20] + bytes([good[20] ^ 1]) + good[21:])
    with pytest.raises(DataError, match="record 1 is damaged: its checksum does not fit"):
        list(read_events(file))


def item(name: str | tuple[str, ...], value: Any) -> bytes:
    named = part(1, name) if isinstance(name, str) else b"".join(part(2, each) for each in name)
    return part(1, named + part(16, value if isinstance(value, str) else json.dumps(value)))


def log(*records: bytes, split: int | None = None) -> bytes:
    """A log of W&B; with `split` each record comes in two pieces."""
    out = bytearray(b":W&B\x01\x00\x00")
    for body in records:
        pieces = [(1, body)] if split is None else [(2, body[:split]), (4, body[split:])]
        for kind, piece in pieces:
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
    return bytes(out)


def test_an_offline_run_of_wandb_is_read_record_by_record(tmp_path: Path) -> None:
    run = part(17, part(8, "swift-fox") + part(4, item("lr", {"value": 0.1}) + item("_wandb", 1) + item("seed", 3)))
    records = [
        run,
        part(5, item("lr", {"value": 0.2, "desc": None}) + item(("opt", "beta"), {"b": 1})),
        part(5, item("more", "[1")),
        part(
            2,
            item("loss", 0.5) + item("_timestamp", AT) + item("_step", 4) + item(("eval", "acc"), 1) + item("t", '"x"'),
        ),
        part(
            2,
            item("loss", '"NaN"')
            + item("d", {"a": 1, "b": "x", "c": 2.5, "e": {"f": {"g": "NaN"}, "_type": 3}, "i": {"j": {"k": 4}}})
            + item("h", {"_type": "x", "a": 1})
            + item("n", {"m": "Infinity"}),
        ),
        part(2, item("loss", 3) + part(2, part(1, 9)) + item("inf", '"-Infinity"')),
        part(2, item("loss", 7) + item("_step", -2)),
        part(18, part(1, 0)),
    ]
    values = [
        LoggedValue("loss", 4, 0.5, AT), LoggedValue("eval.acc", 4, 1.0, AT), LoggedValue("loss", 5, NAN, 0.0),
        LoggedValue("d.a", 5, 1.0, 0.0), LoggedValue("d.c", 5, 2.5, 0.0),
        LoggedValue("d.i.j.k", 5, 4.0, 0.0), LoggedValue("n.m", 5, INF, 0.0),
        LoggedValue("loss", 9, 3.0, 0.0),
        LoggedValue("inf", 9, -INF, 0.0), LoggedValue("loss", -2, 7.0, 0.0),
    ]  # fmt: skip
    config = {"lr": 0.2, "seed": 3, "opt.beta": {"b": 1}, "more": None}
    file = tmp_path / "run-x.wandb"
    for raw in (log(*records), log(*records, split=3), log(*records) + b"\0" * 20):
        file.write_bytes(raw)
        found = read_wandb(file)
        assert (found.name, found.config) == ("swift-fox", config) and same(found.values, values)
        assert has_ended(file)
    file.write_bytes(log(*records)[:-1])
    assert not has_ended(file) and same(read_wandb(file).values, values)
    first = part(1, b"x" * (BLOCK - 7 - 7 - 4 - 3))  # leaves 3 bytes of the block, into which no record fits
    file.write_bytes(log(first) + b"\0" * 3 + log(run)[7:])
    assert read_wandb(file).name == "swift-fox"
    for raw, said in (
        (b"x" + log(run), "is no log of W&B: it does not begin with ':W&B'"),
        (log(run)[:-1] + b"?", "the record at byte 7 is damaged: its checksum does not fit"),
        (b":W&B\x01\0\0" + struct.pack("<IHB", zlib.crc32(b"\x07a"), 1, 7) + b"a", "has the unknown type 7"),
    ):
        file.write_bytes(raw)
        with pytest.raises(DataError, match=said):
            read_wandb(file)
    file.write_bytes(log())
    assert read_wandb(file) == WandbRun()


def trackio(file: Path, *rows: tuple[Any, ...], configs: bool = True) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
        )
        connection.executemany("INSERT INTO metrics (run_name, step, timestamp, metrics) VALUES (?, ?, ?, ?)", rows)
        if configs:
            connection.execute("CREATE TABLE configs (run_name TEXT, config TEXT)")
            connection.execute("INSERT INTO configs VALUES ('b', '{\"lr\": 1}')")


def test_runs_of_trackio_and_mlflow_are_found_in_a_fixed_order(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    mine = root / "mlruns" / "0" / "abc"
    for name, text in {
        "meta.yaml": "", "metrics/loss": "1000000000500 0.5 3\n1000000001000 nan\n1000000000000 7 -1\n",
        "metrics/sub/acc": "0 1 2 x\n",
        "params/lr": "0.1\n", "params/long": "x" * (MAX_VALUE + 1), "tags/mlflow.runName": " mine \n",
    }.items():  # fmt: skip
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    rows = [
        ("b", 2, "2001-09-09T01:46:40+00:00", '{"x": 1, "y": "Infinity", "z": "text", "n": null, "t": true}'),
        ("b", 1, "no time", b'{"x": 0.5}'), ("a", 0, "2001-09-09T01:46:40+00:00", "[1]"),
    ]  # fmt: skip
    trackio(root / "p.db", *rows)
    (root / "other.db").write_bytes(b"")
    runs = [TrackedRun(each.name, each.source, each.config, list(each.values)) for each in tracked_runs(root)]
    assert same(runs, [
        TrackedRun("mine", "mlflow", {"long": "x" * MAX_VALUE, "lr": "0.1\n"}, [
            LoggedValue("loss", 3, 0.5, 1_000_000_000.5), LoggedValue("loss", 1, NAN, 1_000_000_001.0),
            LoggedValue("loss", -1, 7.0, AT), LoggedValue("sub/acc", 2, 1.0, 0.0),
        ]),
        TrackedRun("p-b", "trackio", {"lr": 1}, [
            LoggedValue("x", 1, 0.5, 0.0), LoggedValue("x", 2, 1.0, AT), LoggedValue("y", 2, INF, AT),
            LoggedValue("t", 2, 1.0, AT),
        ]),
        TrackedRun("p-a", "trackio", {}, []),
    ])  # fmt: skip
    (root / "p.db").unlink()
    trackio(root / "p.db", ("b", -1, "", "{}"), configs=False)
    with pytest.raises(DataError, match=r"p\.db: a step is -1: a whole number was expected"):
        list(tracked_runs(root / "p.db"))
    (mine / "metrics" / "loss").write_text("5 x 1\n")
    with pytest.raises(DataError, match=r"loss, line 1: time, value and step were expected, not '5 x 1"):
        list(tracked_runs(root / "mlruns"))
    (mine / "metrics" / "loss").write_text("1 " + "2" * MAX_VALUE)
    with pytest.raises(DataError, match="has a line of more than 2,000 characters: it is no metric"):
        list(tracked_runs(root / "mlruns"))
    with pytest.raises(ConfigError, match="is not there: give a file or folder of a tracker"):
        list(tracked_runs(root / "none"))


@pytest.mark.slow
def test_what_is_imported_is_a_run_with_its_steps_and_times(tmp_path: Path) -> None:
    folder, home = tmp_path / "logs", tmp_path / "home"
    (folder / "a" / "b").mkdir(parents=True)
    many = record(event(scalar("x\n", 2.0), step=5, at=0.0)) + record(event(scalar("x\n", 1.0), step=2, at=AT))
    (folder / "a" / "b" / "tfevents.1").write_bytes(many)
    (folder / "tfevents.2").write_bytes(record(event(scalar("y", 3.0))))
    before = time.time()
    made = import_runs(folder, home)
    assert [count for _, count in made] == [2, 1] and [id[16:-5] for id, _ in made] == ["a-b", "logs"]
    with store.open_run(made[0][0], home) as run:
        curve = Track(run).curve("x ")
        assert (curve.steps, curve.values, curve.at[0]) == ((2, 5), (1.0, 2.0), AT) and curve.at[1] >= before
        assert run.config == {"kind": "track", "name": "a-b", "imported": "tensorboard", "settings": {}}
        assert run.status == "done"
    (folder / "tfevents.2").write_bytes(record(event(scalar("y", 3.0), step=MAX_STEP + 1)))
    with pytest.raises(DataError, match=rf"'logs' has the step {MAX_STEP + 1}: steps up to {MAX_STEP} are kept"):
        import_runs(folder / "tfevents.2", home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no runs with numbers"):
        import_runs(tmp_path / "empty", home)
