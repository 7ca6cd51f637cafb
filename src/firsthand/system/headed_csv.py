"""Reads a CSV file by its headings, within a bound on its cells: short rows below many headings are filled up."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

MAX_CELLS = 20_000_000
"""Headings times rows: a heading line of 100 kB makes each row of two bytes one of 20,000 cells."""


class HeadedCsv:
    """Rows as those of `csv.DictReader`; csv.Error once there are more than `MAX_CELLS` cells."""

    def __init__(self, lines: Iterable[str], *, strict: bool = False):
        self._reader = csv.DictReader(lines, strict=strict)
        self._cells = 0

    @property
    def fieldnames(self) -> Sequence[str]:
        """The headings; none of an empty file."""
        return self._reader.fieldnames or ()

    @property
    def line_num(self) -> int:
        """The line that was read last."""
        return self._reader.line_num

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._reader:
            self._cells += max(len(row), len(self.fieldnames))  # equal headings are filled up too
            if self._cells > MAX_CELLS:
                raise csv.Error(
                    f"its {len(self.fieldnames):,} headings and the rows up to line {self.line_num:,} make more than "
                    f"{MAX_CELLS:,} cells: leave columns out"
                )
            yield row
