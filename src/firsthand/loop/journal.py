"""Journals record an attempt's effects, so that a resumed attempt repeats none and a replay needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from firsthand.message import Json
from firsthand.model import OrderedReplies


class Journal(Protocol):
    """Records an attempt's effects before they are acknowledged, so that a resumed attempt repeats none.

    An entry is found by the effect's id, its place in the tree of branches, and the hash of its request.
    """

    def find(self, effect: str, request: str) -> Json | None:
        """The reply recorded for this effect, or None."""

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply; `find` returns it from now on."""

    async def settled(self) -> None:
        """Wait until all that was recorded survives `kill -9`; returns at once if `record` is durable itself."""

    def replies(self, part: str = "") -> list[Json]:
        """The last recorded reply to each request, which an interrupted try has paid for already.

        Of the agent's own effects, or of a part of the journal.
        """


@runtime_checkable
class Placed(Protocol):
    """A Journal that knows the place of its attempt."""

    def where(self, effect: str) -> tuple[str, str]:
        """The attempt's place, and the effect's name in the journal of the whole attempt."""


class MemoryJournal:
    """A Journal that lives as long as its process: for one-off rollouts and tests."""

    def __init__(self, place: str = "") -> None:
        """`place` is the id of the attempt's place, if it has one."""
        self.place = place
        self.entries: dict[tuple[str, str], Any] = {}

    def where(self, effect: str) -> tuple[str, str]:
        """The attempt's place, and the effect."""
        return self.place, effect

    def find(self, effect: str, request: str) -> Json | None:
        """The reply recorded for this effect, or None."""
        entry: Json | None = self.entries.get((effect, request))
        return entry

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply in memory."""
        self.entries[effect, request] = reply

    async def settled(self) -> None:
        """Returns at once: nothing here survives its process."""

    def replies(self, part: str = "") -> list[Json]:
        """The last recorded reply to each request, of the agent or of a part."""
        return [reply for (effect, _), reply in self.entries.items() if part_of(effect) == part]


class JournalPart:
    """The part of an attempt's journal with the effects of a scorer's judge, apart from the agent's own."""

    def __init__(self, journal: Journal, name: str):
        self.journal = journal
        self.name = name

    def where(self, effect: str) -> tuple[str, str]:
        """The attempt's place, and the effect's name in the whole journal; no place if that is not known."""
        return where_in(self.journal, f"{self.name}|{effect}")

    def find(self, effect: str, request: str) -> Json | None:
        """The reply recorded for this effect, or None."""
        return self.journal.find(f"{self.name}|{effect}", request)

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply."""
        self.journal.record(f"{self.name}|{effect}", request, reply)

    async def settled(self) -> None:
        """Wait until all that was recorded survives `kill -9`."""
        await self.journal.settled()

    def replies(self, part: str = "") -> list[Json]:
        """The last recorded reply to each request of this part."""
        return self.journal.replies(self.name)


def skip_given(model: object, journals: Iterable[Journal]) -> None:
    """Let a model that gives each of its replies once go on after those in the journals of a run that is resumed."""
    if isinstance(model, OrderedReplies) and model.is_ordered:
        skip_recorded(model, (reply for journal in journals for reply in journal.replies()))


def skip_recorded(model: object, replies: Iterable[Json]) -> None:
    """Let a model that gives each of its replies once go on after these recorded ones."""
    if isinstance(model, OrderedReplies) and model.is_ordered:
        model.skip_replies({index for reply in replies for index in _indices(reply)})


def _indices(reply: Json) -> Iterator[int]:
    completions = reply.get("completions")  # of a file that may have been changed
    for completion in completions if isinstance(completions, list) else ():
        index = completion.get("reply_index") if isinstance(completion, dict) else None
        if type(index) is int:
            yield index


def where_in(journal: Journal, effect: str) -> tuple[str, str]:
    """The place of the journal's attempt, and the effect's name in the journal of the whole attempt; no place if unknown."""
    return journal.where(effect) if isinstance(journal, Placed) else ("", effect)


def part_of(effect: str) -> str:
    """The part of the journal that an effect belongs to; empty for the agent's own."""
    return effect.rpartition("|")[0]
