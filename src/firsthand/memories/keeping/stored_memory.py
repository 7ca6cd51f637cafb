"""StoredMemory: items of one owner and kind, in a file or in this process, ranked by BM25 and by time.

A snapshot keeps the number of the last item it may see and its own changes, so that it costs nothing however large the file
is. What other processes write meanwhile is not seen; what they delete is gone from snapshots too.

BM25 (Robertson and Zaragoza, 2009): k1 1.2, b 0.75. The candidates are the items that have one of the query's rarest words,
of which so many are looked up that POSTINGS items are read, and one at least; the other words count for candidates only.
"""

from __future__ import annotations

import builtins
import math
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby, islice
from typing import Any, Self

from firsthand.loop.concurrency import in_thread
from firsthand.memories.keeping.item_age import oldest_first, replaced_of, standing
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds, ScopeSize, WordRow
from firsthand.memories.keeping.item_vectors import CANDIDATES, ItemVectors, fused
from firsthand.memories.keeping.kept_item import (
    FIRST_UNSTORED,
    KeptItem,
    body_of,
    check_confidence,
    check_origins,
    time_of,
    unstored,
    words_of,
)
from firsthand.memories.keeping.recall_request import RecallRequest
from firsthand.memory import Lifetime, MemoryItem

POSTINGS = 1_000
K1, B = 1.2, 0.75
DAY_S = 86_400.0
_PAGE = 32
_EVERYTHING = FIRST_UNSTORED - 1
_NOBODY = ScopeSize(0, 0, 0)
_Holding = dict[tuple[str, ...], str | None]
"""By keys, the id of the item that holds, as far as it was looked up: many items of one key may be looked at."""


def no_key(item: MemoryItem) -> str | None:
    """No key: no item replaces another."""
    return None


def no_older_keys(item: MemoryItem) -> Sequence[str]:
    """None: keys were always made as they are now."""
    return ()


def any_item(item: MemoryItem) -> None:
    """Check nothing."""


@dataclass(frozen=True)
class KeepingPolicy:
    """The rules by which kinds of memory differ in what they store and find."""

    kind: str
    key_of: Callable[[MemoryItem], str | None] = no_key
    """The key of an item: of those with one key only the newest is found."""
    check: Callable[[MemoryItem], None] = any_item
    """ConfigError for an item that does not belong here."""
    half_life_days: float | None = None
    """Halve the score for each so many days that an item is older than the newest one. None: time breaks no tie."""
    bounds: KeepingBounds = field(default_factory=KeepingBounds)
    older_keys: Callable[[MemoryItem], Sequence[str]] = no_older_keys
    """Keys under which a file may have items of the same key, which an older version wrote."""


