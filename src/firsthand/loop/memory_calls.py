"""The operations on its agent's memory that an attempt makes: effects that are journalled, budgeted and recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from firsthand.errors import ConfigError
from firsthand.loop.attempt_memory import AttemptMemory, MemoryChange
from firsthand.loop.concurrency import current_branch
from firsthand.loop.open_call import OpenCall
from firsthand.loop.private_texts import READERS
from firsthand.loop.read_origins import bounded_origins, copies_private, origins_read
from firsthand.loop.request_key import request_key
from firsthand.memory import MemoryItem
from firsthand.message import Json, canonical
from firsthand.model import Usage
from firsthand.trace import as_json


async def remember_text(call: OpenCall, text: str, provenance: Json) -> str:
    """Write a text; returns its id."""
    order = current_branch().order(call.effect)

    def detail_of(items: Sequence[MemoryItem]) -> Json:
        return {"operation": "remember", "item": items[0].to_json(), "order": list(order)}

    (item,) = await _told(call, [_item(call, text, provenance)], detail_of)
    change = MemoryChange(call.effect, order, item)

    async def write(memory: AttemptMemory) -> str:
        memory.admit(item)
        return item.id

    return str(await _make(call, detail_of([item]), write, change))


async def remember_texts(call: OpenCall, entries: Sequence[tuple[str, Json]]) -> list[str]:
    """Write several texts, each with its provenance; returns their ids in order."""
    order = current_branch().order(call.effect)

    def detail_of(items: Sequence[MemoryItem]) -> Json:
        return {"operation": "remember", "items": [item.to_json() for item in items], "order": list(order)}

    items = await _told(call, [_item(call, text, given) for text, given in entries], detail_of)
    changes = [MemoryChange(call.effect, (*order, place), item) for place, item in enumerate(items)]

    async def write(memory: AttemptMemory) -> list[str]:
        for item in items:
            memory.admit(item)
        return [item.id for item in items]

    return list(await _make(call, detail_of(items), write, *changes))


async def recall_items(call: OpenCall, query: str, k: int, how: Json) -> list[MemoryItem]:
    """At most `k` items that fit a query, best first; `how` are further keywords of the memory's search."""
    filters = {"how": as_json(how)} if how else {}

    async def search(memory: AttemptMemory) -> list[Json]:
        seen = await memory.as_of(call.effect)
        try:
            found = await seen.search(query, k, **how)
        except TypeError as error:
            if not how:
                raise
            raise ConfigError(f"this memory's search takes no {', '.join(how)}: {error}") from None
        return [item.to_json() for item in found]

    found = await _make(call, {"operation": "recall", "query": query, "k": k} | filters, search)
    return [MemoryItem(**item) for item in found]


async def forget_item(call: OpenCall, id: str) -> None:
    """Drop an item; an id that is not there is no error."""
    change = MemoryChange(call.effect, current_branch().order(call.effect), None, id)

    async def drop(memory: AttemptMemory) -> None:
        return None

    await _make(call, {"operation": "forget", "id": id, "order": list(change.order)}, drop, change)


def _item(call: OpenCall, text: str, provenance: Json) -> MemoryItem:
    """The item of a text, with what it copies of private results.

    Its origin is the one that the writer gives, or all that the attempt has read by now.
    """
    memory = call.attempt.memory
    attempt = {} if memory is None else memory.origin
    given = as_json({**provenance, **_readers(call, text), **attempt, "effect": call.effect})
    if "origin" not in provenance:
        given["origin"] = bounded_origins(origins_read(call.attempt, call.node, call.effect))
    if not given["origin"]:
        del given["origin"]
    return MemoryItem.of(text, given)


async def _told(
    call: OpenCall, items: Sequence[MemoryItem], detail_of: Callable[[Sequence[MemoryItem]], Json]
) -> list[MemoryItem]:
    """The items with the numbers of their tellings, which a resumed attempt has from its journal."""
    memory, journal = call.attempt.memory, call.attempt.journal
    key = request_key("tellings", canonical([item.id for item in items]))
    if memory is None or journal.find(call.effect, request_key("memory", canonical(detail_of(items)))) is not None:
        return [*items]
    known = journal.find(call.effect, key)
    if known is None:
        known = {"tellings": [await memory.telling(item, call.effect) for item in items]}
        if max(known["tellings"], default=1) > 1:
            journal.record(call.effect, key, known)
    return [item.told_again(number) for item, number in zip(items, known["tellings"], strict=True)]


def _readers(call: OpenCall, text: str) -> Json:
    """Returns the readers of an item: the user alone if its text copies a private result of this attempt, else empty."""
    return {READERS: "user"} if copies_private(call.attempt, call.effect, text) else {}


async def _make(
    call: OpenCall, detail: Json, act: Callable[[AttemptMemory], Awaitable[Any]], *changes: MemoryChange
) -> Any:
    """The reply of an operation, from the journal if it is there. A change is then made again, in the snapshot."""
    attempt, memory = call.attempt, call.attempt.memory
    if memory is None:
        raise ConfigError(f"the agent {attempt.agent.name} has no memory: give it one, as in Agent(memory=notes())")
    request = request_key("memory", canonical(detail))
    recorded = call.find(request)
    granted = call.reserve() if recorded is None else None
    error: str | None = "it was broken off before it was done"
    try:
        async with call.in_time():
            if recorded is None:
                await attempt.keep(call.effect, request, recorded_now := {"memory": await act(memory)})
            reply = (recorded_now if recorded is None else recorded)["memory"]
        memory.changes += changes
        detail, error = detail | {"reply": reply}, None
    finally:
        call.pay(granted, Usage())
        call.record("memory", request, detail=detail, error=error, replayed=recorded is not None)
    return reply
