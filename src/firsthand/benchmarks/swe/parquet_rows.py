"""Reads the columns of SWE-bench records from Parquet, bounded by the Python values that they become.

Arrow counts the bytes of its buffers, and nulls, bits and structs of nothing have next to none: values are counted instead,
and only columns of text, numbers and lists of text are decoded. Columns that no record has are not read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from firsthand.benchmarks.sources.datasets import MAX_BYTES
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.errors import DataError, MissingExtra, reason_of

COLUMNS = frozenset((
    "instance_id", "repo", "base_commit", "problem_statement", "patch", "test_patch", "FAIL_TO_PASS", "PASS_TO_PASS",
    "XFAIL", "eval_script", "log_parser", "eval_type", "image", "text", "test_cmd", "environment_setup_commit",
))  # fmt: skip
"""The columns of a record that are read."""
MAX_VALUES = 4_000_000
"""Cells and list elements of those columns; SWE-rebench has half as many."""
_BATCH_ROWS = 8


def parquet_rows(raw: bytes, path: Path) -> list[TableRow]:
    """The rows of a Parquet file with the columns that a record has; DataError if it is damaged or too large."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("pyarrow", "swe", f"reading {path.name}")
    import pyarrow
    import pyarrow.parquet

    too_large = DataError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB: is it the right file?")
    too_many = DataError(
        f"{path} holds more than {MAX_VALUES:,} values in the columns of a record: is it the right file? Split it if it is"
    )
    rows: list[dict[str, Any]] = []
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(raw))
        chosen = [
            each for each in file.schema_arrow if each.name.partition(".")[0] in COLUMNS
        ]  # as pyarrow chooses them
        for each in chosen:
            _expect_type(each, path)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MAX_BYTES:
            raise too_large
        chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
        if sum(each.num_values for each in chunks if each.path_in_schema.partition(".")[0] in COLUMNS) > MAX_VALUES:
            raise too_many
        unpacked = values = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[each.name for each in chosen]):
            unpacked += sum(map(_text_bytes, batch.columns))  # a text that the file holds once may stand in every row
            if unpacked > MAX_BYTES:
                raise too_large
            values += sum(map(_values_in, batch.columns))
            if values > MAX_VALUES:
                raise too_many
            rows += batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a complete Parquet file: {reason_of(error).splitlines()[0][:200]}") from None
    return [TableRow(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def _expect_type(field: Any, path: Path) -> None:
    from pyarrow import types

    kind = field.type
    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    elif types.is_dictionary(kind):
        kind = kind.value_type  # categories of pandas
    elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
        raise DataError(
            f"{path}: the column {field.name[:60]!r} is of type {str(field.type)[:80]}, and text or a list of text was "
            "expected: write it as text, or as JSON in text"
        )


def _text_bytes(column: Any) -> int:
    """The bytes of a column once each row has its own copy of its text."""
    from pyarrow import compute, types

    if not types.is_dictionary(column.type):
        return int(column.nbytes)
    return int(compute.sum(compute.take(compute.binary_length(column.dictionary), column.indices)).as_py() or 0)


def _values_in(column: Any) -> int:
    from pyarrow import types

    nested = types.is_list(column.type) or types.is_large_list(column.type)
    return len(column) + (len(column.flatten()) if nested else 0)
