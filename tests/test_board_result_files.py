"""Files of other tools whose parts are null, too short or of another kind, and archives that are broken."""

from __future__ import annotations

import gzip
import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cpu_time import at_most_cpu_s
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.boards.board_results import BoardResult
from firsthand.boards.read_results import read_results
from firsthand.boards.result_formats import inspect_logs
from firsthand.boards.result_formats.code_reports import bigcode_results
from firsthand.boards.result_formats.helm_results import helm_table_results, helm_tables
from firsthand.boards.result_formats.inspect_logs import read_archive
from firsthand.boards.result_formats.score_tables import item_rows
from firsthand.errors import DataError
from firsthand.system import zip_members

HEAD = {"value": "X - EM", "lower_is_better": False}


def packed(parts: dict[str, str], method: int = zipfile.ZIP_STORED) -> bytearray:
    raw = BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return bytearray(raw.getvalue())


def changed(raw: bytearray, *changes: tuple[int, int]) -> bytes:
    made = bytearray(raw)
    for place, byte in changes:
        made[place] = byte
    return bytes(made)


def test_a_file_that_turns_out_to_be_of_another_form_is_refused_with_the_fault(tmp_path: Path) -> None:
    def helm(header: Any, row: Any) -> dict[str, Any]:
        return {"header": header, "rows": [row]}

    for body, fault in (
        (helm([], []), "IndexError: list index out of range"),
        (helm([HEAD], [3]), "AttributeError: 'int' object has no attribute 'get'"),
        (helm([HEAD, HEAD], [{}, {"value": "much"}]), "ValueError: could not convert string to float: 'much'"),
        (helm([HEAD, HEAD], [{}, {"value": 10**400}]), "OverflowError: int too large to convert to float"),
        (helm([HEAD, HEAD], [{}, {"value": []}]),
         "TypeError: float() argument must be a string or a real number, not 'list'"),
        ({"schema_version": "1", "model_info": {"id": "m"}, "evaluation_results": [{}]}, "KeyError: 'evaluation_name'"),
    ):  # fmt: skip
        path = tmp_path / "r.json"
        path.write_text(json.dumps(body))
        with pytest.raises(DataError) as told:
            read_results([path], tmp_path)
        assert str(told.value) == f"{path} begins as a file of results and is malformed ({fault})"


def test_only_tables_with_header_and_rows_are_helms() -> None:
    table: dict[str, Any] = {"header": [], "rows": []}
    for body in (table, {**table, "title": "T"}):
        assert helm_tables(body) == [body] and helm_tables([body, table]) == [body, table]
    assert helm_tables([]) == []
    for other in ({"header": []}, {"rows": []}, {"header": {}, "rows": []}, {"header": [], "rows": {}}, {}, 3, None):
        assert [helm_tables(each) for each in (other, [other], [table, other], [other, table])] == [[]] * 4, other


def test_rows_of_json_with_a_column_header_are_a_table_of_scores(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        '[{"item": "q1", "header": 1, "rows": 0.5}, {"item": "q2", "header": 0, "rows": 1}]'
    )
    found = read_results([tmp_path / "t.json"], tmp_path).results
    assert [(each.model, each.benchmark, each.value) for each in found] == [
        ("header", "t", 0.5), ("rows", "t", 0.75),
    ]  # fmt: skip


def test_null_cells_of_helms_tables() -> None:
    heads = [{"value": None}, HEAD, {"value": None, "lower_is_better": True, "metadata": None},
             {"value": "Mean score", "lower_is_better": False}, {"value": "n", "lower_is_better": None}]  # fmt: skip
    cells: list[dict[str, Any]] = [
        {"value": 3},
        {"value": 0, "run_spec_names": None},
        {"value": 1},
        {"value": 0.5},
        {"value": 7},
    ]
    assert list(helm_table_results({"title": None, "header": heads, "rows": [cells]}, "f")) == [
        BoardResult("3", "X", 0.0, "HELM", "EM", source="f"),
        BoardResult("3", "None", 1.0, "HELM", "None", lower_is_better=True, source="f"),
    ]
    named = {**HEAD, "metadata": {"run_group": "", "metric": ""}}
    [one] = helm_table_results({"header": [{}, named], "rows": [[{}, {"value": 0.5, "run_spec_names": [1, "r"]}]]}, "f")
    assert one == BoardResult("", "X", 0.5, "HELM", "EM", source="f", run="1,r")


