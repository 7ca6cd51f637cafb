"""A MemoryItem with what searches read: its words, its times and the key of the fact that it states.

Two times are kept (Snodgrass and Ahn, 1985). Valid time is when the text holds: `time` of the provenance, or else when it
was stored. Transaction time is when the store learnt it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from firsthand.errors import ConfigError
from firsthand.memory import MemoryItem
from firsthand.message import canonical
from firsthand.retrieval.store.analyzer import NEWEST_FORM, Analyzer
from firsthand.system.normalised_text import Form, normalised_text
from firsthand.system.stored_json import decoded_column

MAX_ITEM_BYTES = 64 << 10
"""The most that an item's text and provenance take as JSON."""
MAX_ITEM_VALUES = 10_000
"""The most JSON values that they hold."""
ZONES_S = 14 * 3600.0
"""Times without a zone are read as UTC, and the local time of a writer is up to so much ahead of it."""
FIRST_UNSTORED = 1 << 62
"""Numbers from here on are of items that no file has."""


@dataclass(frozen=True)
class KeptItem:
    """An item in a store, or in the changes of an attempt that the store does not have yet."""

    item: MemoryItem
    number: int
    """Its place in the order of writing."""
    key: str | None
    """The same for items of which a newer one replaces an older one."""
    valid_s: float
    """Valid time, in seconds since 1970; infinite for what an attempt wrote without a time, until it is committed."""
    stored_s: float
    """Transaction time; infinite for what is not stored yet."""
    batch: int = 0
    """The import that it came with, as a number; 0 if it was written here."""

    @property
    def confidence(self) -> float:
        """The writer's confidence in it, 0 to 1; 1 unless it was given."""
        return float(self.item.provenance.get("confidence", 1.0))

    @property
    def known_s(self) -> float:
        """Valid time, or when it was stored if that was before: by this the age of an item counts."""
        return min(self.valid_s, self.stored_s)

    @property
    def is_withdrawal(self) -> bool:
        """True if it says that a fact of its key holds no more."""
        return bool(self.item.provenance.get("withdrawn"))

    def withdraws(self, fact: KeptItem) -> bool:
        """True if it is a withdrawal of the fact's value, case and spaces aside; one without a value withdraws any."""
        named, held = (named_text(each.item.provenance.get("value")) for each in (self, fact))
        return self.is_withdrawal and named in ("", held)

    @property
    def is_timed(self) -> bool:
        """True if it came with a time; otherwise both of its times are when it was stored."""
        return self.valid_s != self.stored_s

    def is_coming(self, now_s: float) -> bool:
        """True if the time that it came with is still to come, in every time zone."""
        return self.is_timed and self.valid_s > now_s + ZONES_S


def named_text(name: Any, form: Form = "NFC") -> str:
    """A name or value as text to compare: in a normal form, letter case and spaces aside; empty for None."""
    return "" if name is None else " ".join(normalised_text(form, str(name)).casefold().split())


def unstored(item: MemoryItem, count: int, key: str | None, stored_s: float = math.inf) -> KeptItem:
    """An item that no file has, the `count`th of its attempt or process; one of a process has been stored at a time."""
    given = time_of(item)
    return KeptItem(item, FIRST_UNSTORED + count, key, stored_s if given is None else given, stored_s)


def time_of(item: MemoryItem) -> float | None:
    """The valid time that the writer gave an item, if any. ConfigError if it is no time."""
    given = item.provenance.get("time")
    return None if given is None else seconds_of(given)


def seconds_of(given: Any) -> float:
    """Seconds since 1970 of a number or an ISO 8601 text, UTC unless it names a zone. ConfigError for anything else."""
    try:
        if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
            return float(given)
        read = datetime.fromisoformat(given)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"a time is {given!r:.80}: give seconds since 1970 or ISO 8601, such as 2026-03-01") from None


def check_origins(provenance: Mapping[str, Any]) -> None:
    """ConfigError if the origins of a provenance are neither a text nor a list of texts."""
    given = provenance.get("origin") or []
    if not isinstance(given, str) and not (isinstance(given, list) and all(isinstance(each, str) for each in given)):
        raise ConfigError(f"an origin is {given!r:.80}: give a text, or a list of texts")


def check_confidence(provenance: Mapping[str, Any]) -> None:
    """ConfigError if the confidence of a provenance is given and is none."""
    given = provenance.get("confidence", 1.0)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise ConfigError(f"confidence is {given!r:.80}: give a number from 0 to 1")


def origins_given(provenance: Mapping[str, Any]) -> list[str]:
    """The origins of a provenance as texts, whatever a file of somebody else may hold in their place."""
    given = provenance.get("origin") or []
    return [str(each) for each in (given if isinstance(given, list) else [given])]


def shown_time(seconds: float) -> str:
    """A time as text, to the second and without a part of the day that is 0; empty if it is not finite or out of range."""
    if not -62_000_000_000 < seconds < 253_402_300_800:  # the year 10000
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)).removesuffix("T00:00:00Z")


def exact_time(seconds: float) -> str | float:
    """A time as text, to the microsecond; as seconds since 1970 if it is of no year from 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return seconds


def body_of(item: MemoryItem) -> bytes:
    """The item's text and provenance as a store keeps them. ConfigError if they are too large, or are no JSON."""
    try:
        body = canonical([item.text, item.provenance]).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"the provenance of {item.text[:40]!r} is no JSON ({error}): give texts and numbers"
        ) from None
    if len(body) > MAX_ITEM_BYTES:
        raise ConfigError(
            f"{item.text[:40]!r}... takes {len(body):,} bytes and an item at most {MAX_ITEM_BYTES:,}: split it"
        )
    try:
        _decoded(body)
    except ValueError as error:
        raise ConfigError(f"{item.text[:40]!r} cannot be kept: {error}; keep less of its provenance") from None
    if not (item.id.isascii() and item.id.isprintable() and 0 < len(item.id) <= 64):
        raise ConfigError(f"an item has the id {item.id!r:.80}: 1 to 64 printable ASCII characters were expected")
    return body


def item_of(id: str, body: object) -> MemoryItem:
    """The item of a body that `body_of` wrote. ValueError or ConfigError, which say why, for a body of another form."""
    text, provenance = _decoded(body)
    check_confidence(provenance)
    return MemoryItem(id, text, provenance)


def _decoded(body: object) -> list[Any]:
    pair = decoded_column(body, MAX_ITEM_BYTES, MAX_ITEM_VALUES)
    if not isinstance(pair, list) or [*map(type, pair)] != [str, dict]:
        raise ValueError("it is no text with a provenance")
    return pair


@lru_cache(maxsize=1)
def _analyzer() -> Analyzer:
    return Analyzer()


def counts_of(texts: Sequence[str], *, form: int = NEWEST_FORM) -> list[dict[str, int]]:
    """The words of texts and their counts; an older version has counted them in another form (see `Analyzer`)."""
    return _analyzer().counts(texts, form=form)


@lru_cache(maxsize=4096)
def words_of(text: str) -> Mapping[str, int]:
    """The words of a text and their counts, as the retrieval index counts them: lower case, stemmed. Do not change it."""
    return _analyzer().counts([text])[0]
