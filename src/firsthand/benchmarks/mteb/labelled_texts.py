"""Texts with labels, for classification and clustering: Banking77's two files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from firsthand.benchmarks.sources.datasets import beside, contents, is_file, located
from firsthand.errors import DataError, reason_of
from firsthand.system.headed_csv import HeadedCsv


def banking77(split: str, data: str = "") -> tuple[list[str], list[str]]:
    """Returns texts and labels of `train` or `test` (Casanueva et al., 2020)."""
    paths = (f"embed/banking77_{split}.csv", f"{split}.csv")
    path = beside(data, *paths) if split == "train" and is_file(data) else located(paths[0], data, paths[1])
    if path is None:
        raise DataError(
            "Banking77 is not on this machine: fetch banking_data of github.com/PolyAI-LDN/task-specific-datasets, and give "
            "its folder, as in data=FOLDER, with train.csv and test.csv"
        )
    return read_labelled(path)


def read_labelled(path: Path) -> tuple[list[str], list[str]]:
    """Returns the columns `text` and `category` of a CSV file; DataError with the line of a bad row."""
    try:
        reader = HeadedCsv(io.StringIO(contents(path).decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file: {reason_of(error)}") from None
    for line, row in rows:
        if not row.get("text") or not row.get("category"):
            raise DataError(f"{path}, line {line}: a text and a category were expected, not {str(row)[:60]!r}")
    if not rows:
        raise DataError(f"{path} holds no rows: is it truncated?")
    return [row["text"] for _, row in rows], [row["category"] for _, row in rows]


def spec_with(name: str, **options: object) -> str:
    """Returns a benchmark and its options as one text, as tasks name what they share."""
    given = {key: str(value).replace(":", "\\:") for key, value in options.items() if value != ""}
    return name + "".join(f":{key}={value}" for key, value in given.items())
