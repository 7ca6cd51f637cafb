"""Cleans text for an index: NFC, line feeds, and none of the characters that are not seen and may carry hidden text.

Dropped are controls, marks of direction, zero-width characters, soft hyphens, tag characters and selectors that hide data;
joiners stay where they shape letters or emoji. Controls that part lines, fields or records become blanks. Line breaks stay
as many as they were, so line numbers are those of the source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from firsthand.retrieval.document import Location
from firsthand.system.normalised_text import normalised_text

_KINDS = {
    "control": "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f",
    "bidirectional": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "zero-width": "\u034f\u115f\u1160\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff",
    "soft-hyphen": "\u00ad",
    "tag": "\U000e0000-\U000e0fff",
}
_DROPPED = re.compile("|".join(f"(?P<{name.replace('-', '_')}>[{chars}])" for name, chars in _KINDS.items()))
_JOINER = re.compile("(?<![^\x00-\x7f\\s])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\\s\u200c\u200d])")
"""A joiner that stands beside ASCII or white space, where it joins nothing."""
_PARTS = re.compile("[\x0b\x1c-\x1f]")
"""Word's break of a line, and the separators of files, groups, records and units."""
_ANY = re.compile(f"[{''.join(_KINDS.values())}\x0b\x1c-\x1f\u200c\u200d\r\ud800-\udfff]")


def clean(text: str, places: Sequence[Location] = ()) -> tuple[str, tuple[Location, ...], list[str]]:
    """The text, the places where they are then, and a remark if something was dropped."""
    if text.isascii() and not _ANY.search(text):
        return text, tuple(places), []
    dropped: Counter[str] = Counter()
    cuts = [place.start for place in places]
    parts = [_cleaned(text[start:end], dropped) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    moved, at = [], len(parts[0])
    for place, part in zip(places, parts[1:], strict=True):
        moved.append(replace(place, start=at))
        at += len(part)
    told = ", ".join(f"{count} {name}" for name, count in sorted(dropped.items()))
    return "".join(parts), tuple(moved), [f"invisible characters were dropped: {told}"] if told else []


def clean_line(text: str) -> str:
    """The text cleaned, on one line."""
    return " ".join(clean(text)[0].split())


def _cleaned(text: str, dropped: Counter[str]) -> str:
    if _ANY.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        text = _PARTS.sub(" ", text)
        dropped.update((found.lastgroup or "").replace("_", "-") for found in _DROPPED.finditer(text))
        text = _DROPPED.sub("", text)
        text, joiners = _JOINER.subn("", text)
        if joiners:
            dropped["zero-width"] += joiners
    return normalised_text("NFC", text)