class StoredMemory:
    """The memory. With no file it is gone with the process."""

    def __init__(
        self,
        policy: KeepingPolicy,
        file: ItemFile | None = None,
        *,
        owner: str = "",
        lifetime: Lifetime = "agent",
        vectors: ItemVectors | None = None,
    ):
        self.policy = policy
        self.name = policy.kind
        self.file = file
        self.owner = owner
        self.lifetime = lifetime
        self.vectors = vectors
        """Searches find items by their meaning too; None: by their words alone."""
        self._is_snapshot = False
        self._last = _EVERYTHING
        self._size: ScopeSize | None = None
        """The size of a snapshot's scope when it was taken."""
        self._changes: dict[str, KeptItem] = {}
        """Items that are not in the file: by id."""
        self._hidden: set[str] = set()
        """Ids whose items in the file are not seen."""
        self._made: set[str] = set()
        """Names of changes that were made here and not in the file."""
        self._count = 0
        self._bytes = 0
        """Of the items of this process."""
        self._stored_s = 0.0
        """When the last item was stored in this process, in seconds since 1970: the next one is stored later."""

    # -- the protocol --

    def admit(self, item: MemoryItem) -> None:
        """ConfigError if the item cannot be kept: too large, a time or origins that are none, or not of this kind."""
        body_of(item)
        time_of(item)
        check_origins(item.provenance)
        check_confidence(item.provenance)
        self.policy.check(item)

    async def write(self, item: MemoryItem, *, once: str = "") -> str:
        """Keep an item; one whose id is there already is left as it is. In a file it is on the disk when this returns.

        So a fact that holds again, after another one, needs a provenance of its own, such as a `time`; `ctx.remember` gives
        it one.

        A full memory does not keep an item that is the first to go, being older than the others. `once` is the name of
        this change: one that was made under that name is not made again.
        """
        self.admit(item)
        key = self.policy.key_of(item)
        if self.file is not None and not self._is_snapshot:
            file = self.file
            await in_thread(lambda: file.put(self.owner, self.name, item, key, self.policy.bounds, once=once))
        elif self._is_first(once) and item.id not in self._changes and not self._is_in_file(item.id):
            self._count += 1
            if self._is_snapshot:
                self._changes[item.id] = unstored(item, self._count, key)
            else:
                self._stored_s = round(max(time.time(), self._stored_s + 1e-6), 6)
                self._changes[item.id] = unstored(item, self._count, key, self._stored_s)
                self._bytes += len(body_of(item))
                self._bound()
        return item.id

    async def search(self, query: str, k: int, **how: Any) -> builtins.list[MemoryItem]:
        """At most `k` items, best first, ties by id; the newest first if the query has no words. `how`: see RecallRequest.

        Items that a newer one of their key has replaced, or that were withdrawn, or are `hidden`, are not found unless
        `history` is set.
        """
        asked = RecallRequest.of(query, k, how)
        meaning: Sequence[int] = ()
        if self.vectors is not None and not asked.ids and asked.query.strip():
            scope = 0 if self.file is None else self.file.scope(self.owner, self.name)
            own = {kept.number: kept.item.text for kept in self._changes.values()}
            meaning = await self.vectors.nearest(asked.query, self.file, scope, self._last, own)
        return [kept.item for kept in self.found(asked, meaning)]

    async def forget(self, id: str, *, once: str = "") -> None:
        """Delete an item for good; an id that is not there is no error. `once` is the name of this change, as in `write`."""
        if self.file is not None and not self._is_snapshot:
            file = self.file
            await in_thread(lambda: file.remove(self.owner, self.name, id, once=once))
        elif self._is_first(once):
            self._drop(id)
            self._hidden.add(id)

    async def once(self, change: MemoryItem | str, name: str) -> None:
        """Write an item, or forget an id, unless a change of that name was made before, and whatever became of it since."""
        if isinstance(change, MemoryItem):
            await self.write(change, once=name)
        else:
            await self.forget(change, once=name)

    def _is_first(self, name: str) -> bool:
        """True if no change of that name was made in this process; one without a name is always the first."""
        is_first = name not in self._made
        self._made |= {name} if name else set()
        return is_first

    async def list(self) -> builtins.list[MemoryItem]:
        """All items, by id, replaced and withdrawn ones included."""
        return sorted((kept.item for kept in self.all()), key=lambda item: item.id)

    def snapshot(self) -> StoredMemory:
        """A copy that sees what this one sees now; changes to it stay in this process."""
        taken = StoredMemory(self.policy, self.file, owner=self.owner, lifetime=self.lifetime, vectors=self.vectors)
        taken._is_snapshot = True
        taken._last = self._last if self._is_snapshot or self.file is None else self.file.last_number()
        taken._size = self._size if self._is_snapshot else self._size_now()
        taken._changes, taken._hidden, taken._count = dict(self._changes), set(self._hidden), self._count
        return taken

    def of_owner(self, owner: str) -> Self:
        """The same memory for another user, who sees nothing of this one's."""
        other = copy(self)
        other.owner, other._is_snapshot, other._last, other._size = owner, False, _EVERYTHING, None
        other._changes, other._hidden, other._made, other._count, other._bytes = {}, set(), set(), 0, 0
        return other

    # -- reading --

    def all(self) -> Iterator[KeptItem]:
        """All items, the newest first, ties by id, replaced and withdrawn ones included."""
        return merge(sorted(self._changes.values(), key=_newest), self._stored(), key=_newest)

    def _stored(self) -> Iterator[KeptItem]:
        """Those of them that are in the file."""
        if self.file is None:
            return
        scope, before = self.file.scope(self.owner, self.name), None
        while page := self.file.newest_first(scope, self._last, before, _PAGE * 8):
            yield from (kept for kept in page if kept.item.id not in self._hidden)
            before = page[-1].valid_s, page[-1].item.id

    def get(self, id: str) -> KeptItem | None:
        """The item of an id."""
        if id in self._changes or self.file is None or id in self._hidden:
            return self._changes.get(id)
        kept = self.file.with_id(self.file.scope(self.owner, self.name), id)
        return kept if kept is not None and kept.number <= self._last else None

    def is_replaced(self, id: str) -> bool:
        """True if an item of that id is there and holds no more, or is a withdrawal of what holds again.

        One with a time is looked at as of that time: told again, it would replace nothing later, and what is to come waits.
        """
        kept = self.get(id)
        if kept is None or kept.key is None:
            return False
        keys, holding = self._keys(kept), _Holding()
        self._look_up([keys], RecallRequest("", 1, kept.valid_s if kept.is_timed else math.inf), holding)
        held = None if (holds := holding[keys]) is None else self.get(holds)
        if kept.is_withdrawal:
            return held is not None and kept.withdraws(held)
        return holds != id

    def tellings(self, item: MemoryItem) -> int:
        """The number of times an item was told, 0 if it is not stored."""
        beyond = 1
        while self.get(item.told_again(beyond).id) is not None:
            beyond *= 2
        missing = range(beyond // 2 + 1, beyond)
        return beyond // 2 + bisect(missing, False, key=lambda number: self.get(item.told_again(number).id) is None)

    def with_key(self, key: str) -> builtins.list[KeptItem]:
        """The items of a key, the newest last."""
        return oldest_first(self.with_keys([key]).get(key, ()))

    def with_keys(self, keys: Collection[str]) -> dict[str, builtins.list[KeptItem]]:
        """The items that have one of the keys, by key."""
        found = defaultdict[str, builtins.list[KeptItem]](builtins.list)
        for kept in self._changes.values():
            if kept.key is not None and kept.key in keys:
                found[kept.key].append(kept)
        if self.file is not None and keys:
            for kept in self.file.with_keys(self.file.scope(self.owner, self.name), sorted(keys), self._last):
                if kept.key is not None and kept.item.id not in self._hidden:
                    found[kept.key].append(kept)
        return found

    def found(self, asked: RecallRequest, meaning: Sequence[int] = ()) -> builtins.list[KeptItem]:
        """The items of a request, best first; `meaning` are numbers of items near to it, the nearest first."""
        if asked.ids:
            named = (self.get(id) for id in asked.ids[: asked.k])
            return [kept for kept in named if kept is not None and asked.fits(kept)]
        holding: _Holding = {}
        has_words = meaning or words_of(asked.query)
        candidates = self._ranked(asked, meaning, holding) if has_words else self._by_time(asked)
        return [*islice(self._findable(candidates, asked, holding, min(asked.k, _PAGE)), asked.k)]

    def _findable(
        self, candidates: Iterator[KeptItem], asked: RecallRequest, holding: _Holding, at_once: int
    ) -> Iterator[KeptItem]:
        """Those candidates that the request finds; what holds of their keys is looked up for so many of them at once."""
        while page := [*islice(candidates, at_once)]:
            found = [kept for kept in page if asked.fits(kept)]
            if not asked.history:
                found = [kept for kept in found if not kept.item.provenance.get("hidden")]
                keys = {kept.number: self._keys(kept) for kept in found}
                self._look_up({*keys.values()} - {*holding}, asked, holding)
                found = [kept for kept in found if kept.key is None or holding[keys[kept.number]] == kept.item.id]
            yield from found

    def _keys(self, kept: KeptItem) -> tuple[str, ...]:
        """The keys under which items of its key may be; none if nothing replaces it."""
        if kept.key is None:
            return ()
        named = {kept.key, self.policy.key_of(kept.item) or kept.key, *self.policy.older_keys(kept.item)}
        return tuple(sorted(named))

    def _look_up(self, wanted: Collection[tuple[str, ...]], asked: RecallRequest, holding: _Holding) -> None:
        """Note the id of the item that holds for the request, of those with keys that are wanted, or None. What is to come
        counts where nothing of them has begun yet: the first of it that will hold."""
        items = self.with_keys({key for keys in wanted for key in keys})
        for keys in wanted:
            past = (each for key in keys for each in items.get(key, ()) if asked.is_past(each))
            known = oldest_first(map(asked.dated, past))
            begun = [each for each in known if not asked.is_coming(each)]
            plans = (standing([*of_one_time]) for _, of_one_time in groupby(known, key=lambda each: each.valid_s))
            counted = standing(begun) if begun else next(filter(None, plans), None)
            holding[keys] = None if counted is None else counted.item.id

    def _by_time(self, asked: RecallRequest) -> Iterator[KeptItem]:
        return (kept for kept in self.all() if kept.valid_s >= asked.since_s)

    # -- ranking --

    def _ranked(self, asked: RecallRequest, meaning: Sequence[int], holding: _Holding) -> Iterator[KeptItem]:
        """The items that share a word with the query, or are near to it, by score, ties by id.

        Two rankings are fused as far as CANDIDATES of the items that the request may find: any number of others, such as
        replaced ones, takes no place in them.
        """
        scores = self._scores(asked.query)
        if meaning:
            rankings = (self._read(numbers) for numbers in (self._ordered(scores), iter(meaning)))
            findable = (self._findable(ranking, asked, holding, _PAGE) for ranking in rankings)
            scores = fused(*([kept.number for kept in islice(ranking, CANDIDATES)] for ranking in findable))
        if self.policy.half_life_days is not None:
            kept = self._numbered([*scores])
            newest = max((each.known_s for each in kept.values() if math.isfinite(each.known_s)), default=0.0)
            half_s = self.policy.half_life_days * DAY_S
            scores = {  # as logarithms: a factor of 0.5 for each half life soon is 0 for all
                n: math.log2(scores[n] or math.ulp(0.0)) - max(0.0, newest - each.known_s) / half_s
                for n, each in kept.items()
            }
        yield from self._read(self._ordered(scores))

    def _read(self, numbers: Iterator[int]) -> Iterator[KeptItem]:
        """The visible items of those numbers, in their order, a page at a time."""
        while page := list(islice(numbers, _PAGE)):
            kept = self._numbered(page)
            yield from (kept[number] for number in page if number in kept)

    def _ordered(self, scores: Mapping[int, float]) -> Iterator[int]:
        """The numbers by score, ties by id."""
        order = sorted(scores, key=lambda number: -scores[number])
        for _, equals in groupby(order, key=lambda number: scores[number]):
            group = list(equals)
            if len(group) > 1:
                ids = {kept.number: kept.item.id for kept in self._changes.values()}
                if self.file is not None:
                    ids |= self.file.ids(group)
                group = sorted((number for number in group if number in ids), key=ids.__getitem__)
            yield from group

    def _numbered(self, numbers: Sequence[int]) -> dict[int, KeptItem]:
        """The visible items of those numbers."""
        own = {kept.number: kept for kept in self._changes.values()}
        wanted = {number: own[number] for number in numbers if number in own}
        if self.file is not None:
            stored = self.file.numbered(numbers)  # which knows none of our own: see FIRST_UNSTORED
            wanted |= {number: kept for number, kept in stored.items() if kept.item.id not in self._hidden}
        return wanted

    def _scores(self, query: str) -> dict[int, float]:
        """BM25 of each candidate for the query, by number."""
        words = sorted(words_of(query))
        own = [(kept.number, words_of(kept.item.text)) for kept in self._changes.values()]
        lengths = {number: sum(counts.values()) for number, counts in own}
        size, rows = _NOBODY, {}
        if self.file is not None:
            scope = self.file.scope(self.owner, self.name)
            size, rows = self._size or self.file.size(scope), self.file.words(scope, words)
        total = size.items + len(own)
        mean = max(1.0, (size.words + sum(lengths.values())) / max(1, total))
        stored = {word: rows.get(word, WordRow(0, 0)).items for word in words}
        scores: dict[int, float] = {}
        read = 0
        for word in sorted(words, key=lambda word: (stored[word], word)):
            rare = not read or read + stored[word] <= POSTINGS
            found = [(number, counts[word], lengths[number]) for number, counts in own if word in counts]
            count_all = len(found) + stored[word]
            if self.file is not None and word in rows and rare:
                found += self.file.postings(rows[word].number, self._last)
                count_all = len(found)
                read += stored[word]
            elif self.file is not None and word in rows:
                found += self.file.postings_of(
                    rows[word].number, [number for number in scores if number < FIRST_UNSTORED]
                )
            idf = math.log1p(max(0.0, total - count_all + 0.5) / (count_all + 0.5))
            for number, count, length in found:
                gain = idf * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))
                scores[number] = scores.get(number, 0.0) + gain
        return scores

    def _size_now(self) -> ScopeSize | None:
        return None if self.file is None else self.file.size(self.file.scope(self.owner, self.name))

    def _is_in_file(self, id: str) -> bool:
        """True if the snapshot sees an item of that id in the file."""
        if self.file is None or id in self._hidden:
            return False
        kept = self.file.with_id(self.file.scope(self.owner, self.name), id)
        return kept is not None and kept.number <= self._last

    def _bound(self) -> None:
        """Drop what is beyond the bounds, and a hundredth more, as a file does: each look reads all items."""
        bounds = self.policy.bounds
        if len(self._changes) <= bounds.items and self._bytes <= bounds.size_bytes:
            return
        oldest = sorted(self._changes.values(), key=lambda kept: (kept.valid_s, kept.number))
        now_s = time.time()
        begun = defaultdict[str, builtins.list[KeptItem]](builtins.list)
        for kept in oldest:
            if kept.key and not kept.is_coming(now_s):
                begun[kept.key].append(kept)
        several = (oldest_first(items) for items in begun.values() if len(items) > 1)
        replaced = {kept.number for items in several for kept in replaced_of(items)}
        oldest.sort(key=lambda kept: kept.number not in replaced)  # which go first, each half from the oldest on
        most = bounds.items - bounds.items // 100, bounds.size_bytes - bounds.size_bytes // 100
        for kept in oldest:
            if len(self._changes) <= most[0] and self._bytes <= most[1]:
                break
            self._drop(kept.item.id)

    def _drop(self, id: str) -> None:
        """Delete an item of this process, if it is there."""
        if (kept := self._changes.pop(id, None)) is not None and not self._is_snapshot:
            self._bytes -= len(body_of(kept.item))


def _newest(kept: KeptItem) -> tuple[float, int, str]:
    """A sort key: the newest first, ties by id; of those without a time the last written."""
    return -kept.valid_s, 0 if math.isfinite(kept.valid_s) else -kept.number, kept.item.id
