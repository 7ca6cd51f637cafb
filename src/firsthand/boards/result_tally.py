"""Bounds on what readers of results make of files: results, the memory of their texts, and cells of item scores.

A file may repeat one long text in each of its results, or give each model items of its own; its bytes and JSON values bound
neither. Readers yield their results one by one, and all of them pass here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields

from firsthand.boards.board_results import MAX_ALL_CELLS, BoardResult, ColumnKey, ItemScores
from firsthand.errors import ConfigError, DataError

MAX_RESULTS = 2_000_000
"""Results of all files, those of one model on one column each."""
MAX_TEXT_BYTES = 256 << 20
"""Memory of the texts of all results, one that results in a row share counted once."""
MAX_NAME = 20_000
"""Characters of a model, a benchmark, a protocol or a metric: each is repeated in many cells of a board."""
_TEXTS = tuple(each.name for each in fields(BoardResult) if each.type == "str")
_NAMES = ("model", "benchmark", "protocol", "metric")
_EMPTY = sys.getsizeof("")


class ResultTally:
    """Counts the results of all files as they are read."""

    def __init__(self) -> None:
        self.results = 0
        self.text_bytes = 0
        self.cells = 0
        self._last: dict[str, object] = {}

    def counted(self, found: Iterable[BoardResult | ItemScores]) -> Iterator[BoardResult | ItemScores]:
        """The same results, one by one, up to the first that is too much.

        Raises:
            ConfigError: More than is read of all files together.
            DataError: A file with a name that is too long; the others may be read.
        """
        for each in found:
            if isinstance(each, ItemScores):
                self._add_items(each)
            else:
                self._add_result(each)
            yield each

    def _add_items(self, items: ItemScores) -> None:
        source = next((each.source for each in items.abouts), "") or items.key.benchmark[:200]
        self.cells += items.scores.size
        if self.cells > MAX_ALL_CELLS:
            raise ConfigError(
                f"{source}: more than {MAX_ALL_CELLS:,} scores of single items with the files before it: make a board of "
                "fewer files"
            )
        for name, text in zip(ColumnKey._fields, items.key, strict=True):
            self._add_text(name, text, source)
        for name, texts in (("model", items.models), ("tasks", items.tasks), ("clusters", items.clusters)):
            if self._last.get(f"all {name}") is not texts:
                self._last[f"all {name}"] = texts
                for text in texts:
                    self._add_text(name, text, source)
        for about in items.abouts:
            if self._last.get("about") is not about:
                self._last["about"] = about
                self._add_texts(about)
        self._add_count(len(items.models), source)

    def _add_result(self, result: BoardResult) -> None:
        self._add_texts(result)
        self._add_count(1, result.source)

    def _add_texts(self, result: BoardResult) -> None:
        for name in _TEXTS:
            self._add_text(name, getattr(result, name), result.source)

    def _add_text(self, name: str, text: str, source: str) -> None:
        if self._last.get(name) is text:
            return
        self._last[name] = text
        if name in _NAMES and len(text) > MAX_NAME:
            raise DataError(
                f"{source}: a {name} of {len(text):,} characters ({text[:40]!r}...): give at most {MAX_NAME:,}"
            )
        self.text_bytes += sys.getsizeof(text) - _EMPTY
        if self.text_bytes > MAX_TEXT_BYTES:
            raise ConfigError(
                f"{source}: the texts of its results, with those of the files before it, take more than "
                f"{MAX_TEXT_BYTES >> 20} MiB: make a board of fewer files, or of shorter names and versions"
            )

    def _add_count(self, number: int, source: str) -> None:
        self.results += number
        if self.results > MAX_RESULTS:
            raise ConfigError(
                f"{source}: more than {MAX_RESULTS:,} results with the files before it: make a board of fewer files"
            )
