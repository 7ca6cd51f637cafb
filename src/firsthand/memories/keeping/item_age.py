"""The order of a memory's items by newness, and the items of its file that go first.

Of an item that was stored without a time both times are the clock's, and clocks are set back, or differ between machines.
The order of writing is sure: what was stored before another such item of its key counts as no newer than that one. An
import writes what was stored elsewhere before: it orders what came with it, and what was here keeps its place by time.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from sqlite3 import Connection

from firsthand.memories.keeping.kept_item import ZONES_S, KeptItem


def oldest_first(items: Iterable[KeptItem]) -> list[KeptItem]:
    """Items of one key by newness: the last one holds.

    By valid time, then confidence, then order of writing; those that were stored without a time are in the order of writing
    whatever their clocks said, those of an import among themselves, and newer than others of the same time.
    """
    items = list(items)
    order: dict[int, tuple[float, float]] = {}
    before_s = defaultdict[int, float](lambda: math.inf)
    for kept in sorted(items, key=lambda kept: -kept.number):
        if kept.is_timed:
            order[kept.number] = kept.valid_s, kept.confidence
        else:
            before_s[kept.batch] = min(before_s[kept.batch], kept.valid_s)
            order[kept.number] = min(before_s[kept.batch], before_s[0]), math.inf
    return sorted(items, key=lambda kept: (*order[kept.number], kept.number))


def standing(items: Iterable[KeptItem]) -> KeptItem | None:
    """The item that holds, of items of one key in the order of `oldest_first`: the last fact that is not withdrawn after it.

    A fact that was replaced does not come back when the one that replaced it is withdrawn.
    """
    holds: KeptItem | None = None
    for kept in items:
        if not kept.is_withdrawal:
            holds = kept
        elif holds is not None and kept.withdraws(holds):
            holds = None
    return holds


def replaced_of(items: Sequence[KeptItem]) -> Sequence[KeptItem]:
    """Those of such items that a newer fact has replaced; a withdrawal replaces nothing, as it may be of an older value."""
    return items[: max((place for place, kept in enumerate(items) if not kept.is_withdrawal), default=0)]


def in_order_of_import(items: Iterable[KeptItem]) -> list[KeptItem]:
    """Items of one owner and kind in the order of writing, but those of a key by newness, in the places that they have.

    Imported together in this order, the same items hold: what was written here and what came with several imports is then
    one import, which orders its items by writing.
    """
    of: defaultdict[str | None, list[KeptItem]] = defaultdict(list)
    for kept in sorted(items, key=lambda kept: kept.number):
        of[kept.key].append(kept)
    places: dict[int, KeptItem] = {}
    for key, written in of.items():
        ordered = written if key is None else oldest_first(written)
        places |= {place.number: kept for place, kept in zip(written, ordered, strict=True)}
    return [places[number] for number in sorted(places)]


_REPLACED = """
    WITH counted AS (
        SELECT number, id, key, valid_s, stored_s, length(body) AS size, coalesce(batch, 0) AS batch,
            CASE WHEN valid_s = stored_s THEN valid_s END AS clock_s,
            CASE WHEN instr(body, CAST('"withdrawn":' AS BLOB)) AND json_valid(CAST(body AS TEXT))
                THEN coalesce(json_extract(CAST(body AS TEXT), '$[1].withdrawn'), 0) IN (0, '') ELSE 1 END AS is_fact
        FROM items LEFT JOIN imported ON item = number
        WHERE scope = :scope AND key IS NOT NULL AND (valid_s = stored_s OR valid_s <= :now_s)),
    aged AS (
        SELECT *, min(clock_s) OVER (PARTITION BY key, batch ORDER BY number DESC) AS batch_s,
            min(CASE WHEN batch = 0 THEN clock_s END) OVER (PARTITION BY key ORDER BY number DESC) AS here_s
        FROM counted),
    ranked AS (
        SELECT *, sum(is_fact) OVER (
            PARTITION BY key ORDER BY CASE WHEN clock_s IS NULL THEN valid_s ELSE min(batch_s, coalesce(here_s, batch_s)) END
            DESC, CASE WHEN clock_s IS NULL THEN 0 ELSE number END DESC
            GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newer_facts
        FROM aged)
    SELECT number, size FROM ranked WHERE newer_facts > 0 ORDER BY valid_s, number LIMIT :many
"""
"""The order of `oldest_first`, but that none of several items which a writer gave one time is replaced by another. What is
to come replaces nothing yet, and is not replaced; nor does a withdrawal replace anything: see `replaced_of`."""
_OLDEST = """
    SELECT number, length(body) FROM items WHERE scope = :scope ORDER BY min(valid_s, stored_s), stored_s, number
    LIMIT :many
"""


def first_to_go(connection: Connection, scope: int, many: int) -> list[tuple[int, int]]:
    """Numbers and bytes of at most so many items: replaced ones, or else the oldest by `known_s`, of equal ones those that
    were stored first."""
    asked = {"scope": scope, "many": many, "now_s": time.time() + ZONES_S}
    return connection.execute(_REPLACED, asked).fetchall() or connection.execute(_OLDEST, asked).fetchall()
