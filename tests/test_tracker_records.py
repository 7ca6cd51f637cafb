"""Records of other trackers, byte by byte: protobuf fields, TensorBoard's events, W&B's log."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.runs import wandb_files
from firsthand.runs.event_files import (
    LoggedValue,
    _scalars,
    _tensor,
    _value,
    crc32c,
    masked_crc,
    number_of,
    read_events,
)
from firsthand.runs.protobuf_fields import fields_of, signed, varint
from firsthand.runs.wandb_files import (
    BLOCK,
    WandbRun,
    _Allowance,
    _config,
    _history,
    _item,
    _numbers,
    _records,
    has_ended,
    read_wandb,
)
from tracker_bytes import eight, event, four, history, item, number, part, record, simple, wandb_log, whole


def test_fields_are_read_in_order_with_their_numbers() -> None:
    body = whole(3, 300) + part(15, b"ab") + four(16, b"1234") + eight(1, b"12345678") + part(2, b"")
    assert list(fields_of(body)) == [(3, 300), (15, b"ab"), (16, b"1234"), (1, b"12345678"), (2, b"")]
    assert list(fields_of(b"")) == []
    for wrong, said in (
        (whole(1, 1) + bytes([1 << 3 | 3]), "a message has a field of the unknown kind 3 at byte 3"),
        (bytes([1 << 3 | 4]), "a message has a field of the unknown kind 4 at byte 1"),
        (part(2, b"ab")[:-1], "a message ends inside a field at byte 2"),
        (four(2, b"123"), "a message ends inside a field at byte 1"),
        (part(0, b"ab"), "a message ends inside a field at byte 2"),
        (bytes([8]), "a number does not end at byte 1"),
    ):
        with pytest.raises(DataError) as damaged:
            list(fields_of(wrong))
        assert str(damaged.value) == said


def test_an_integer_has_seven_bits_a_byte_and_ten_bytes_at_most() -> None:
    assert varint(b"x\x00", 1) == (0, 2)
    assert varint(number(127) + b"x", 0) == (127, 1)
    assert varint(b"x" + number(128), 1) == (128, 3)
    assert varint(bytes([0xAC, 0x02]), 0) == (300, 2)
    assert varint(number(-2), 0) == ((1 << 64) - 2, 10)
    assert (signed((1 << 64) - 2), signed((1 << 63) - 1), signed(1 << 63)) == (-2, (1 << 63) - 1, -(1 << 63))
    assert varint(bytes([255] * 9 + [127]), 0) == ((1 << 64) - 1, 10)
    with pytest.raises(DataError, match="a number does not end at byte 10"):
        varint(bytes([128] * 10 + [1]), 0)


def test_sums_are_castagnolis_masked_as_in_tfrecords() -> None:
    assert (crc32c(b"123456789"), crc32c(b"")) == (0xE3069283, 0)
    crc = 0xE3069283
    assert masked_crc(b"123456789") == (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32
    assert (number_of(3), number_of(10**400), number_of(-(10**400))) == (3.0, math.inf, -math.inf)


def test_an_event_gives_its_scalars_with_its_step_and_time() -> None:
    late = part(5, part(1, simple("first", 0.5))) + whole(2, 7) + eight(1, struct.pack("<d", 2.5))
    assert list(_scalars(late)) == [LoggedValue("first", 7, 0.5, 2.5)], "the step may come after the summary"
    both = event(3, 1.5, simple("a", 0.25), simple("", 1.0), part(1, b"no value"), simple("b", -2.0)) + part(
        5, part(1, simple("c", 4.0))
    )
    assert list(_scalars(both)) == [
        LoggedValue("a", 3, 0.25, 1.5), LoggedValue("b", 3, -2.0, 1.5), LoggedValue("c", 3, 4.0, 1.5),
    ]  # fmt: skip
    assert [each.step for each in _scalars(event(-1, 1.5, simple("a", 0.25)))] == [-1], "the import tells of it"
    assert list(_scalars(part(5, part(1, simple("a", 0.25))))) == [LoggedValue("a", 0, 0.25, 0.0)]
    assert list(_scalars(four(1, b"1234") + part(5, part(2, simple("a", 1.0))))) == []


def test_a_value_is_a_number_or_a_tensor_of_one() -> None:
    def tensor(kind: int, *fields: bytes) -> bytes:
        return whole(1, kind) + b"".join(fields)

    half, single, double = struct.pack("<e", 0.75), struct.pack("<f", 0.5), struct.pack("<d", 0.1)
    assert _tensor(tensor(1, part(4, single))) == 0.5
    assert _tensor(tensor(2, part(4, double))) == 0.1
    assert _tensor(tensor(19, part(4, half))) == 0.75
    assert _tensor(tensor(1, four(5, single))) == 0.5
    assert _tensor(tensor(2, part(6, double))) == 0.1
    assert _tensor(tensor(1, part(4, single), four(5, half + half))) == 0.5, "the content goes first"
    assert _tensor(tensor(1, four(5, single), four(5, single))) is None
    assert _tensor(tensor(1, part(4, double))) is None
    assert _tensor(tensor(3, part(4, single))) is None
    assert _tensor(part(4, single)) is None
    assert _value(simple("é", 0.5)) == ("é", 0.5)
    assert _value(part(1, b"x\xff") + part(8, tensor(2, part(4, double)))) == ("x�", 0.1)
    assert _value(part(1, b"x") + part(2, b"123")) == ("x", None)
    assert _value(four(2, single) + part(1, b"x")) == ("x", 0.5)


def test_an_event_file_is_read_to_its_last_whole_record_and_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "events"
    bodies = [record(event(1, 1.5, simple("a", 0.5))), record(event(2, 2.5, simple("a", 0.25)))]
    one, two = LoggedValue("a", 1, 0.5, 1.5), LoggedValue("a", 2, 0.25, 2.5)
    for data, found in (
        (b"".join(bodies), [one, two]),
        (b"".join(bodies)[:-1], [one]),
        (b"".join(bodies)[:-5], [one]),
        (bodies[0] + bodies[1][:12], [one]),
        (bodies[0] + bodies[1][:11], [one]),
        (b"", []),
    ):
        file.write_bytes(data)
        assert list(read_events(file)) == found
    torn = bytearray(b"".join(bodies))
    torn[len(bodies[0]) + 14] ^= 1
    file.write_bytes(torn)
    read = read_events(file)
    assert next(read) == one
    with pytest.raises(DataError) as damaged:
        next(read)
    assert str(damaged.value) == f"{file}: record 2 is damaged: its checksum does not fit"
    large = struct.pack("<Q", (64 << 20) + 1)
    for head in (b"x" * 12, large + struct.pack("<I", masked_crc(large))):
        file.write_bytes(bodies[0] + head + b"x" * 20)
        with pytest.raises(DataError) as other:
            list(read_events(file))
        assert str(other.value) == f"{file}: record 2 does not begin as an event file's: is it one?"
    limit = struct.pack("<Q", 64 << 20)
    file.write_bytes(limit + struct.pack("<I", masked_crc(limit)))
    assert list(read_events(file)) == []


def test_an_item_of_wandb_has_a_name_or_its_parts_and_json() -> None:
    assert _item(item("loss", "0.5"), _Allowance()) == ("loss", 0.5)
    assert _item(item(["a", "b", "c"], '{"x": 1}'), _Allowance()) == ("a.b.c", {"x": 1})
    assert _item(part(2, b"y") + part(1, b"own") + part(16, b"[]"), _Allowance()) == ("own", [])
    assert _item(item("bad", "{"), _Allowance()) == ("bad", None)
    assert _item(item(["b", "d"], "[" * 100_000), _Allowance()) == ("b.d", None)
    assert _item(part(1, b"none"), _Allowance()) == ("none", None)
    assert list(_numbers("a", 3)) == [("a", 3.0)]
    assert list(_numbers("a", "Infinity")) + list(_numbers("a", "-Infinity")) == [("a", math.inf), ("a", -math.inf)]
    ((_, nan),) = _numbers("a", "NaN")
    assert math.isnan(nan)
    assert list(_numbers("a", {"x": 1, "y": "2", "z": 0.5})) == [("a.x", 1.0), ("a.z", 0.5)]
    for nothing in ("nan", None, [1], {"_type": "histogram", "x": 1}, {str(n): n for n in range(200)}):
        assert list(_numbers("a", nothing)) == []
    assert len(list(_numbers("a", {str(n): n for n in range(199)}))) == 199


def test_a_row_of_history_has_a_step_of_its_own_or_the_next() -> None:
    def row(body: bytes, last: int) -> tuple[int, list[LoggedValue]]:
        run = WandbRun()
        return _history(body, run, last), run.values

    inner = part(1, item("loss", "0.5")) + part(1, item("_timestamp", "12.5")) + part(1, item("_runtime", "3"))
    assert row(inner + part(2, whole(1, 8)), 2) == (8, [LoggedValue("loss", 8, 0.5, 12.5)])
    assert row(inner, 2) == (3, [LoggedValue("loss", 3, 0.5, 12.5)])
    assert row(inner + part(1, item("_step", "6")), 2) == (6, [LoggedValue("loss", 6, 0.5, 12.5)])
    assert row(inner + part(1, item("_step", "6.9")), 2)[0] == 6
    for text in ('"x"', "Infinity", "-Infinity", "NaN", "null", "[4]"):
        assert row(inner + part(1, item("_step", text)), 2)[0] == 3
    assert row(inner + part(1, item("_step", "-3")), 2) == (-3, [LoggedValue("loss", -3, 0.5, 12.5)])
    assert row(inner + part(1, item("_timestamp", "Infinity")) + part(2, whole(1, 0)), 2)[1][0].at == math.inf
    assert row(inner + part(2, b""), 2) == (0, [LoggedValue("loss", 0, 0.5, 12.5)])
    assert row(inner + part(2, whole(1, -4)), 2) == (-4, [LoggedValue("loss", -4, 0.5, 12.5)])
    assert row(part(1, item("a", '{"x": 1}')) + part(1, item("_timestamp", '"now"')), -1) == (
        0, [LoggedValue("a.x", 0, 1.0, 0.0)],
    )  # fmt: skip
    assert _config(
        part(1, item("lr", '{"desc": null, "value": 0.1}')) + part(1, item("_wandb", "{}"))
        + part(1, item("layers", "[4]")) + part(2, b"removed") + part(1, item("", "3")) + part(1, item("o", '{"v": 1}')),
        _Allowance(),
    ) == {"lr": 0.1, "layers": [4], "o": {"v": 1}}  # fmt: skip


def test_a_log_of_wandb_gives_name_config_and_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run-1.wandb"
    lr, early, late = item("lr", '{"value": 0.1}'), item("size", "4"), item("size", "8")
    before = part(5, part(1, item("first", "1")) + part(1, item("size", "2")))
    run = part(17, part(4, part(1, early) + part(1, item("second", "2"))) + part(8, "né".encode()) + part(9, b"other"))
    data = wandb_log(
        part(1, b"output"), before, run, history(4, loss=0.5), part(5, part(1, lr) + part(1, late)),
        history(None, loss=0.25), whole(2, 9),
    )  # fmt: skip
    file.write_bytes(data)
    assert read_wandb(file) == WandbRun(
        "né",
        {"first": 1, "second": 2, "size": 8, "lr": 0.1},
        [LoggedValue("loss", 4, 0.5, 0.0), LoggedValue("loss", 5, 0.25, 0.0)],
    )
    assert not has_ended(file)
    file.write_bytes(wandb_log(run, part(18, b"")))
    assert has_ended(file)
    monkeypatch.setattr(wandb_files, "MAX_FILE", len(data))
    file.write_bytes(data)
    assert len(read_wandb(file).values) == 2
    monkeypatch.setattr(wandb_files, "MAX_FILE", 1234)
    file.write_bytes(bytes(1235))
    with pytest.raises(DataError) as large:
        read_wandb(file)
    assert str(large.value) == f"{file} has 1,235 bytes: at most 1,234 are read"


def test_records_are_joined_over_blocks_and_end_where_the_log_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "run-1.wandb"
    bodies = [b"a" * (BLOCK - 7 - 7 - 7), b"b" * (2 * BLOCK), b"", b"c" * (BLOCK - 40), b"d"]
    data = wandb_log(*bodies)  # the first ends 7 bytes before its block does: room for an empty piece
    file.write_bytes(data)
    assert list(_records(file)) == bodies
    short = wandb_log(b"a" * (BLOCK - 7 - 7 - 6), b"bb")  # 6 bytes are left, which are filled
    assert len(short) == BLOCK + 7 + 2
    for given, found in (
        (short, [b"a" * (BLOCK - 20), b"bb"]),
        (short[:-1], [b"a" * (BLOCK - 20)]),
        (short[: BLOCK + 6], [b"a" * (BLOCK - 20)]),
        (wandb_log(b"x") + bytes(100), [b"x"]),
        (wandb_log(), []),
    ):
        file.write_bytes(given)
        assert list(_records(file)) == found

    def damaged(given: bytes) -> str:
        file.write_bytes(given)
        with pytest.raises(DataError) as error:
            list(_records(file))
        return str(error.value)

    sound = wandb_log(b"x", b"yz")
    assert damaged(sound[:-1] + b"!") == f"{file}: the record at byte 15 is damaged: its checksum does not fit"
    kind = bytes([9])
    piece = struct.pack("<IHB", zlib.crc32(kind + b"q"), 1, 9) + b"q"
    assert damaged(wandb_log(b"x") + piece) == f"{file}: the record at byte 15 has the unknown type 9"
    zeros = struct.pack("<IHB", zlib.crc32(b"\0q"), 1, 0) + b"q"
    assert damaged(wandb_log(b"x") + zeros) == f"{file}: the record at byte 15 has the unknown type 0"
    assert damaged(wandb_log(b"x") + bytes(7) + b"\1" + bytes(50)).startswith(
        f"{file}: the record at byte 15 is damaged"
    )
    assert damaged(b"W&B:") == f"{file} is no log of W&B: it does not begin with ':W&B'"
