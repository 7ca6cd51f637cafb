"""The memory of one attempt: a snapshot of its agent's, and its own changes as far as each branch may see them.

A branch sees its own changes and those made before it began, and none of branches that run beside it: what is recalled does
not depend on how fast branches run. `commit` makes the changes of finished attempts in the agent's memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from firsthand.errors import ConfigError, FirsthandError
from firsthand.loop.concurrency import had_ended
from firsthand.loop.max_wait import awaited, max_wait_s
from firsthand.loop.private_texts import READERS, copies, private_texts
from firsthand.memory import Memory, MemoryItem, hook
from firsthand.message import Json
from firsthand.trace import Trace


@dataclass(frozen=True)
class MemoryChange:
    """An item written, or an id forgotten."""

    effect: str
    order: tuple[int, ...]
    """A sort key that does not depend on times; see `Branch.order`."""
    item: MemoryItem | None
    forgotten: str = ""


class AttemptMemory:
    """A snapshot of the agent's memory, and the attempt's changes to it."""

    def __init__(self, memory: Memory, origin: Json):
        self.base = snapshot_of(memory)
        self.origin = origin
        """Goes into the provenance of every item: benchmark, task, epoch."""
        self.changes: list[MemoryChange] = []

    def admit(self, item: MemoryItem) -> None:
        """ConfigError if the memory does not take such an item."""
        if (admit := hook(self.base, "admit")) is not None:
            admit(item)

    async def telling(self, item: MemoryItem, effect: str) -> int:
        """The number of an item's telling: 1, or more where it was told before and holds no more."""
        told = 0 if (tellings := hook(self.base, "tellings")) is None else tellings(item)
        if not told:
            return 1
        seen = await self.as_of(effect)
        return told + (1 if hook(seen, "is_replaced")(item.told_again(told).id) else 0)

    async def as_of(self, effect: str) -> Memory:
        """The memory as the branch of this effect sees it."""
        memory = snapshot_of(self.base)
        seen = [change for change in self.changes if had_ended(change.effect, effect)]
        await apply(memory, seen)
        return memory


async def apply(memory: Memory, changes: Iterable[MemoryChange], trace_id: str = "") -> None:
    """Make the changes, in an order that does not depend on times; with the id of their trace, each once for all."""
    for change in sorted(changes, key=lambda change: change.order):
        made = change.item or change.forgotten
        await _make(memory, made, f"{trace_id} {change.effect}" if trace_id else "")


async def commit(memory: Memory, trace: Trace) -> None:
    """Make the changes of a finished attempt in its agent's memory.

    A change of this trace that was committed before is not made again, whatever became of it since: what is forgotten stays
    so when its run is resumed. An attempt that is tried again has another trace, whose changes are its own.
    """
    await apply(memory, changes_of(trace), trace.id)


async def learn(memory: Memory, trace: Trace, kind: object) -> None:
    """Write what a finished attempt leaves in a memory of that kind, if it learns from traces; each item once for all."""
    if (learnt := hook(kind, "learn")) is not None:
        private = private_texts(trace.calls)
        for item in await _items_of(learnt, trace, kind):
            copied = copies(item.text, private) is not None
            kept = replace(item, provenance={**item.provenance, READERS: "user"}) if copied else item
            await _make(memory, kept, f"{trace.id} learnt")


async def _items_of(learnt: Callable[[Trace], Any], trace: Trace, kind: object) -> list[MemoryItem]:
    """Returns the items that a memory's `learn`, sync or async, gives for a trace. ConfigError for anything but items."""
    with _named(kind, "learn"):
        found = learnt(trace)
        if inspect.isawaitable(found):
            found = await awaited(max_wait_s(kind), found, kind, "learn")
        found = list(found)
    for each in found:
        if not isinstance(each, MemoryItem):
            raise ConfigError(
                f"the memory {type(kind).__name__}: learn gave {each!r:.80} where a MemoryItem was expected"
            )
    return found


def snapshot_of(memory: Memory) -> Memory:
    """The memory's snapshot. ConfigError naming the memory if it makes none."""
    with _named(memory, "snapshot"):
        made: Any = memory.snapshot()
    if inspect.iscoroutine(made):
        made.close()
    if not any(callable(getattr(made, name, None)) for name in ("write", "search", "forget", "list", "snapshot")):
        raise ConfigError(f"the memory {type(memory).__name__}: snapshot gave {made!r:.80} where a memory was expected")
    snapshot: Memory = made
    return snapshot


@contextmanager
def _named(memory: object, method: str) -> Iterator[None]:
    """Names the memory and the method in what goes wrong in a method of a user's own."""
    try:
        yield
    except FirsthandError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the memory {type(memory).__name__}: {method} failed with {type(error).__name__}: {error}"
        ) from error


async def _make(memory: Memory, change: MemoryItem | str, name: str) -> None:
    """Write an item or forget an id; under a name once for all, where the memory keeps what was made.

    WorldFailed if that takes longer than the memory's `max_wait_s`.
    """
    bound_s = max_wait_s(memory)
    if name and (once := hook(memory, "once")) is not None:
        named = f"{name} {change.id}" if isinstance(change, MemoryItem) else f"{name} forgets {change}"
        await awaited(bound_s, once(change, named), memory, "once")
    elif isinstance(change, MemoryItem):
        await awaited(bound_s, memory.write(change), memory, "write")
    else:
        await awaited(bound_s, memory.forget(change), memory, "forget")


def changes_of(trace: Trace) -> list[MemoryChange]:
    """The changes that an attempt made in its memory, read from its trace."""
    found = []
    for call in trace.calls:
        if call.kind != "memory" or call.error is not None or "order" not in call.detail:
            continue
        order = tuple(call.detail["order"])
        items = call.detail.get("items") or [call.detail.get("item")]
        for place, item in enumerate(items):
            whole = None if item is None else MemoryItem(**item)
            within = (*order, place) if "items" in call.detail else order
            found.append(MemoryChange(call.id, within, whole, str(call.detail.get("id", ""))))
    return found
