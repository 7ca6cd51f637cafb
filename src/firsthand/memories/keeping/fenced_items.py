"""Fences items for a prompt: what a memory holds is data with its origin, never an instruction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from firsthand.loop.read_origins import LEAD as LEAD
from firsthand.loop.read_origins import ORIGIN as ORIGIN
from firsthand.loop.read_origins import ORIGINS, SPECIAL
from firsthand.loop.read_origins import bounded_origins as bounded_origins
from firsthand.loop.read_origins import origins_in as origins_in
from firsthand.loop.read_origins import origins_of as origins_of
from firsthand.memories.keeping.kept_item import origins_given, seconds_of, shown_time
from firsthand.memory import MemoryItem
from firsthand.tool import marked

_FORGED = re.compile(r'(untrusted)(?= from="memory )')
_UNSAFE = re.compile(r'[<>"\r\n]')
MAX_LABEL = 300
"""The most characters of a label: a mark cuts what is longer."""
_MAX_SHOWN = 200
"""The most characters of each of several origins in a label."""


def fenced(items: Iterable[MemoryItem]) -> str:
    """The items between marks that name their ids, times and origins; no text can close its mark, or name an origin."""
    return "\n".join(marked(_FORGED.sub(r"\1\\", item.text), label_of(item)) for item in items)


def label_of(item: MemoryItem) -> str:
    """Id, time and origin of an item, as its mark shows them; commas and semicolons in them as codes, %2C and %3B."""
    parts = [f"memory {_coded(item.id)}"]
    if (given := item.provenance.get("time")) is not None:
        parts.append(shown_time(seconds_of(given)))
    label = _UNSAFE.sub(" ", "; ".join(filter(None, parts)))
    origins = [_coded(_UNSAFE.sub(" ", each)) for each in origins_given(item.provenance)]
    origins = [each[:_MAX_SHOWN] for each in origins] if len(origins) > 1 else origins
    for count in range(len(origins), 0, -1):
        more = [f"and {len(origins) - count} more"] if count < len(origins) else []
        named = f"{label}{ORIGINS}{', '.join([*origins[:count], *more])}"
        if len(named) <= MAX_LABEL or count == 1:
            return named[:MAX_LABEL]
    return label[:MAX_LABEL]


def _coded(text: str) -> str:
    return re.sub(r"[,;]|%(?=2C|3B|25)", lambda found: SPECIAL[found[0]], text)


def joined_origins(provenances: Iterable[Any]) -> list[str]:
    """The origins of several items, each once, in order, as far as an item keeps them."""
    return bounded_origins(origin for each in provenances for origin in origins_given(each))
