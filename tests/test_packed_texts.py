"""Packed files of letters, one emoji and line ends: small on disk, and gigabytes as text or as a list of lines."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from functools import cache
from pathlib import Path

import pytest

from firsthand.benchmarks.sources import tables
from firsthand.benchmarks.sources.datasets import Source, read
from firsthand.benchmarks.sources.tables import parse_table
from firsthand.boards.read_results import read_results
from firsthand.boards.result_formats.inspect_logs import read_archive
from firsthand.bridges.inspect.eval_logs import import_eval
from firsthand.errors import DataError
from firsthand.system.packed_text import expect_text, lines_by_any_end, lines_of, text_bytes, unpacked_gzip
from firsthand.train.documents import json_lines

WIDE, LETTERS = "\U0001f600", 65 << 20
TOLD = "unpacks to a text of 260 MiB in memory, more than 256 MiB: split it, or unpack it and give the plain file"


@cache
def wide_json() -> bytes:
    return f'{{"id": "{WIDE}"}}'.encode() + b" " * LETTERS


@cache
def wide_gzip() -> bytes:
    return gzip.compress(wide_json(), 1)


@pytest.fixture
def memory():
    """The bytes that Python holds, and the most that it held, since the test began."""
    tracemalloc.start()
    yield tracemalloc.get_traced_memory
    tracemalloc.stop()


def archive(*samples: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.writestr("header.json", json.dumps({"status": "success", "eval": {"task": "t", "model": "m"}}))
        for number, sample in enumerate(samples):
            made.writestr(f"samples/{number}.json", sample)
    return raw.getvalue()


def test_the_memory_of_a_text_is_its_characters_by_the_widest_of_them() -> None:
    for text in (
        "",
        "plain",
        "caf\xe9",
        "\xff" * 7,
        "\u0100a",
        "\u4e00\u4e01 and more",
        "\uffff",
        WIDE,
        f"a{WIDE}\xe9\u4e00",
    ):
        width = next(
            (size for least, size in ((0x10000, 4), (0x100, 2)) if any(ord(each) >= least for each in text)), 1
        )
        assert text_bytes(text.encode()) == width * len(text), text
    long = ("\u4e00" * 400_000) + WIDE  # characters across the ends of pieces
    assert text_bytes(long.encode()) == 4 * len(long)
    for text in ("plain", "\u8080" * 9, WIDE * 5):
        assert text_bytes(text.encode("utf-16")) >= 2 * len(text)


def test_a_string_of_packed_json_is_as_wide_as_its_own_escapes() -> None:
    emoji = rb"\ud83d\ude00"
    for raw in (
        b'{"a": "' + emoji + b'", "b": "' + b"x" * 900 + b'"}',
        b'["\\"' + b"x" * 900 + b'", "' + emoji + b'"]',
        b'"' + b"x" * 470 + rb"\u4e00" + b'"',
        emoji + b"x" * 900,
    ):
        expect_text(raw, "f.gz", 1000)
    for raw in (
        b'{"a": "' + emoji + b"x" * 900 + b'"}', b'["' + b"x" * 900 + b'\\"' + emoji + b'"]',
        b'"' + b"x" * 500 + rb"\u4e00" + b'"', b'"' + emoji + b"x" * 250, b'"' + b"x" * 250 + emoji + b"\\",
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"f\.gz unpacks to a text of 0 MiB in memory"):
            expect_text(raw, "f.gz", 1000)
    open_strings = b'"' + b'\\"' * 200_000 + emoji
    with pytest.raises(DataError, match="unpacks to a text"):
        expect_text(open_strings, "f.gz", 500_000)


@pytest.mark.slow
def test_a_packed_file_of_results_with_one_escaped_emoji_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(rb'{"id": "\ud83d\ude00' + b" " * LETTERS + b'"}', 1))
    with pytest.raises(DataError, match=TOLD):
        read_results([path], tmp_path)


def test_escapes_of_json_make_a_text_as_wide_as_what_they_stand_for() -> None:
    for raw, width in (
        (rb'"caf\u00e9"', 1),
        (rb'"a\nb"', 1),
        (rb'"\u4e00 and"', 2),
        (rb'"\ud83d\ude00 and"', 4),
        (rb'"\uD83D\uDE00 and"', 4),
    ):
        assert text_bytes(raw) == len(raw) and text_bytes(raw, escapes=True) == width * len(raw), raw
    for text in ("plain", "caf\xe9", "\u4e00 and", f"{WIDE} and"):
        assert text_bytes(text.encode(), escapes=True) == text_bytes(text.encode()), text


def test_a_text_is_read_up_to_its_bound_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "f.gz"
    for text, size in (("a" * 99 + WIDE, 400), ("a" * 400, 400), ("\xe9" * 400, 400), ("\u4e00" * 200, 400)):
        raw = text.encode()
        expect_text(raw, "f", size)
        assert unpacked_gzip(gzip.compress(raw), path, 4096, size) == raw
        with pytest.raises(DataError, match="f unpacks to a text of"):
            expect_text(raw, "f", size - 1)
        with pytest.raises(DataError, match=r"f\.gz unpacks to a text of"):
            unpacked_gzip(gzip.compress(raw), path, 4096, size - 1)
    for damaged in (b"", b"no gzip", gzip.compress(b"cut short")[:-4]):
        with pytest.raises(DataError, match="is not a complete gzip file: fetch it again"):
            unpacked_gzip(damaged, path, 4096)
    with pytest.raises(DataError, match="unpacks to more than 1 MiB: is it the right file"):
        unpacked_gzip(gzip.compress(b"a" * ((1 << 20) + 1)), path, 1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json.gz", ".jsonl.gz", ".csv.gz", ".tsv.gz"])
def test_a_packed_file_of_results_with_one_emoji_is_refused_before_it_is_a_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"wide{suffix}"
    path.write_bytes(wide_gzip())
    with pytest.raises(DataError) as told:
        read_results([path], tmp_path)
    assert str(told.value) == f"{path} {TOLD}"


@pytest.mark.slow
def test_packed_rows_of_a_benchmark_and_of_training_have_the_same_bound(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl.gz"
    path.write_bytes(wide_gzip())
    with pytest.raises(DataError, match=r"wide\.jsonl\.gz unpacks to a text of 260 MiB"):
        read(path, Source("wide.jsonl", 1, "MIT", "", "", "", dict), "here")
    with pytest.raises(DataError, match=r"a line of .*wide\.jsonl\.gz after byte 0 unpacks to a text of 260 MiB"):
        list(json_lines(path))


@pytest.mark.slow
def test_a_sample_of_an_inspect_log_with_one_emoji_is_refused_by_board_and_import(tmp_path: Path) -> None:
    path = tmp_path / "wide.eval"
    path.write_bytes(archive(wide_json()))
    with pytest.raises(DataError) as told:
        read_archive(path.read_bytes(), "f")
    assert str(told.value) == f"f: samples/0.json {TOLD}"
    with pytest.raises(DataError) as told:
        import_eval(path, tmp_path)
    assert str(told.value) == (
        f"{path}: samples/0.json takes 260 MiB as text, and at most 256 are read: one emoji makes each character four "
        "bytes, so import the log without it"
    )


@pytest.mark.slow
def test_of_the_samples_of_an_archive_their_ids_and_scores_are_kept_alone(memory) -> None:
    scores = {"s": {"value": "C", "explanation": "x" * 900_000}, "t": 0.5}
    samples = [json.dumps({"id": number, "scores": scores, "messages": ["m" * 900_000]}) for number in range(20)]
    raw = archive(*(each.encode() for each in samples))
    tracemalloc.clear_traces()
    tracemalloc.reset_peak()
    body = read_archive(raw, "f")
    kept, most = memory()
    assert body["samples"] == [{"id": number, "scores": {"s": {"value": "C"}, "t": 0.5}} for number in range(20)]
    assert kept < 2_000_000 and most < 12_000_000


def test_ids_of_samples_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.boards.result_formats import inspect_logs

    raw = archive(b'{"id": "abc"}', b'{"id": "def", "messages": ["longer than all of the ids"]}')
    monkeypatch.setattr(inspect_logs, "MAX_NAMES_BYTES", 26)
    assert [each["id"] for each in read_archive(raw, "f")["samples"]] == ["abc", "def"]
    monkeypatch.setattr(inspect_logs, "MAX_NAMES_BYTES", 25)
    with pytest.raises(DataError, match="the samples' ids and the names of their scores have more than"):
        read_archive(raw, "f")


@pytest.mark.parametrize(("suffix", "end"), [(".jsonl", "\n"), (".csv", "\n"), (".csv", "\r")])
def test_lines_of_a_table_are_counted_before_they_are_read(
    suffix: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_LINES", 1000)
    with pytest.raises(DataError, match=r"f holds no rows|each column needs its own name"):
        parse_table(end * 1000, Path("f"), suffix)
    with pytest.raises(DataError, match="f has more than 1,000 lines: is it the right file"):
        parse_table(end * 1001, Path("f"), suffix)


def test_empty_lines_take_no_list_and_rows_keep_their_numbers(memory) -> None:
    text = "\n" * 100_000 + '{"a": 1}\n\r\n{"a": 2}\n'
    tracemalloc.reset_peak()
    rows = parse_table(text, Path("f"), ".jsonl")
    assert memory()[1] < 500_000
    assert [(row.columns, row.where) for row in rows] == [({"a": 1}, "f, line 100001"), ({"a": 2}, "f, line 100003")]
    for text, last in (('{"a": 1}\n{"a"', True), ('{"a": 1}\n{"a"\n', False)):
        with pytest.raises(DataError) as told:
            parse_table(text, Path("f"), ".jsonl")
        assert ("the last line: is the file cut short?" in str(told.value)) is last


def test_lines_are_those_of_split_and_of_a_csv_reader() -> None:
    for text in ("", "a", "a\n", "a\n\nb", "\n", "a\r\nb\rc\n\r", "\x85\u2028a\nb", "\r\r\n\n"):
        assert [each.removesuffix("\n") for each in lines_of(text)] == (
            text.removesuffix("\n").split("\n") if text else []
        )
        assert list(lines_by_any_end(text)) == list(io.StringIO(text, newline=""))
    quoted = parse_table('a,b\r\n"one\r\ntwo",2\r3,"x\ny"\n', Path("f"), ".csv")
    assert [row.columns for row in quoted] == [{"a": "one\r\ntwo", "b": "2"}, {"a": "3", "b": "x\ny"}]


def test_ordinary_packed_results_with_emoji_are_read(tmp_path: Path) -> None:
    rows = [{"model": f"m{number} {WIDE}", "benchmark": "b", "score": number} for number in range(3)]
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    csv = "model,benchmark,score\n" + "".join(f"{row['model']},b,{row['score']}\n" for row in rows)
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(csv.encode()))
    for name in ("r.jsonl.gz", "r.csv.gz"):
        assert [each.model for each in read_results([tmp_path / name], tmp_path).results] == [
            row["model"] for row in rows
        ]


def test_utf_16_is_counted_double_and_escapes_count_in_a_text_that_just_fits() -> None:
    raw = "\ufeffab".encode("utf-16-le")
    assert text_bytes(raw) == 2 * len(raw) == 12
    expect_text(b'"\\u4e00"', "x", 16)
    with pytest.raises(DataError, match="x unpacks to a text of"):
        expect_text(b'"\\u4e00"', "x", 8)
