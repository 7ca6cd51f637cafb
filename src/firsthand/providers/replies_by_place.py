"""Finds the reply that a recorded run holds for a call: that of the same place, else by the order of equal requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from firsthand.loop.asked_at import REPLAYED_ELSEWHERE, AskedAt, asked_at
from firsthand.message import Json

K = TypeVar("K")


class Store(Protocol):
    """A store of replies by the key of their request."""

    def reply(self, request: str) -> Json | None:
        """The reply to the request of this key, or None."""


@runtime_checkable
class PlacedStore(Store, Protocol):
    """A Store that knows at which effect of which attempt each reply was given."""

    def replied_at(self, request: str) -> Sequence[tuple[str, str]]:
        """The attempts and effects that the request was recorded at, the oldest first."""

    def reply_at(self, attempt: str, effect: str, request: str) -> Json | None:
        """The last reply recorded there, or None."""

    def failed_at(self, attempt: str, effect: str, request: str) -> str | None:
        """The error that the call ended with there, or None."""


class Found(NamedTuple):
    """A recorded reply, and the attempt that it was given in; `error` in place of a reply where the call had failed."""

    reply: Json | None
    attempt: str = ""
    error: str = ""


class RepliesByPlace:
    """Looks up replies of a store for the calls of a replay.

    A call gets the reply recorded at its own place: the same effect of the same attempt. Where the pattern's code came
    another way, so that the effect is another one, the Nth equal request of the attempt gets its Nth reply. Only where the
    attempt never asked this does a reply of another attempt count, the Nth one for the Nth call, and the trace says so.
    A store that knows no places, and a call outside of attempts, have the request alone.
    """

    def __init__(self, store: Store):
        self.store = store
        self._asked: dict[tuple[str, str], dict[str, int]] = {}
        """An attempt and a request -> the effects it was asked at, and the how-manieth each was."""
        self._elsewhere: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        """A request and an effect, or no effect -> the calls that got replies of other attempts, in their order."""

    def find(self, request: str) -> Found | None:
        """The reply to a request of the call that is being made, or None."""
        store, here = self.store, asked_at()
        if here is None or not isinstance(store, PlacedStore):
            reply = store.reply(request)
            return None if reply is None else Found(reply)
        turn = _turn(self._asked.setdefault((here.attempt, request), {}), here.effect)
        if (reply := store.reply_at(here.attempt, here.effect, request)) is not None:
            return Found(reply, here.attempt)
        if (error := store.failed_at(here.attempt, here.effect, request)) is not None:
            return Found(None, here.attempt, error)
        places = store.replied_at(request)
        if not places:
            return None
        own = [effect for attempt, effect in places if attempt == here.attempt]
        if own:
            reply = store.reply_at(here.attempt, own[min(turn, len(own) - 1)], request)
            return None if reply is None else Found(reply, here.attempt)
        return self._of_another(store, here, request, places)

    def _of_another(
        self, store: PlacedStore, here: AskedAt, request: str, places: Sequence[tuple[str, str]]
    ) -> Found | None:
        """A reply of another attempt: one at the same effect if there is any."""
        alike = [each for each in places if each[1] == here.effect]
        called = self._elsewhere.setdefault((request, here.effect if alike else ""), {})
        turn = _turn(called, (here.attempt, here.effect))
        attempt, effect = (alike or places)[min(turn, len(alike or places) - 1)]
        if (reply := store.reply_at(attempt, effect, request)) is None:
            return None
        here.note(REPLAYED_ELSEWHERE, call=here.effect, place=attempt, effect=effect)
        return Found(reply, attempt)


def _turn(turns: dict[K, int], key: K) -> int:
    """The how-manieth key this is, from 0; a key that came before keeps its number, as a retried call does."""
    return turns.setdefault(key, len(turns))