def test_what_bigcode_leaves_null_is_empty() -> None:
    task = {"pass@1": 0, "pass@10": 1, "text": "0.5", "nothing": None, "flag": False}
    protocol = "bigcode-evaluation-harness, temperature {}, {} samples"
    for config in ({}, {"model": None, "revision": None}, {"model": "", "revision": 0}):
        assert list(bigcode_results({"config": config, "t": task, "u": [1], "v": {}}, "f")) == [
            BoardResult("", "t", value, protocol.format(None, None), metric, source="f")
            for metric, value in (("pass@1", 0.0), ("pass@10", 1.0))
        ]
    full = {"model": 7, "revision": 12, "temperature": 0, "n_samples": 1}
    assert list(bigcode_results({"t": {"pass@1": 0.5}, "config": full, "s": {"pass@1": 0.25}}, "f")) == [
        BoardResult("7", name, value, protocol.format(0, 1), "pass@1", source="f", commit="12")
        for name, value in (("t", 0.5), ("s", 0.25))
    ]


PACKED = ", and stored or deflated files are read: pack it again with `zip`"


def test_a_broken_archive_of_inspect_is_refused_with_the_reason() -> None:
    numbers = json.dumps({"a": list(range(3000))})
    deflated = packed({"header.json": numbers}, zipfile.ZIP_DEFLATED)
    lzma = packed({"header.json": numbers}, zipfile.ZIP_LZMA)
    data, listed = deflated.index(b"header.json") + 11, deflated.index(b"PK\x01\x02")
    stored = packed({"header.json": '{"a": 1}'})
    deep = "[" * 100_000
    for raw, reason in (
        (b"", "File is not a zip file"),
        (bytes(deflated[:-30]), "File is not a zip file"),
        (packed({"a": "{}"}), "\"There is no item named 'header.json' in the archive\""),
        (packed({"header.json": "{"}), "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (packed({"header.json": deep}), "it is nested too deep"),
        (packed({"header.json": "{}", "samples/1.json": deep}), "it is nested too deep"),
        (packed({"header.json": "{}", "samples/1.json": ""}), "Expecting value: line 1 column 1 (char 0)"),
        (changed(stored, (stored.index(b"1}"), 0x32)), "Bad CRC-32 for file 'header.json'"),
        (changed(deflated, (data, 0xFF)), "header.json: Error -3 while decompressing data: invalid block type"),
        (changed(deflated, (8, 77), (listed + 10, 77)), f"header.json is packed with method 77{PACKED}"),
        (changed(deflated, (6, 1), (listed + 8, 1)), "it is encrypted"),
        (changed(lzma, *((lzma.index(b"header.json") + 20 + n, 0xFF) for n in range(40))),
         f"header.json is packed with LZMA{PACKED}"),
        (packed({"header.json": "[]"}), "header.json holds no JSON object"),
        (packed({"header.json": "null"}), "header.json holds no JSON object"),
    ):  # fmt: skip
        with pytest.raises(DataError) as told:
            read_archive(bytes(raw), "log.eval")
        assert str(told.value) == (
            f"log.eval is no readable Inspect log ({reason}): install firsthand[inspect], or convert it to JSON with "
            "`inspect log convert`"
        )


def test_an_archive_is_read_up_to_its_limits_of_bytes_and_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "FREE_BYTES", zip_members.MOST_BYTES)
    monkeypatch.setattr(inspect_logs, "MAX_MEMBERS", 9)
    names = [f"samples/{number}.json" for number in range(8)]
    raw = packed({"header.json": "{}"} | dict.fromkeys(names, "7"))

    def stating(header: int, *sizes: int) -> bytes:
        """The archive with other sizes of its members in the directory at its end."""
        made, place = bytearray(raw), 0
        for size in (header, *sizes):
            place = made.index(b"PK\x01\x02", place) + 4
            made[place + 20 : place + 24] = size.to_bytes(4, "little")
        return bytes(made)

    most = 256 << 20
    assert read_archive(bytes(raw), "f") == {"samples": [7] * 8}
    assert read_archive(stating(2, most, most + 1, most + 2, 1), "f") == {"samples": [7] * 6}
    assert read_archive(stating(2, *[most] * 7, most - 2), "f") == {"samples": [7] * 8}
    full = packed({"header.json": "{}"} | dict.fromkeys([*names, "other"], "7"))
    for wrong in (stating(2, *[most] * 7, most - 1), stating(2, 2**32 - 1), bytes(full)):
        with pytest.raises(DataError) as told:
            read_archive(wrong, "f")
        assert str(told.value) == ("f: the archive unpacks to more than 2048 MB, or has more than 9 members: not read")


