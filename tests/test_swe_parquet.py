"""Parquet of SWE-bench records is bounded by the values that it becomes, and read where it is a record's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks.swe import parquet_rows as subject
from firsthand.benchmarks.swe.parquet_rows import parquet_rows
from firsthand.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
PATH = Path("tasks.parquet")


def packed(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"instance_id": ["calc-1"], **columns}), out, compression="zstd")
    return out.getvalue()


def one_list(values: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def test_lists_that_arrow_keeps_in_few_bytes_are_counted_by_their_values() -> None:
    most = subject.MAX_VALUES
    with pytest.raises(DataError, match="holds more than 4,000,000 values in the columns of a record"):
        parquet_rows(packed(PASS_TO_PASS=one_list(pa.nulls(most + 1, pa.string()))), PATH)
    with pytest.raises(DataError, match="more than 4,000,000 values"):
        parquet_rows(packed(PASS_TO_PASS=one_list(pa.nulls(most + 1))), PATH)


def test_values_are_counted_before_they_are_decoded_and_again_where_the_footer_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = packed(PASS_TO_PASS=one_list(pa.nulls(5000, pa.string())))
    monkeypatch.setattr(subject, "MAX_VALUES", 5000)
    with monkeypatch.context() as undecoded, pytest.raises(DataError, match="more than 5,000 values"):
        undecoded.setattr(subject, "_text_bytes", lambda column: pytest.fail("it was decoded"))
        parquet_rows(raw, PATH)
    monkeypatch.setattr(subject, "MAX_VALUES", 5002)
    assert len(parquet_rows(raw, PATH)[0].columns["PASS_TO_PASS"]) == 5000
    monkeypatch.setattr(subject, "MAX_VALUES", 5000)
    with pytest.raises(DataError, match="more than 5,000 values"):
        parquet_rows(lying(raw), PATH)


def test_each_kind_of_list_counts_as_its_values_and_itself() -> None:
    for kind in (pa.list_(pa.string()), pa.large_list(pa.string())):  # Polars writes large ones
        assert subject._values_in(pa.array([["a", "b"], [], None, ["c"]], kind)) == 4 + 3
    assert subject._values_in(pa.array(["a", None])) == 2


def lying(raw: bytes) -> bytes:
    """The file with a footer that states one value for the second column, which has 5,000."""
    stated, one = b"\x90\x4e", b"\x82\x00"  # zigzag varints of 5,000 and 1
    for place in range(len(raw)):
        if raw.startswith(stated, place):
            forged = raw[:place] + one + raw[place + 2 :]
            try:
                if pq.ParquetFile(io.BytesIO(forged)).metadata.row_group(0).column(1).num_values == 1:
                    return forged
            except (OSError, pa.ArrowException):
                continue
    raise AssertionError("the footer states no 5,000")


@pytest.mark.parametrize(
    "column",
    [
        one_list(pa.StructArray.from_arrays([pa.nulls(3)], ["a"])), one_list(pa.array([True, False])),
        one_list(one_list(pa.array(["a", "b"]))), pa.array([{"a": None}]), one_list(pa.array([1, 2])),
    ],
    ids=lambda each: str(each.type),
)  # fmt: skip
def test_a_column_of_a_record_that_is_neither_text_nor_a_list_of_it_is_refused(column: Any) -> None:
    with pytest.raises(DataError, match=r"the column 'PASS_TO_PASS' is of type .*: write it as text"):
        parquet_rows(packed(PASS_TO_PASS=column), PATH)
    with pytest.raises(DataError, match=r"'patch\.more' is of type|^$"):
        parquet_rows(packed(**{"patch": ["p"], "patch.more": column}), PATH)


def test_columns_that_no_record_has_are_not_read() -> None:
    meta = one_list(pa.StructArray.from_arrays([pa.nulls(1000)], ["a"]))
    [row] = parquet_rows(packed(repo=["a/b"], meta=meta, created_at=pa.array([1], pa.timestamp("s"))), PATH)
    assert row.columns == {"instance_id": "calc-1", "repo": "a/b"} and row.where == "tasks.parquet, row 1"


def test_lists_categories_empty_lists_and_numbers_of_honest_files_are_read() -> None:
    columns = {
        "FAIL_TO_PASS": one_list(pa.array(["a", "b"])), "PASS_TO_PASS": pa.array([[]]),
        "XFAIL": pa.array([["c"]], pa.large_list(pa.large_string())), "repo": pa.array(["a/b"]).dictionary_encode(),
        "text": pa.nulls(1), "patch": pa.array(["p"], pa.large_string()), "test_cmd": pa.array([None], pa.float64()),
    }  # fmt: skip
    [row] = parquet_rows(packed(**columns), PATH)
    assert row.columns == {
        "instance_id": "calc-1", "FAIL_TO_PASS": ["a", "b"], "PASS_TO_PASS": [], "XFAIL": ["c"], "repo": "a/b",
        "text": None, "patch": "p", "test_cmd": None,
    }  # fmt: skip


@pytest.mark.slow
def test_a_category_counts_once_for_each_row_that_has_it() -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["x" * (1 << 20)]))
    out = io.BytesIO()
    pq.write_table(pa.table({"text": text}), out, compression="zstd")
    with pytest.raises(DataError, match="unpacks to more than 256 MiB"):
        parquet_rows(out.getvalue(), PATH)
