"""MetaReader: the `meta` of documents and chunks, decoded from the columns of an index's file for one answer."""

from __future__ import annotations

from typing import Any

from firsthand.message import Json
from firsthand.system.json_values import values_in_text
from firsthand.system.stored_json import decoded_object

MAX_META_CHARS = 16 << 20
"""Characters of one meta as JSON. A query asks for one more, and so reads no more of a larger one."""
MAX_META_VALUES = 100_000
"""JSON values of one meta, as in the record of a chunk on a server."""
MAX_ANSWER_VALUES = 2_000_000
"""JSON values of all metas of one answer."""
_FREE_VALUES = 16
"""Values of a meta that count for nothing: an index of a million small metas is an ordinary one."""


def meta_column(column: str) -> str:
    """SQL for a column of metas, cut off where it is too large."""
    return f"substr({column}, 1, {MAX_META_CHARS + 1})"


class MetaReader:
    """Decodes metas. One that several chunks share is decoded once, and they share its value: do not change it."""

    def __init__(self) -> None:
        self._read: dict[Any, Json] = {}
        self._left = MAX_ANSWER_VALUES

    def read(self, column: Any) -> Json:
        """The object of a column. ValueError for anything else, and for too many values in it or in all so far."""
        known = self._read.get(column)
        if known is None:
            known = self._read[column] = decoded_object(column, MAX_META_CHARS, MAX_META_VALUES)
            self._left -= max(0, values_in_text(column, MAX_META_VALUES, few=0) - _FREE_VALUES)
            if self._left < 0:
                raise ValueError(
                    f"metas hold more than {MAX_ANSWER_VALUES:,} values together: ask for fewer chunks at once"
                )
        return known
