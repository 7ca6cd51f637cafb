"""Normalises a text by Unicode's rules in time that grows with its length.

`unicodedata.normalize` sorts each run of combining marks by insertion, which takes the square of the run's length and holds
Python's lock meanwhile. Text of models, documents and clients is normalised here instead, and what Python itself would
normalise is looked at first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Literal

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MAX_MARKS = 200
"""The most combining marks in a row of a text that Python normalises itself."""

_LETTERS = (
    "\x00-\u02ff\u0904-\u0939\u0958-\u0961\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81\u0e82\u0ea7-\u0eb0\u0ec0-\u0ec4"
    "\u0f40-\u0f47\u1000-\u102a\u1780-\u17b3\u2500-\u259f\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\uac00-\ud7a3"
)
"""No character of these decomposes into marks at its start. Letters of languages that are written with few spaces are among
them, so that their texts have no wide runs; other letters may be left out."""
_WIDE = re.compile(f"[^{_LETTERS}]{{31,}}")
"""Holds every run of more marks than Stream-Safe Text has (30, UAX 15)."""


def normalised_text(form: Form, text: str) -> str:
    """The text in the normal form: what `unicodedata.normalize` returns."""
    if unicodedata.is_normalized(form, text):
        return text
    return unicodedata.normalize(form, _WIDE.sub(lambda run: _sorted_marks(form, run[0]), text))


def _sorted_marks(form: Form, run: str) -> str:
    """The run decomposed, with the marks after each letter in canonical order, in which sorting them again is linear."""
    return "".join("".join(sorted(part, key=unicodedata.combining)) for _, part in _parts(form, run))


def has_long_marks(text: str) -> bool:
    """True for a text that `ast.parse`, `compile` and `urlsplit` may take minutes for: they normalise names and hosts."""
    return any(
        are_marks and sum(1 for _ in part) > MAX_MARKS
        for run in _WIDE.finditer(text)
        for are_marks, part in _parts("NFKC", run[0])
    )


def _parts(form: Form, run: str) -> Iterator[tuple[bool, Iterator[str]]]:
    """The characters of the run decomposed: in turn those that are combining marks and those that are none."""
    apart: Form = "NFKD" if "K" in form else "NFD"
    decomposed = "".join(unicodedata.normalize(apart, each) for each in run)
    return groupby(decomposed, key=lambda each: unicodedata.combining(each) > 0)