def test_samples_of_an_archive_are_those_of_their_folder_in_order() -> None:
    parts = {"samples/2.json": "2", "samples/1.json": '{"id": 1}', "x/samples/3.json": "3", "samples.json": "4"}
    assert read_archive(bytes(packed({**parts, "header.json": '{"a": 0, "samples": [9]}'})), "f") == {
        "a": 0, "samples": [2, {"id": 1}],
    }  # fmt: skip
    assert read_archive(bytes(packed({"header.json": "{}"})), "f") == {"samples": []}


def test_files_of_more_json_values_than_are_decoded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.benchmarks.sources.tables.MAX_VALUES", 1000)
    inspect = {"status": "success", "eval": {"task": "t", "model": "m"}}
    sample, dense = json.dumps({"id": 1, "scores": {"s": {"value": 1}}}), "[" + "{}," * 500 + "1]"
    results = '{"results": {"t": {"acc,none": 0.5}}, "versions": {}, "model_name": "m", "x": %s}'
    (tmp_path / "dense.json").write_text(results % dense)
    (tmp_path / "dense.json.gz").write_bytes(gzip.compress((results % dense).encode()))
    (tmp_path / "dense.jsonl").write_text(json.dumps({"model": "m", "benchmark": "b", "score": 1, "x": [0] * 600}) * 2)
    (tmp_path / "one.eval").write_bytes(packed({"header.json": json.dumps(inspect), "samples/1.json": dense}))
    many = {f"samples/{number}.json": sample for number in range(300)}  # four values each
    (tmp_path / "many.eval").write_bytes(packed({"header.json": json.dumps(inspect), **many}))
    (tmp_path / "head.eval").write_bytes(packed({"header.json": json.dumps(inspect | {"x": [0] * 1001})}))
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 6
    for name in names:
        with pytest.raises(DataError) as told:
            read_results([tmp_path / name], tmp_path)
        says = "holds more than 1,000 JSON values: is it the right file? Split it if it is"
        assert str(told.value) == f"{tmp_path / name} {says}"
    text = json.dumps("{},[" * 2000)
    (tmp_path / "dense.json").write_text(results % text)
    assert len(read_results([tmp_path / "dense.json"], tmp_path).results) == 1, "marks in texts are no values"


def test_an_item_of_a_long_table_that_is_there_twice_is_found_at_once() -> None:
    rows = [TableRow({"item": str(number), "m": 1}, "") for number in [*range(30_000), 29_999]]
    with at_most_cpu_s(2), pytest.raises(DataError, match="has the item '29999' more than once"):
        list(item_rows(rows, Path("t.csv")))
