"""RecallRequest: the filters of a search in a kept memory, as `ctx.recall` passes them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from firsthand.errors import ConfigError, nearest
from firsthand.memories.keeping.kept_item import KeptItem, seconds_of

_TAKEN = ("at", "known", "since", "until", "where", "ids", "history")


@dataclass(frozen=True)
class RecallRequest:
    """A query with its filters."""

    query: str
    k: int
    at_s: float = math.inf
    """Answer as of this valid time: later items are not seen, and what they replaced is."""
    known_s: float = math.inf
    """Answer from what was stored up to this transaction time."""
    since_s: float = -math.inf
    until_s: float = math.inf
    where: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the provenance and the values that they must have."""
    ids: tuple[str, ...] = ()
    """Read these items, in this order, instead of searching."""
    history: bool = False
    """Show replaced and withdrawn items too."""
    now_s: float = field(default_factory=lambda: time.time(), compare=False)
    """The present: unless `at_s` is given, what is to come after it replaces nothing yet."""

    @staticmethod
    def of(query: str, k: int, how: Mapping[str, Any]) -> RecallRequest:
        """The request of keywords: `at`, `known`, `since`, `until`, `where`, `ids`, `history`. ConfigError for others."""
        for name in how:
            if name not in _TAKEN:
                close = nearest(name, _TAKEN)
                hint = f"did you mean {close!r}?" if close else f"it takes {', '.join(_TAKEN)}"
                raise ConfigError(f"this memory's search does not take {name!r}: {hint}")
        where, ids = how.get("where") or {}, how.get("ids") or ()
        if not isinstance(where, Mapping) or isinstance(ids, str) or not isinstance(ids, Sequence):
            raise ConfigError(f"where is {where!r:.80} and ids {ids!r:.80}: an object and a list of ids were expected")
        times = {name: seconds_of(how[name]) for name in ("at", "known", "since", "until") if how.get(name) is not None}
        return RecallRequest(
            query, k, times.get("at", math.inf), times.get("known", math.inf), times.get("since", -math.inf),
            times.get("until", math.inf), where, tuple(map(str, ids)), bool(how.get("history", False)),
        )  # fmt: skip

    def dated(self, kept: KeptItem) -> KeptItem:
        """The item as if it were stored now, if it is not stored yet."""
        if math.isfinite(kept.stored_s):
            return kept
        return replace(kept, valid_s=kept.valid_s if kept.is_timed else self.now_s, stored_s=self.now_s)

    def is_past(self, kept: KeptItem) -> bool:
        """True if the item counts for an answer as of `at_s` and `known_s`; what is not stored yet is not known yet."""
        return self.dated(kept).valid_s <= self.at_s and kept.stored_s <= self.known_s

    def is_coming(self, kept: KeptItem) -> bool:
        """True if the item begins to hold after the present, about which the request asks."""
        return math.isinf(self.at_s) and kept.is_coming(self.now_s)

    def fits(self, kept: KeptItem) -> bool:
        """True if the item passes all filters but the one that hides what was replaced."""
        if not (self.is_past(kept) and self.since_s <= self.dated(kept).valid_s <= self.until_s):
            return False
        provenance = kept.item.provenance
        return all(name in provenance and provenance[name] == value for name, value in self.where.items())
