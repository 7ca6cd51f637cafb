"""SentencePiece's normaliser: replaces, from left to right, the longest text that a table has a replacement for.

A table is a double-array trie of UTF-8 (Aoe, 1989; the layout is darts-clone's) whose values are offsets into a list of
replacements. It is read out once, with every step bounded, since the file may hold any bytes: a trie that loops ends as an
error. The `tokenizers` library looks up whole graphemes instead, which differs for accents that stand apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from firsthand.errors import ModelFileError

_MAX_KEY_BYTES, _MAX_KEYS, _MAX_NODES = 64, 1 << 18, 1 << 20
_LETTERS, _AT_ONCE = np.arange(1, 256), 4096
_MAX_GROWTH = 64
"""Most characters that a text of one may become; NFKC makes 18 of U+FDFA."""
_MAX_NEW = _MAX_GROWTH * _MAX_KEY_BYTES * 4
MAX_TABLE_BYTES, MAX_NEW_BYTES = 1 << 23, 1 << 22
"""Most bytes of a table, and of all replacements read out of it; NFKC with case folding has 250,000 and 63,000. Keys share
places of a table, and replacements the ends of others, so what is read may be far larger than the table."""


def read_table(table: bytes, source: str) -> dict[str, str]:
    """Returns the replacements of a table by what they replace; ModelFileError if it is corrupt."""
    expect_table(table, source)
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size % 4 or size > len(table) - 4:
        raise ModelFileError(f"{source}: the normaliser's table is cut short")
    units = np.frombuffer(table, dtype="<u4", count=size // 4, offset=4).astype(np.int64)
    texts = _Replacements(table[4 + size :], source)
    if len(units) == 0:
        return {}
    labels, leaves = units & (0x80000000 | 0xFF), (units >> 8) & 1
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    nodes, keys = [int(offsets[0])], [b""]
    found: dict[str, str] = {}
    seen = ended = 0
    for _ in range(_MAX_KEY_BYTES):
        following, longer = [], []
        for start in range(0, len(nodes), _AT_ONCE):
            children = np.array(nodes[start : start + _AT_ONCE])[:, None] ^ _LETTERS
            inside = np.where(children < len(units), children, 0)
            rows, columns = np.nonzero((labels[inside] == _LETTERS) & (children < len(units)))
            positions = children[rows, columns]
            ahead = (positions ^ offsets[positions]).tolist()
            seen += len(ahead)
            if seen > _MAX_NODES:
                raise _endless(source)
            for row, column, node, ends in zip(
                rows.tolist(), columns.tolist(), ahead, leaves[positions].tolist(), strict=True
            ):
                key = keys[start + row] + bytes([column + 1])
                if ends and node < len(units):
                    ended += 1
                    if ended > _MAX_KEYS:
                        raise ModelFileError(
                            f"{source}: the normaliser's table replaces more than {_MAX_KEYS} texts: expected "
                            "that of a real model"
                        )
                    _keep(found, key, texts.at(int(units[node]) & 0x7FFFFFFF), source)
                following.append(node)
                longer.append(key)
        nodes, keys = following, longer
        if not nodes:
            return found
    raise _endless(source)


def expect_table(table: bytes, source: str) -> None:
    """Raise ModelFileError for a table of more bytes than those of real models."""
    if len(table) > MAX_TABLE_BYTES:
        raise ModelFileError(
            f"{source}: the normaliser's table has {len(table)} bytes: expected at most {MAX_TABLE_BYTES}, as in that of a "
            "real model"
        )


def _endless(source: str) -> ModelFileError:
    return ModelFileError(f"{source}: the normaliser's table has no end: it loops, or is not SentencePiece's")


class _Replacements:
    """Reads the texts of a table, each place once: keys with one replacement share it."""

    def __init__(self, texts: bytes, source: str):
        self._texts, self._source = texts, source
        self._known: dict[int, str | None] = {}
        self._left = MAX_NEW_BYTES

    def at(self, start: int) -> str | None:
        """The text that begins at a place, or None if it is not UTF-8; ModelFileError if it has no end or is too long."""
        if start in self._known:
            return self._known[start]
        end = self._texts.find(b"\0", start, start + _MAX_NEW + 1)
        if end < 0:
            beyond = start + _MAX_NEW < len(self._texts)
            raise ModelFileError(
                f"{self._source}: the normaliser's table "
                + (f"has a replacement of more than {_MAX_NEW} bytes" if beyond else "points past its end")
            )
        self._left -= end - start
        if self._left < 0:
            raise ModelFileError(
                f"{self._source}: the normaliser's replacements have more than {MAX_NEW_BYTES} bytes together: expected "
                "those of a real model"
            )
        try:
            new = self._texts[start:end].decode()
        except UnicodeDecodeError:
            new = None  # no text can hold it
        self._known[start] = new
        return new


def _keep(found: dict[str, str], key: bytes, new: str | None, source: str) -> None:
    try:
        old = key.decode()
    except UnicodeDecodeError:
        return
    if new is None:
        return
    if len(new) > _MAX_GROWTH * len(old):
        raise ModelFileError(f"{source}: the normaliser's table makes {len(new)} characters of {old!r:.80}")
    found[old] = new


def replacer(table: Mapping[str, str]) -> Callable[[str], str]:
    """Returns the function that replaces the longest match at each place of a text."""
    if not table:
        return lambda text: text
    longest: dict[str, int] = {}
    for key in table:
        longest[key[0]] = max(longest.get(key[0], 0), len(key))
    first = re.compile("[" + "".join(map(re.escape, longest)) + "]")

    def replace(text: str) -> str:
        made, done = [], 0
        for match in first.finditer(text):
            start = match.start()
            if start < done:
                continue
            for size in range(longest[match[0]], 0, -1):
                new = table.get(text[start : start + size])
                if new is not None:
                    made += [text[done:start], new]
                    done = start + size
                    break
        return "".join([*made, text[done:]]) if made else text

    return replace
