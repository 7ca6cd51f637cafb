"""A lateral thinking puzzle: its story, its truth, and the key points of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from firsthand.errors import DataError
from firsthand.message import Json

_BULLET = re.compile(r"^\s*(?:\d{1,2}[.)、]|[-*•])\s*")


@dataclass(frozen=True)
class Puzzle:
    """One puzzle."""

    story: str
    truth: str
    story_keys: tuple[str, ...]
    answer_keys: tuple[str, ...]
    """The points that a player has to find out."""

    def to_json(self) -> Json:
        """The puzzle as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(body: Json) -> Puzzle:
        """The puzzle that `to_json` wrote."""
        return Puzzle(body["story"], body["truth"], tuple(body["story_keys"]), tuple(body["answer_keys"]))


def read_puzzle(row: Sequence[str], where: str) -> Puzzle:
    """The puzzle of a row: story, truth, key points of the story, key points of the truth; DataError if one is missing."""
    cells = [cell.strip() for cell in row[:4]]
    if len(cells) < 4 or not all(cells):
        raise DataError(f"{where}: story, answer, story keys and answer keys were expected, and {cells!r:.80} came")
    return Puzzle(cells[0], cells[1], _keys(cells[2]), _keys(cells[3]))


def _keys(text: str) -> tuple[str, ...]:
    found = (_BULLET.sub("", line).strip() for line in text.splitlines())
    return tuple(key for key in found if key)
